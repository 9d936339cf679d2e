//! The operations on the embedded store, without anything that runs.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::crd::labels;
use crate::domain::management::{Phase, Snapshot};
use crate::domain::object::{Kind, ObjectKey};

fn open() -> (tempfile::TempDir, Workspaces) {
    let state = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(state.path()).unwrap());
    let digest = Digest::of(b"texts");
    std::fs::create_dir_all(state.path().join("artifacts")).unwrap();
    std::fs::write(state.path().join("artifacts").join(format!("{}.db", digest.hex())), b"texts").unwrap();
    let step = |id: &str| json!({"id": id, "title": id.to_uppercase(), "imageTag": format!("first:{id}")});
    let template = |name: &str, digest: &str| {
        json!({
            "apiVersion": crate::crd::API_VERSION, "kind": "WorkspaceTemplate", "metadata": {"name": name},
            "spec": {"steps": [step("one"), step("two")], "artifact": {"digest": digest, "size": 5}},
        })
    };
    store.apply_object(&template("first", &digest.to_string()), labels::OWNER).unwrap();
    let lost = Digest::of(b"lost").to_string();
    store.apply_object(&template("lost", &lost), labels::OWNER).unwrap();
    let workspaces = Workspaces::open(store, state.path()).unwrap();
    (state, workspaces)
}

fn request(owner: &str) -> CreateRequest {
    CreateRequest { template: "first".into(), owner: owner.into(), ..CreateRequest::default() }
}

/// Writes a status, as the operator would.
fn observe(workspaces: &Workspaces, name: &str, status: Value) {
    let written = workspaces.store().unwrap().change_object(&key(name), |object, _| {
        object["status"] = status;
        Ok::<_, Error>(())
    });
    written.unwrap().unwrap();
}

fn object(workspaces: &Workspaces, name: &str) -> Value {
    workspaces.store().unwrap().object(&key(name)).unwrap().unwrap().manifest
}

fn check<T: fmt::Debug>(result: Result<T, Error>, class: Class, code: &str, part: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.class(), error.code()), (class, code), "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[tokio::test]
async fn workshops_are_shown_with_their_instances_and_what_is_wrong() {
    let (_state, workspaces) = open();
    workspaces.create(&request("ada")).await.unwrap();
    let views = workspaces.templates().await.unwrap();
    let shown: Vec<_> = views.iter().map(|view| (view.id.as_str(), view.ready, view.instances)).collect();
    assert_eq!(shown, [("first", true, 1), ("lost", false, 0)]);
    assert!(views[1].message.as_ref().unwrap().contains("is not in the state directory"));
    assert_eq!((views[0].steps[1].id.as_str(), views[0].steps[1].title.as_str()), ("two", "TWO"));
}

#[tokio::test]
async fn a_team_shares_a_workspace_and_nobody_else_is_of_it() {
    let (_state, workspaces) = open();
    let team = CreateRequest { members: vec!["bob".into(), "eve".into()], ..request("ada") };
    check(workspaces.create(&team).await, Class::Invalid, "Invalid", "not shared");
    let template = ObjectKey { kind: Kind::WorkspaceTemplate, namespace: None, name: "first".to_owned() };
    let mut shared = workspaces.store().unwrap().object(&template).unwrap().unwrap().manifest;
    shared["spec"]["defaults"] = json!({"isolation": {"mode": "team"}});
    workspaces.store().unwrap().apply_object(&shared, labels::OWNER).unwrap();
    let many = CreateRequest { count: Some(2), ..team.clone() };
    check(workspaces.create(&many).await, Class::Invalid, "Invalid", "same members");
    let view = workspaces.create(&team).await.unwrap().remove(0);
    assert_eq!(view.members, ["bob", "eve"]);
    for (named, person) in [(None, "ada"), (Some("ada"), "ada"), (Some("eve"), "eve")] {
        assert_eq!(view.person(named).unwrap(), person);
    }
    check(view.person(Some("mallory")).map(str::to_owned), Class::Refused, "NoMember", "\"mallory\" is not one of");
    let alone = InstanceView { members: Vec::new(), ..view };
    check(alone.person(Some("bob")).map(str::to_owned), Class::Refused, "NoMember", "\"bob\"");
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_whole_and_says_why() {
    let (_state, workspaces) = open();
    let other = |template: &str| CreateRequest { template: template.into(), ..request("ada") };
    check(workspaces.create(&other("none")).await, Class::NotFound, "NoSuchWorkshop", "no workshop \"none\"");
    check(workspaces.create(&other("lost")).await, Class::Refused, "TemplateUnusable", "no workspace can be made");
    let step = CreateRequest { step: Some("nine".into()), ..request("ada") };
    check(workspaces.create(&step).await, Class::NotFound, "NoSuchStep", "no step \"nine\"");
    let class = CreateRequest { count: Some(3), prefix: Some("s".into()), ..request("") };
    assert_eq!(workspaces.create(&class).await.unwrap().len(), 3);
    check(workspaces.create(&class).await, Class::Refused, "NameTaken", "\"s-1\", \"s-2\", \"s-3\"");
    let more = CreateRequest { count: Some(4), ..class };
    check(workspaces.create(&more).await, Class::Refused, "NameTaken", "already");
    assert_eq!(workspaces.list().await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_operation_writes_the_wish_and_nothing_for_what_is_not_there() {
    let (_state, workspaces) = open();
    workspaces.create(&request("ada")).await.unwrap();
    let name = "first-ada";
    let status = json!({"phase": "Running", "currentStep": "one", "restarts": {
        "count": 9, "first": "2026-01-01T00:00:00Z", "fingerprint": "f", "reason": "r",
    }});
    observe(&workspaces, name, status);
    check(workspaces.goto(name, "nine").await, Class::NotFound, "NoSuchStep", "no step \"nine\"");
    check(workspaces.goto("none", "one").await, Class::NotFound, "NoSuchInstance", "no workspace \"none\"");
    assert_eq!(workspaces.get("none").await.unwrap(), None);
    let moved = workspaces.goto(name, "two").await.unwrap();
    assert_eq!((moved.step.as_str(), moved.phase), ("two", Phase::Transitioning));
    assert!(object(&workspaces, name).pointer("/status/restarts").is_some(), "the operator's to forget with the move");
    // Whoever goes where it is and failed wants it tried again.
    workspaces.goto(name, "two").await.unwrap();
    assert_eq!(object(&workspaces, name).pointer("/status/restarts"), None);
    let first =
        workspaces.reset(name).await.and(Ok(object(&workspaces, name)["spec"]["resetRequest"].clone())).unwrap();
    workspaces.reset(name).await.unwrap();
    assert_ne!(object(&workspaces, name)["spec"]["resetRequest"], first);
    assert!(workspaces.suspend(name).await.unwrap().suspended);
    assert!(!workspaces.resume(name).await.unwrap().suspended);
    assert!(workspaces.hold(name, true).await.unwrap().hold);
    workspaces.update(name).await.unwrap();
    assert!(object(&workspaces, name)["metadata"]["annotations"][labels::UPDATE].is_string());
}

#[tokio::test]
async fn one_that_fell_asleep_is_woken_by_use_and_one_that_was_put_to_sleep_is_not() {
    let (_state, workspaces) = open();
    let made = workspaces.create(&request("ada")).await.unwrap().remove(0);
    let since = Timestamp::now();
    let asleep = json!({"asleep": {"since": record::moment_text(since), "cause": "Idle"}});
    let used = || record::record_of(&read(&workspaces).status.unwrap()).last_activity_at;
    observe(&workspaces, &made.name, asleep.clone());
    assert_eq!(workspaces.get(&made.name).await.unwrap().unwrap().asleep.as_deref(), Some("Idle"));
    workspaces.touch(&made.uid, since - Duration::from_secs(9)).await.unwrap();
    assert!(used() < Some(since), "a late report is no use");
    workspaces.wake(&made.name).await.unwrap();
    assert!(used() > record::record_of(&read(&workspaces).status.unwrap()).asleep.map(|asleep| asleep.since));
    observe(&workspaces, &made.name, json!({}));
    workspaces.suspend(&made.name).await.unwrap();
    workspaces.wake(&made.name).await.unwrap();
    assert_eq!((used(), workspaces.get(&made.name).await.unwrap().unwrap().suspended), (None, true));
    // A clock that runs ahead keeps nobody awake for ever.
    workspaces.touch(&made.uid, Timestamp::now() + Duration::from_secs(9_000)).await.unwrap();
    assert!(used().unwrap() <= Timestamp::now());
}

fn read(workspaces: &Workspaces) -> WorkspaceInstance {
    let live = workspaces.store().unwrap().object(&key("first-ada")).unwrap().unwrap();
    record::read_instance(&live).unwrap()
}

#[tokio::test]
async fn time_is_added_to_the_end_once_it_runs() {
    let (_state, workspaces) = open();
    let name = workspaces.create(&request("ada")).await.unwrap().remove(0).name;
    check(workspaces.extend(&name, None).await, Class::Refused, "ExtendRefused", "has not started");
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let end = now + Duration::from_secs(600);
    observe(&workspaces, &name, json!({"startedAt": now.to_string(), "expiresAt": end.to_string()}));
    let longer = end + Duration::from_secs(90);
    assert_eq!(workspaces.extend(&name, Some(Duration::from_secs(90))).await.unwrap(), longer.to_string());
    let view = workspaces.get(&name).await.unwrap().unwrap();
    assert_eq!(view.expires_at, Some(longer.to_string()));
    // Twice before anybody looked adds up.
    let longest = longer + Duration::from_secs(90);
    assert_eq!(workspaces.extend(&name, Some(Duration::from_secs(90))).await.unwrap(), longest.to_string());
}

#[tokio::test]
async fn one_that_never_ran_is_gone_at_once_and_another_one_once_its_container_is() {
    let (_state, workspaces) = open();
    let name = workspaces.create(&request("ada")).await.unwrap().remove(0).name;
    workspaces.delete(&name).await.unwrap();
    check(workspaces.delete(&name).await, Class::NotFound, "NoSuchInstance", "first-ada");
    let made = workspaces.create(&request("ada")).await.unwrap().remove(0);
    let pinned = json!({"unitKey": "u", "artifactDigest": "d", "steps": [{"id": "one", "imageTag": "first:one"}]});
    observe(&workspaces, &name, json!({"phase": "Running", "currentStep": "one", "pinned": pinned}));
    workspaces.delete(&name).await.unwrap();
    assert_eq!(workspaces.get(&name).await.unwrap().unwrap().phase, Phase::Terminating);
    check(workspaces.goto(&name, "one").await, Class::Refused, "Terminating", "is being deleted");
    let snapshot = Snapshot { epoch: 0, sequence: 1, steps: Vec::new(), custom_state: BTreeMap::new() };
    // Its last words are kept even so.
    workspaces.write_progress(&made.uid, &snapshot).await.unwrap();
}
