//! Tells somebody else's change of our objects from our own, and notices when somebody keeps at it. Pure.
//!
//! An object's own record of field managers says who changed what and when; only what a sync owns counts, so a
//! learner's step or an operator's status is no drift.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crd::labels;
use crate::domain::object::{Live, ObjectKey, fields_of_others};

/// How often one object may be changed by one manager within [`WINDOW`] before it is left to it.
const PATIENCE: usize = 3;

/// The time over which changes of one object are counted.
const WINDOW: Duration = Duration::from_secs(600);

/// What an event about one of our objects means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing that a sync owns changed, or we changed it.
    Fine,
    /// Somebody changed it: heal it.
    Drifted {
        /// The owner label's value.
        owner: String,
        /// Who, as the field manager is called.
        manager: String,
    },
    /// Somebody keeps changing it: say so and leave it.
    Fought {
        /// The owner label's value.
        owner: String,
        /// Who.
        manager: String,
    },
    /// It is gone; whether we deleted it the owner knows.
    Gone {
        /// The owner label's value.
        owner: String,
    },
}

/// What is known of the objects.
#[derive(Debug, Default)]
pub(super) struct Drift {
    seen: HashMap<ObjectKey, Seen>,
    fights: HashMap<(ObjectKey, String), Vec<Instant>>,
}

#[derive(Debug)]
struct Seen {
    owner: String,
    fingerprint: u64,
    stamps: BTreeMap<String, String>,
}

impl Drift {
    /// Takes an object in as it is now; `is_listed` while the watch tells what exists.
    pub(super) fn present(&mut self, live: &Live, is_first_list: bool, now: Instant) -> Verdict {
        let Some(owner) = live.label(labels::OWNER).map(str::to_owned) else { return Verdict::Fine };
        let seen = Seen { owner: owner.clone(), fingerprint: fingerprint(live), stamps: stamps(&live.manifest) };
        let before = self.seen.insert(live.key.clone(), seen);
        let now_seen = &self.seen[&live.key];
        let manager = match &before {
            // What existed when the controller started is compared by each repository's first sync.
            None if is_first_list => return Verdict::Fine,
            None => newest_foreign(&BTreeMap::new(), &now_seen.stamps),
            Some(before) if before.fingerprint == now_seen.fingerprint => return Verdict::Fine,
            Some(before) => match newest_foreign(&before.stamps, &now_seen.stamps) {
                None if changed_ours(&before.stamps, &now_seen.stamps) => None,
                // Changed twice within the second that the record is precise to.
                None => Some("somebody".to_owned()),
                some => some,
            },
        };
        match manager {
            None => Verdict::Fine,
            Some(manager) if self.is_fought(&live.key, &manager, now) => Verdict::Fought { owner, manager },
            Some(manager) => Verdict::Drifted { owner, manager },
        }
    }

    /// Takes note that an object is gone or lost its label.
    pub(super) fn gone(&mut self, key: &ObjectKey) -> Verdict {
        match self.seen.remove(key) {
            Some(seen) => Verdict::Gone { owner: seen.owner },
            None => Verdict::Fine,
        }
    }

    /// After a complete list of `kind`: what was known and is not among `keys` is gone.
    pub(super) fn missing(&self, kind: crate::domain::object::Kind, keys: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.seen.keys().filter(|key| key.kind == kind && !keys.contains(key)).cloned().collect()
    }

    fn is_fought(&mut self, key: &ObjectKey, manager: &str, now: Instant) -> bool {
        self.fights.retain(|_, times| times.last().is_some_and(|last| now.duration_since(*last) < WINDOW));
        let times = self.fights.entry((key.clone(), manager.to_owned())).or_default();
        times.retain(|time| now.duration_since(*time) < WINDOW);
        times.push(now);
        times.len() >= PATIENCE
    }
}

/// A number over everything that a sync owns of an object.
fn fingerprint(live: &Live) -> u64 {
    let mut hasher = DefaultHasher::new();
    for map in ["/metadata/labels", "/metadata/annotations"] {
        live.manifest.pointer(map).map(ToString::to_string).hash(&mut hasher);
    }
    let theirs = fields_of_others(live.key.kind);
    for (name, value) in live.manifest.get("spec").and_then(Value::as_object).into_iter().flatten() {
        if !theirs.contains(&format!("spec.{name}").as_str()) {
            name.hash(&mut hasher);
            value.to_string().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// When each manager last changed the object itself: by manager and operation, never its status.
fn stamps(manifest: &Value) -> BTreeMap<String, String> {
    let entries = manifest.pointer("/metadata/managedFields").and_then(Value::as_array);
    let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("subresource").is_none())
        .map(|entry| (text(entry, "manager"), text(entry, "time")))
        .fold(BTreeMap::new(), |mut stamps, (manager, time)| {
            let stamp = stamps.entry(manager).or_insert_with(String::new);
            // The times are RFC 3339 in UTC with whole seconds, so texts compare as moments.
            *stamp = std::mem::take(stamp).max(time);
            stamps
        })
}

fn is_ours(manager: &str) -> bool {
    [labels::FIELD_MANAGER, labels::ROSTER_MANAGER].contains(&manager)
}

fn is_newer(manager: &str, before: &BTreeMap<String, String>, time: &String) -> bool {
    before.get(manager).is_none_or(|earlier| earlier < time)
}

fn newest_foreign(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<String> {
    now.iter()
        .filter(|(manager, time)| !is_ours(manager) && is_newer(manager, before, time))
        .max_by_key(|(_, time)| (*time).clone())
        .map(|(manager, _)| manager.clone())
}

fn changed_ours(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> bool {
    now.iter().any(|(manager, time)| is_ours(manager) && is_newer(manager, before, time))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(size: u64, step: Option<&str>, managers: &[(&str, &str)]) -> Live {
        let managed: Vec<Value> = managers
            .iter()
            .map(|(manager, time)| json!({ "manager": manager, "operation": "Update", "time": time }))
            .collect();
        let mut manifest = json!({
            "apiVersion": crate::crd::API_VERSION, "kind": "WorkspaceInstance",
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u",
                "labels": { (labels::OWNER): "owner" }, "managedFields": managed,
            },
            "spec": { "owner": size },
        });
        if let Some(step) = step {
            manifest["spec"]["currentStep"] = json!(step);
        }
        Live::from_manifest(manifest).expect("an instance")
    }

    fn drifted(manager: &str) -> Verdict {
        Verdict::Drifted { owner: "owner".into(), manager: manager.into() }
    }

    const OURS: (&str, &str) = (labels::FIELD_MANAGER, "2026-01-01T00:00:00Z");

    #[test]
    fn our_own_changes_and_fields_of_others_are_no_drift() {
        let mut drift = Drift::default();
        let now = Instant::now();
        assert_eq!(drift.present(&live(1, None, &[OURS]), true, now), Verdict::Fine);
        assert_eq!(
            drift.present(&live(1, Some("two"), &[OURS, ("kubectl", "2026-01-01T00:00:05Z")]), false, now),
            Verdict::Fine
        );
        let later = (labels::FIELD_MANAGER, "2026-01-01T00:00:09Z");
        assert_eq!(
            drift.present(&live(2, Some("two"), &[later, ("kubectl", "2026-01-01T00:00:05Z")]), false, now),
            Verdict::Fine
        );
    }

    #[test]
    fn a_change_by_somebody_else_is_drift_and_the_third_in_ten_minutes_a_fight() {
        let mut drift = Drift::default();
        let start = Instant::now();
        drift.present(&live(0, None, &[OURS]), true, start);
        let edit = |second: u64| ("kubectl-edit".to_owned(), format!("2026-01-01T00:00:{second:02}Z"));
        for second in 1..=2 {
            let (manager, time) = edit(second);
            let changed = live(second, None, &[OURS, (&manager, &time)]);
            assert_eq!(drift.present(&changed, false, start), drifted("kubectl-edit"), "{second}");
        }
        let (manager, time) = edit(3);
        let changed = live(3, None, &[OURS, (&manager, &time)]);
        assert_eq!(
            drift.present(&changed, false, start),
            Verdict::Fought { owner: "owner".into(), manager: "kubectl-edit".into() }
        );
        let (manager, time) = edit(40);
        let changed = live(4, None, &[OURS, (&manager, &time)]);
        assert_eq!(drift.present(&changed, false, start + WINDOW + Duration::from_secs(1)), drifted("kubectl-edit"));
    }

    #[test]
    fn a_second_change_within_one_second_is_noticed() {
        let mut drift = Drift::default();
        let now = Instant::now();
        drift.present(&live(1, None, &[OURS, ("kubectl", "2026-01-01T00:00:05Z")]), true, now);
        let again = live(2, None, &[OURS, ("kubectl", "2026-01-01T00:00:05Z")]);
        assert_eq!(drift.present(&again, false, now), drifted("somebody"));
    }

    #[test]
    fn what_a_later_list_lacks_is_gone() {
        let mut drift = Drift::default();
        let object = live(1, None, &[OURS]);
        drift.present(&object, true, Instant::now());
        let missing = drift.missing(object.key.kind, &HashSet::new());
        assert_eq!(missing, std::slice::from_ref(&object.key));
        assert_eq!(drift.gone(&object.key), Verdict::Gone { owner: "owner".into() });
        assert_eq!(drift.gone(&object.key), Verdict::Fine);
    }
}
