//! What becomes of an instance, happening by happening.

use super::*;

#[test]
fn it_is_pinned_started_and_its_time_counts_from_there() {
    let mut world = World::new();
    world.template = Err("its workshop is not there".into());
    world.settle().is(Phase::Pending, "", "");
    assert_eq!(world.record.message.as_deref(), Some("its workshop is not there"));
    world.template = Ok(revision("a", &STEPS));
    world.look();
    world.is(Phase::Provisioning, "", "start one");
    world.look();
    world.is(Phase::Provisioning, "", "").settle().is(Phase::Running, "one", "");
    assert_eq!(world.record.started_at, Some(at(1_000)));
    assert_eq!(world.record.expires_at, Some(at(1_000 + 7_200)));
    // The first thing that would happen by itself is falling asleep.
    assert_eq!(world.decide().look_again, Some(at(1_000 + 1_800)));
    world.template = Err("gone".into());
    world.wish.step = Some("two".into());
    world.settle().is(Phase::Running, "two", "stop, start two");
}

#[test]
fn another_step_is_another_container_and_a_broken_one_leads_back() {
    let mut world = World::new();
    world.settle().is(Phase::Running, "one", "start one");
    world.wish.step = Some("two".into());
    world.look();
    world.is(Phase::Transitioning, "one", "stop, start two").settle().is(Phase::Running, "two", "");
    world.broken = vec!["three"];
    world.wish.step = Some("three".into());
    world.settle().is(Phase::Running, "two", "stop, start three, goto two, stop, start two");
    let told = "step \"three\" did not start (no such image): back at \"two\"";
    assert_eq!((world.record.message.as_deref(), world.wish.step.as_deref()), (Some(told), Some("two")));
    assert_eq!(world.events, [Reason::StepFailed]);
    world.wish.step = Some("one".into());
    world.settle().is(Phase::Running, "one", "stop, start one");
    assert_eq!(world.record.message, None);
    world.wish.step = Some("nowhere".into());
    world.settle().is(Phase::Running, "one", "");
    assert!(world.record.message.as_ref().unwrap().contains("no step \"nowhere\""));
}

#[test]
fn a_step_that_does_not_answer_in_time_leads_back() {
    let mut world = World::new();
    world.settle();
    world.actions.clear();
    world.wish.step = Some("two".into());
    world.look();
    world.after(Duration::from_secs(59)).look();
    world.is(Phase::Transitioning, "one", "stop, start two");
    assert_eq!(world.decide().look_again, Some(at(1_060)));
    world.after(Duration::from_secs(1)).look();
    world.is(Phase::Transitioning, "one", "goto one").settle().is(Phase::Running, "one", "stop, start one");
    assert!(world.record.message.as_ref().unwrap().contains("did not answer within 60 s"));
}

#[test]
fn a_reset_starts_the_same_image_anew_once_and_moves_the_pin() {
    let mut world = World::new();
    world.settle();
    world.actions.clear();
    world.wish.reset = Some("r1".into());
    world.settle().is(Phase::Running, "one", "stop, start one").settle().is(Phase::Running, "one", "");
    world.template = Ok(revision("b", &[("one", "10"), ("two", "2"), ("three", "3")]));
    world.settle().is(Phase::Running, "one", "");
    assert!(world.record.is_outdated && world.events == [Reason::NewerRevision]);
    world.wish.reset = Some("r2".into());
    world.settle().is(Phase::Running, "one", "stop, start one");
    assert!(!world.record.is_outdated);
    assert_eq!(world.record.pin, world.template.clone().ok());
}

#[test]
fn an_update_moves_the_pin_and_a_step_that_vanished_stays_for_those_in_it() {
    let mut world = World::new();
    world.wish.step = Some("two".into());
    world.settle();
    world.actions.clear();
    world.template = Ok(revision("b", &[("one", "10"), ("three", "3")]));
    world.wish.update = Some("u1".into());
    world.settle().is(Phase::Running, "two", "");
    assert!(world.record.is_outdated && world.record.message.as_ref().unwrap().contains("not in the template"));
    world.wish.step = Some("three".into());
    world.wish.update = Some("u2".into());
    world.settle().is(Phase::Running, "three", "stop, start three");
    assert_eq!((world.record.is_outdated, world.record.pin.clone()), (false, world.template.clone().ok()));
    // An update that leaves the step's image alone leaves the learner alone; the texts follow.
    world.template = Ok(revision("c", &[("one", "11"), ("three", "3")]));
    world.wish.update = Some("u3".into());
    world.settle().is(Phase::Running, "three", "preview artifact-c");
}

#[test]
fn texts_follow_at_once_where_images_are_equal_and_only_in_local_mode() {
    let mut world = World::new();
    world.settle();
    world.actions.clear();
    world.template = Ok(revision("b", &[("three", "3"), ("two", "2"), ("one", "1")]));
    world.settle().is(Phase::Running, "one", "preview artifact-b");
    assert!(!world.record.is_outdated && world.events.is_empty());
    // Settings are no texts: they wait.
    let mut other = revision("c", &STEPS);
    other.defaults = json!({"resources": {"memory": "1Gi"}});
    world.template = Ok(other);
    world.settle().is(Phase::Running, "one", "preview artifact-c");
    assert!(world.record.is_outdated);
    let mut cluster = World { live_text: false, ..World::new() };
    cluster.settle();
    cluster.actions.clear();
    cluster.template = Ok(revision("b", &STEPS));
    cluster.settle().is(Phase::Running, "one", "");
    assert!(cluster.record.is_outdated);
    cluster.wish.update = Some("u".into());
    cluster.settle().is(Phase::Running, "one", "stop, start one");
}

#[test]
fn the_end_is_told_before_and_an_ephemeral_one_is_deleted_then() {
    let mut world = World::new();
    world.overrides = Some(json!({"lifecycle": {"idleSuspend": false}}));
    world.settle();
    assert_eq!(world.decide().look_again, Some(at(1_000 + 7_200 - 720)));
    world.minutes(107).settle();
    assert_eq!(world.record.warned_at, None);
    world.minutes(1).settle();
    assert!(world.record.warned_at == Some(world.now) && world.events == [Reason::Expiring]);
    world.minutes(1).settle();
    assert_eq!((world.events.len(), world.decide().look_again), (1, Some(at(8_200))));
    world.actions.clear();
    world.minutes(11).settle().is(Phase::Terminating, "one", "delete, stop, forget");
    assert!(world.is_forgotten);
    // Five minutes are the least warning.
    let mut short = World::new();
    short.overrides = Some(json!({"lifecycle": {"ttl": "10m"}}));
    short.settle();
    short.minutes(5).settle();
    assert_eq!(short.events, [Reason::Expiring]);
}

#[test]
fn more_time_and_hold_keep_it() {
    let mut world = World::new();
    world.overrides = Some(json!({"lifecycle": {"idleSuspend": false}}));
    world.settle();
    world.wish.expires_at = Some(at(20_000));
    world.minutes(200).settle();
    assert_eq!((world.record.phase, world.record.expires_at), (Phase::Running, Some(at(20_000))));
    world.wish.hold = true;
    world.minutes(2_000).settle();
    assert_eq!((world.record.phase, world.record.warned_at), (Phase::Running, None));
    // Let go long after its end, it is told first.
    world.wish.hold = false;
    world.settle();
    assert_eq!((world.record.phase, world.events.last()), (Phase::Running, Some(&Reason::Expiring)));
    world.minutes(5).settle();
    assert!(world.is_forgotten);
}

#[test]
fn an_end_that_nobody_told_of_is_told_first() {
    // The program did not run for two days; or somebody moved the end to now.
    let mut late = World::new();
    late.overrides = Some(json!({"lifecycle": {"idleSuspend": false}}));
    let mut moved = late.clone();
    late.settle();
    late.actions.clear();
    late.minutes(2_880);
    moved.settle();
    moved.actions.clear();
    moved.minutes(1).wish.expires_at = Some(moved.now);
    for mut world in [late, moved] {
        let end = world.now.checked_add(Duration::from_secs(300)).unwrap();
        world.settle().is(Phase::Running, "one", "");
        assert_eq!((&world.events, world.record.expires_at), (&vec![Reason::Expiring], Some(end)));
        assert_eq!(world.decide().look_again, Some(end));
        world.after(Duration::from_secs(299)).settle().is(Phase::Running, "one", "");
        world.after(Duration::from_secs(1)).settle().is(Phase::Terminating, "one", "delete, stop, forget");
        assert_eq!(world.events, [Reason::Expiring, Reason::Expired]);
    }
    // More time, asked for meanwhile, is more time.
    let mut saved = World::new();
    saved.settle();
    saved.minutes(2_880).settle();
    saved.wish.expires_at = Some(saved.now.checked_add(Duration::from_secs(7_200)).unwrap());
    saved.minutes(6).settle();
    assert!(!saved.is_forgotten && saved.record.warned_at.is_none());
    // Told of one end, it is told anew of an earlier one.
    let mut earlier = World::new();
    earlier.overrides = Some(json!({"lifecycle": {"ttl": "10h", "idleSuspend": false}}));
    earlier.settle();
    earlier.minutes(541).settle();
    assert_eq!((&earlier.events, earlier.record.warned_at), (&vec![Reason::Expiring], Some(earlier.now)));
    earlier.minutes(10).wish.expires_at = Some(earlier.now);
    earlier.settle();
    assert_eq!(earlier.events, [Reason::Expiring, Reason::Expiring]);
    assert_eq!(earlier.record.expires_at, Some(earlier.now.checked_add(Duration::from_secs(300)).unwrap()));
    earlier.minutes(4).settle();
    assert!(!earlier.is_forgotten && earlier.events.len() == 2);
    earlier.minutes(1).settle();
    assert!(earlier.is_forgotten);
    // A workspace that is to last a minute has no five.
    let mut short = World::new();
    short.overrides = Some(json!({"lifecycle": {"ttl": "1m"}}));
    short.settle();
    assert_eq!((&short.events, short.record.expires_at), (&vec![Reason::Expiring], Some(at(1_060))));
    short.minutes(1).settle();
    assert!(short.is_forgotten);
}

#[test]
fn a_persistent_one_sleeps_at_its_end_and_has_its_time_anew_when_woken() {
    let mut world = World::new();
    world.overrides = Some(json!({"lifecycle": {"mode": "persistent", "idleSuspend": false}}));
    world.settle().is(Phase::Running, "one", "start one");
    world.minutes(121).settle().is(Phase::Running, "one", "");
    world.minutes(5).settle().is(Phase::Suspended, "one", "stop");
    assert_eq!(world.events, [Reason::Expiring, Reason::Expired]);
    world.minutes(600).settle().is(Phase::Suspended, "one", "");
    world.minutes(1).used().settle().is(Phase::Running, "one", "start one");
    assert_eq!(world.record.expires_at, Some(world.now.checked_add(Duration::from_secs(7_200)).unwrap()));
}

#[test]
fn one_that_nobody_uses_sleeps_and_use_wakes_it() {
    let mut world = World::new();
    world.settle().is(Phase::Running, "one", "start one");
    world.minutes(20).used().minutes(29).settle().is(Phase::Running, "one", "");
    world.minutes(1).settle().is(Phase::Suspended, "one", "stop");
    assert_eq!(world.events, [Reason::Idle]);
    // A report that comes late, of before, wakes nobody.
    world.record.last_activity_at = world.record.asleep.map(|asleep| asleep.since);
    world.settle().is(Phase::Suspended, "one", "");
    world.minutes(1).used().settle().is(Phase::Running, "one", "start one");
    // What somebody put to sleep, no use wakes.
    world.wish.suspended = true;
    world.settle().is(Phase::Suspended, "one", "stop");
    world.minutes(1).used().settle().is(Phase::Suspended, "one", "");
    world.wish.suspended = false;
    world.settle().is(Phase::Running, "one", "start one");
    world.wish.hold = true;
    world.minutes(600).settle().is(Phase::Running, "one", "");
}

#[test]
fn who_moves_it_wakes_it_by_one_write_of_the_spec() {
    let mut world = World::new();
    world.overrides = Some(json!({"lifecycle": {"ttl": "9h"}}));
    world.settle().is(Phase::Running, "one", "start one");
    world.minutes(31).settle().is(Phase::Suspended, "one", "stop");
    world.wish.step = Some("two".into());
    world.settle().is(Phase::Running, "two", "start two");
    world.minutes(31).settle().is(Phase::Suspended, "two", "stop");
    world.wish.reset = Some("anew".into());
    world.settle().is(Phase::Running, "two", "start two");
    world.wish.step = Some("one".into());
    world.settle().is(Phase::Running, "one", "stop, start one");
    // A step that is not there is nowhere to go.
    world.minutes(31).settle().is(Phase::Suspended, "one", "stop");
    world.wish.step = Some("nowhere".into());
    world.settle().is(Phase::Suspended, "one", "");
    world.wish.step = Some("one".into());
    world.minutes(1).used().settle().is(Phase::Running, "one", "start one");
}

#[test]
fn a_container_that_dies_is_started_again_slower_and_slower_and_then_no_more() {
    let mut world = World::new();
    world.settle().is(Phase::Running, "one", "start one");
    let mut pauses = Vec::new();
    for round in 1..=MAX_RESTARTS {
        world.end("it ended with code 137").look();
        let mut pause = 0;
        while world.actions.is_empty() {
            pause += 1;
            assert!(pause <= 30, "round {round}");
            world.after(Duration::from_secs(1)).look();
        }
        pauses.push(pause);
        world.settle().is(Phase::Running, "one", "stop, start one");
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8]);
    world.end("it ended with code 137: out of memory").settle().is(Phase::Failed, "one", "stop");
    assert!(world.record.message.as_ref().unwrap().contains("6 times in a row: it ended with code 137: out of memory"));
    assert_eq!(world.events.last(), Some(&Reason::CrashLooping));
    world.minutes(5).settle().is(Phase::Failed, "one", "");
    // Another wish is another try.
    world.wish.reset = Some("again".into());
    world.settle().is(Phase::Running, "one", "start one");
    // Failures far from each other do not add up.
    world.wish.hold = true;
    world.actions.clear();
    for _ in 0..20 {
        world.minutes(11).used().settle();
        world.end("it ended").settle().is(Phase::Running, "one", "stop, start one");
    }
}

#[test]
fn a_first_step_that_cannot_start_fails_with_its_reason() {
    let mut world = World { broken: vec!["one"], ..World::new() };
    for _ in 0..60 {
        world.look();
        world.after(Duration::from_secs(1));
    }
    assert_eq!(world.record.phase, Phase::Failed);
    assert!(world.record.message.as_ref().unwrap().contains("no such image"));
    assert_eq!(world.actions.iter().filter(|action| *action == "start one").count(), 6);
}

#[test]
fn what_runs_already_is_adopted_and_a_cut_off_start_is_made_again() {
    let mut world = World::new();
    world.settle();
    let print = world.record.run.clone().unwrap().fingerprint;
    world.actions.clear();
    world.seen = Seen::Running { fingerprint: print.clone(), is_ready: false, since: world.now, waits_for: None };
    world.settle().is(Phase::Running, "one", "");
    world.seen = Seen::Ended { fingerprint: String::new(), reason: String::new() };
    world.settle().is(Phase::Running, "one", "stop, start one");
    world.seen = Seen::Running { fingerprint: "another".into(), is_ready: true, since: world.now, waits_for: None };
    world.settle().is(Phase::Running, "one", "stop, start one");
    // A record that was lost does not cost the learner the machine.
    world.record = Record { pin: world.record.pin.clone(), ..Record::default() };
    world.settle().is(Phase::Running, "one", "preview artifact-a");
}
