//! A world in which decisions are carried out at once, for the tables and the arbitrary happenings.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

mod happenings;
mod life;
mod values;

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
    /// When it was last told that the end is near.
    told_of_end: Option<Timestamp>,
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
            told_of_end: None,
            actions: Vec::new(),
            broken: Vec::new(),
        }
    }

    fn decide(&self) -> Decision {
        decide(Inputs {
            wish: &self.wish,
            overrides: self.overrides.as_ref(),
            permit: crate::domain::workspace::Permit::default(),
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
        self.hear(&decision.events);
        for action in &decision.actions {
            self.carry_out(action);
        }
        decision
    }

    /// Whatever happens, an end is told of, and comes five minutes later at the earliest.
    fn hear(&mut self, events: &[Event]) {
        for event in events {
            match event.reason {
                Reason::Expiring => self.told_of_end = Some(self.now),
                Reason::Expired => {
                    let told = self.told_of_end.expect("no end comes that was not told of");
                    let is_short = self.overrides.as_ref().is_some_and(|all| all["lifecycle"]["ttl"] == "1m");
                    let notice = if is_short { 60 } else { 300 };
                    assert!(self.now.as_second() - told.as_second() >= notice, "told at {told}, over at {}", self.now);
                }
                _ => {}
            }
            self.events.push(event.reason);
        }
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
                    Seen::Running { fingerprint, is_ready: false, since: self.now, waits_for: None }
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
