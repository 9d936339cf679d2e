//! What happens to a cluster while steps are switched: each time all workspaces come to where they were sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use workshop::crd::WorkspaceInstance;

use super::PATIENCE;
use crate::support::cluster::{CONTROLLER, Moment};
use crate::support::crowd::{Crowd, NAMESPACE, STEPS, names};
use crate::support::wait::wait_for;

/// What the other writer says last.
const LAST: &str = "last";

/// Somebody writes to spec, metadata and status of the same instances all the time, and what they write stays.
pub fn others_write_to_the_same_instances(crowd: &Crowd, seats: &[String]) {
    let start = Moment::now();
    let instances: Api<WorkspaceInstance> = Api::namespaced(crowd.client.clone(), NAMESPACE);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !is_over.load(Ordering::Relaxed) {
                round += 1;
                for seat in seats {
                    crowd.runtime.block_on(write_as_another(&instances, seat, &format!("round {round}")));
                }
            }
            for seat in seats {
                crowd.runtime.block_on(write_as_another(&instances, seat, LAST));
            }
        });
        crowd.go_to(seats, STEPS[2]);
        crowd.wait_running(seats, STEPS[2], PATIENCE);
        is_over.store(true, Ordering::Relaxed);
    });
    crowd.until("what the other writer said last", PATIENCE, || {
        crowd.of(seats).iter().all(|instance| {
            let members = &instance.spec.members;
            let sequence = instance.status.as_ref().and_then(|status| status.sequence);
            instance.metadata.annotations.as_ref().is_some_and(|all| all["example.org/note"] == LAST)
                && members.as_slice() == [LAST]
                && sequence == Some(sequence_of(LAST))
        })
    });
    let conflicts = crowd.cluster.calls_since(start, CONTROLLER).iter().filter(|call| call.code == 409).count();
    assert!(conflicts > 0, "nobody was ever in the controller's way, so nothing was shown");
}

async fn write_as_another(instances: &Api<WorkspaceInstance>, name: &str, what: &str) {
    let wish = json!({
        "metadata": { "annotations": { "example.org/note": what } }, "spec": { "members": [what] },
    });
    instances.patch(name, &PatchParams::default(), &Patch::Merge(wish)).await.unwrap();
    // As the management API of another replica writes: read, change, and only if nobody was faster.
    loop {
        let mut read = instances.get_status(name).await.unwrap();
        read.status.get_or_insert_default().sequence = Some(sequence_of(what));
        match instances.replace_status(name, &PostParams::default(), &read).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

fn sequence_of(what: &str) -> i64 {
    what.strip_prefix("round ").map_or(i64::from(i32::MAX), |round| round.parse().unwrap())
}

/// It is killed while steps are switched.
pub fn the_api_server_goes_away_in_the_middle(crowd: &Crowd, seats: &[String]) {
    let step = STEPS[1];
    crowd.go_to(seats, step);
    crowd.until("the first to change", PATIENCE, || {
        crowd.of(seats).iter().any(|instance| {
            instance.status.as_ref().and_then(|status| status.run.as_ref()).is_some_and(|run| run.step == step)
        })
    });
    crowd.restart_api_server();
    crowd.wait_running(seats, step, PATIENCE);
}

/// Its watches come back with a version that nobody remembers: it lists again, and misses nothing that was made,
/// changed or deleted meanwhile.
pub fn the_history_of_the_watches_is_gone(crowd: &Crowd, seats: &[String]) {
    let (early, late) = (names("early", 5), names("late", 5));
    crowd.create(&early, &json!({}));
    crowd.wait_running(&early, STEPS[0], PATIENCE);
    crowd.controller.halt();
    crowd.go_to(seats, STEPS[0]);
    crowd.create(&late, &json!({}));
    crowd.delete(&early);
    crowd.runtime.block_on(crowd.cluster.forget_history());
    // A new server remembers only what is after its start.
    crowd.restart_api_server();
    let start = Moment::now();
    crowd.controller.go_on();
    crowd.wait_running(seats, STEPS[0], PATIENCE);
    crowd.wait_running(&late, STEPS[0], PATIENCE);
    crowd.wait_gone(&early, PATIENCE);
    let calls = crowd.cluster.calls_since(start, CONTROLLER);
    let lists = |resource: &str| calls.iter().any(|call| call.verb == "list" && call.resource == resource);
    assert!(lists("workspaceinstances"), "its watch went on where it was, so nothing was shown");
    crowd.delete(&late);
}

/// Everything it may do cluster-wide is refused for a while: it says so, loses nothing, and goes on.
pub fn rights_are_taken_away_and_given_back(crowd: &Crowd, seats: &[String]) {
    let guests = names("guest", 10);
    let start = Moment::now();
    crowd.cluster.kubectl(&["delete", "clusterrolebinding", "test"]);
    crowd.create(&guests, &json!({}));
    crowd.go_to(seats, STEPS[1]);
    wait_for("the controller to be refused", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(100));
        let calls = crowd.cluster.calls_since(start, CONTROLLER);
        (calls.iter().filter(|call| call.code == 403).count() >= guests.len()).then_some(())
    });
    assert!(!crowd.of(&guests).iter().any(|guest| super::running(guest)), "what was refused is not done");
    let user = format!("--user={CONTROLLER}");
    crowd.cluster.kubectl(&["create", "clusterrolebinding", "test", "--clusterrole=workshop-controller", &user]);
    let given = Instant::now();
    crowd.wait_running(seats, STEPS[1], PATIENCE);
    crowd.wait_running(&guests, STEPS[0], PATIENCE);
    eprintln!("all run {:?} after the rights came back", given.elapsed());
    let refused = crowd.cluster.calls_since(start, CONTROLLER).iter().filter(|call| call.code == 403).count();
    assert!(refused < 40 * (seats.len() + guests.len()), "it asked {refused} times for what it may not");

    // The rights within one workspace's namespace are its own to restore.
    let one = std::slice::from_ref(&guests[0]);
    let namespace = crowd.of(one)[0].status.as_ref().and_then(|status| status.namespace.clone()).unwrap();
    crowd.cluster.kubectl(&["delete", "rolebinding", "workshop-instance-manager", "-n", &namespace]);
    crowd.go_to(one, STEPS[1]);
    crowd.wait_running(one, STEPS[1], PATIENCE);
    crowd.delete(&guests);
}
