use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A world around one instance: time passes, somebody wishes, containers do as they are told.
#[derive(Debug, Clone)]
struct World {
    wish: Wish,
    overrides: Option<Value>,
    template: Result<Revision, String>,
    record: Record,
    seen: Seen,
    now: Timestamp,
    live_text: bool,
    is_forgotten: bool,
    events: Vec<Reason>,
    actions: Vec<String>,
    /// Steps whose containers end at once.
    broken: Vec<&'static str>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn revision(unit: &str, steps: &[(&str, &str)]) -> Revision {
    let step = |(id, digest): &(&str, &str)| Step {
        id: (*id).into(),
        title: (*id).to_uppercase(),
        image_tag: format!("workshop/first:{id}"),
        image_digest: Some(format!("sha256:{digest}")),
    };
    Revision {
        unit_key: unit.into(),
        artifact: format!("artifact-{unit}"),
        artifact_size: 1,
        steps: steps.iter().map(step).collect(),
        defaults: json!({"lifecycle": {"ttl": "2h", "idleTimeout": "30m"}}),
    }
}

const STEPS: [(&str, &str); 3] = [("one", "1"), ("two", "2"), ("three", "3")];

impl World {
    fn new() -> Self {
        Self {
            wish: Wish::default(),
            overrides: None,
            template: Ok(revision("a", &STEPS)),
            record: Record::default(),
            seen: Seen::Nothing,
            now: at(1_000),
            live_text: true,
            is_forgotten: false,
            events: Vec::new(),
            actions: Vec::new(),
            broken: Vec::new(),
        }
    }

    fn decide(&self) -> Decision {
        decide(Inputs {
            wish: &self.wish,
            overrides: self.overrides.as_ref(),
            template: self.template.as_ref().map_err(String::as_str),
            record: &self.record,
            seen: &self.seen,
            live_text: self.live_text,
            now: self.now,
        })
    }

    /// One look, carried out.
    fn look(&mut self) -> Decision {
        let decision = self.decide();
        self.record = Record { reason: None, ..decision.record.clone() };
        self.events.extend(decision.events.iter().map(|event| event.reason));
        for action in &decision.actions {
            self.carry_out(action);
        }
        decision
    }

    fn carry_out(&mut self, action: &Action) {
        self.actions.push(match action {
            Action::Stop => {
                self.seen = Seen::Nothing;
                "stop".into()
            }
            Action::Start(start) => {
                assert_eq!(self.seen, Seen::Nothing, "nothing is started beside what runs");
                let fingerprint = start.fingerprint.clone();
                self.seen = if self.broken.contains(&start.step.as_str()) {
                    Seen::Ended { fingerprint, reason: "no such image".into() }
                } else {
                    Seen::Running { fingerprint, is_ready: false, since: self.now }
                };
                format!("start {}", start.step)
            }
            Action::Preview { artifact } => {
                let run = self.record.run.as_mut().expect("only what runs is handed texts");
                run.artifact.clone_from(artifact);
                format!("preview {artifact}")
            }
            Action::GoTo { step } => {
                self.wish.step = Some(step.clone());
                format!("goto {step}")
            }
            Action::Delete => {
                self.wish.is_deleted = true;
                "delete".into()
            }
            Action::Forget => {
                assert_eq!(self.seen, Seen::Nothing, "nothing runs of what is forgotten");
                self.is_forgotten = true;
                "forget".into()
            }
        });
    }

    /// Looks until nothing is to do; what starts becomes ready.
    fn settle(&mut self) -> &mut Self {
        for _ in 0..50 {
            if self.is_forgotten {
                return self;
            }
            if let Seen::Running { is_ready, .. } = &mut self.seen {
                *is_ready = true;
            }
            if self.look().actions.is_empty() && !matches!(self.seen, Seen::Running { is_ready: false, .. }) {
                return self;
            }
        }
        panic!("it never comes to rest: {self:#?}");
    }

    fn after(&mut self, span: Duration) -> &mut Self {
        self.now = self.now.checked_add(span).unwrap();
        self
    }

    fn minutes(&mut self, minutes: u64) -> &mut Self {
        self.after(Duration::from_secs(60 * minutes))
    }

    fn used(&mut self) -> &mut Self {
        self.record.last_activity_at = Some(self.now);
        self
    }

    fn end(&mut self, why: &str) -> &mut Self {
        if let Seen::Running { fingerprint, .. } = &self.seen {
            self.seen = Seen::Ended { fingerprint: fingerprint.clone(), reason: why.into() };
        }
        self
    }

    #[track_caller]
    fn is(&mut self, phase: Phase, step: &str, actions: &str) -> &mut Self {
        assert_eq!(
            (self.record.phase, self.record.step.as_deref().unwrap_or(""), self.actions.join(", ").as_str()),
            (phase, step, actions),
            "{:?}",
            self.record.message,
        );
        self.actions.clear();
        self
    }
}

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
    assert!(!world.record.is_expiring);
    world.minutes(1).settle();
    assert!(world.record.is_expiring && world.events == [Reason::Expiring]);
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
    assert_eq!((world.record.phase, world.record.is_expiring), (Phase::Running, false));
    world.wish.hold = false;
    world.settle();
    assert!(world.is_forgotten);
}

#[test]
fn a_persistent_one_sleeps_at_its_end_and_has_its_time_anew_when_woken() {
    let mut world = World::new();
    world.overrides = Some(json!({"lifecycle": {"mode": "persistent", "idleSuspend": false}}));
    world.settle().is(Phase::Running, "one", "start one");
    world.minutes(121).settle().is(Phase::Suspended, "one", "stop");
    assert_eq!(world.events, [Reason::Expired]);
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
    world.seen = Seen::Running { fingerprint: print.clone(), is_ready: false, since: world.now };
    world.settle().is(Phase::Running, "one", "");
    world.seen = Seen::Ended { fingerprint: String::new(), reason: String::new() };
    world.settle().is(Phase::Running, "one", "stop, start one");
    world.seen = Seen::Running { fingerprint: "another".into(), is_ready: true, since: world.now };
    world.settle().is(Phase::Running, "one", "stop, start one");
    // A record that was lost does not cost the learner the machine.
    world.record = Record { pin: world.record.pin.clone(), ..Record::default() };
    world.settle().is(Phase::Running, "one", "preview artifact-a");
}

#[test]
fn what_decides_only_about_time_does_not_make_another_container() {
    let step = &revision("a", &STEPS).steps[0];
    let base = Workspace::default();
    let of = |settings: &Workspace| fingerprint(step, settings, None, None);
    let mut longer = base.clone();
    longer.lifecycle.ttl = "9h".parse().unwrap();
    longer.lifecycle.idle_suspend = false;
    assert_eq!(of(&base), of(&longer));
    let mut larger = base.clone();
    larger.resources.memory = "1Gi".parse().unwrap();
    let mut lasting = base.clone();
    lasting.lifecycle.persist = Some("1Gi".parse().unwrap());
    let prints = [
        of(&base),
        of(&larger),
        of(&lasting),
        fingerprint(step, &base, Some("r"), None),
        fingerprint(step, &base, None, Some("a")),
        fingerprint(&revision("a", &STEPS).steps[1], &base, None, None),
    ];
    for (index, print) in prints.iter().enumerate() {
        assert!(!prints[..index].contains(print), "{index}");
    }
}

#[test]
fn extending_has_a_limit_for_learners_only() {
    let hour = Duration::from_secs(3_600);
    let learner = |by| Extension { by, is_learner: true };
    let owner = |by| Extension { by, is_learner: false };
    let rows = [
        (owner(None), 100, Some(7_200), Some(7_200 + 3_600)),
        (owner(Some(hour * 50)), 100, Some(7_200), Some(7_200 + 180_000)),
        (owner(Some(hour)), 9_000, Some(7_200), Some(9_000 + 3_600)),
        (owner(None), 0, None, None),
        (learner(None), 100, Some(7_200), Some(7_200 + 3_600)),
        (learner(Some(hour * 50)), 100, Some(7_200), Some(7_200 + 3_600)),
        (learner(Some(hour / 4)), 100, Some(7_200), Some(7_200 + 900)),
        (learner(None), 100, Some(20_000), Some(21_600)),
        (learner(None), 100, Some(21_570), None),
        (learner(None), 100, Some(21_600), None),
    ];
    for (asked, now, end, expected) in rows {
        let found = extension(asked, hour * 2, Some(at(0)), end.map(at), at(now));
        assert_eq!(found, expected.map(at), "{asked:?} {now} {end:?}");
    }
    assert_eq!(extension(owner(None), hour, None, Some(at(9)), at(0)), None);
}

/// Something that happens to an instance.
#[derive(Debug, Clone)]
enum Happening {
    Wait(u64),
    Use,
    Step(&'static str),
    Reset(u8),
    Update(u8),
    Suspend(bool),
    Hold(bool),
    ExpireIn(i64),
    Template(u8),
    Die,
    Vanish,
    Break(bool),
    Ready,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..20_000_u64).prop_map(Happening::Wait),
        Just(Happening::Use),
        prop_oneof![Just("one"), Just("two"), Just("three"), Just("nowhere")].prop_map(Happening::Step),
        any::<u8>().prop_map(Happening::Reset),
        any::<u8>().prop_map(Happening::Update),
        any::<bool>().prop_map(Happening::Suspend),
        any::<bool>().prop_map(Happening::Hold),
        (-500..20_000_i64).prop_map(Happening::ExpireIn),
        (0..4_u8).prop_map(Happening::Template),
        Just(Happening::Die),
        Just(Happening::Vanish),
        any::<bool>().prop_map(Happening::Break),
        Just(Happening::Ready),
    ]
}

fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::Wait(seconds) => drop(world.after(Duration::from_secs(seconds))),
        Happening::Use => drop(world.used()),
        Happening::Step(step) => world.wish.step = Some(step.into()),
        Happening::Reset(value) => world.wish.reset = Some(value.to_string()),
        Happening::Update(value) => world.wish.update = Some(value.to_string()),
        Happening::Suspend(suspended) => world.wish.suspended = suspended,
        Happening::Hold(hold) => world.wish.hold = hold,
        Happening::ExpireIn(seconds) => world.wish.expires_at = Some(at(world.now.as_second() + seconds)),
        Happening::Template(0) => world.template = Err("gone".into()),
        Happening::Template(1) => world.template = Ok(revision("b", &STEPS)),
        Happening::Template(2) => world.template = Ok(revision("c", &[("one", "9"), ("three", "3")])),
        Happening::Template(_) => world.template = Ok(revision("a", &STEPS)),
        Happening::Die => drop(world.end("it ended")),
        Happening::Vanish => world.seen = Seen::Nothing,
        Happening::Break(broken) => world.broken = if broken { vec!["two"] } else { vec![] },
        Happening::Ready => {
            if let Seen::Running { is_ready, .. } = &mut world.seen {
                *is_ready = true;
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_happens_loses_an_instance_or_leaves_it_restless(
        happenings in proptest::collection::vec(happening(), 0..40),
        live_text: bool,
        persistent: bool,
    ) {
        let mut world = World { live_text, ..World::new() };
        if persistent {
            world.overrides = Some(json!({"lifecycle": {"mode": "persistent"}}));
        }
        for happening in happenings {
            if world.is_forgotten {
                // Only its end, which was told, takes an instance away; never a persistent one.
                prop_assert!(!persistent && world.events.contains(&Reason::Expired), "{:?}", world.events);
                return Ok(());
            }
            happen(&mut world, happening);
            world.look();
        }
        // Left alone it comes to rest, and deciding again changes nothing.
        for _ in 0..200 {
            if world.is_forgotten {
                return Ok(());
            }
            happen(&mut world, Happening::Ready);
            if world.look().actions.is_empty() && !matches!(world.seen, Seen::Running { is_ready: false, .. }) {
                let again = world.decide();
                prop_assert_eq!(&again.actions, &Vec::new());
                prop_assert_eq!(&again.events, &Vec::new());
                prop_assert_eq!(&Record { reason: None, ..again.record }, &world.record);
                if !matches!(world.record.phase, Phase::Provisioning | Phase::Transitioning) {
                    break;
                }
            }
            world.after(Duration::from_secs(1));
        }
        let runs = matches!(world.seen, Seen::Running { is_ready: true, .. });
        match world.record.phase {
            Phase::Running => prop_assert!(runs),
            Phase::Suspended | Phase::Failed | Phase::Pending => prop_assert!(!runs),
            other => prop_assert!(false, "it rests in {other:?}: {world:#?}"),
        }
    }
}
