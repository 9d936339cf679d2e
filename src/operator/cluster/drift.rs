//! What others changed around a calm workspace: compared rarely, put back where it differs.
//!
//! The pod is left alone: replacing it takes a learner's work, and its own fields say what it is.

use serde_json::Value;

use super::build::{Object, Secrets, Subject, build_lab, build_namespace, build_surroundings, has_lab};
use super::look::{Look, Stop};
use crate::adapters::cluster::Part;
use crate::domain::lifecycle::{Record, Start};
use crate::domain::quantity::Quantity;
use crate::domain::workspace::effective;

impl Look {
    /// Puts back what is missing or different around what runs.
    pub(super) async fn heal(&self, subject: &Subject, record: &Record, overrides: Option<&Value>) -> Result<(), Stop> {
        let Some(start) = running(record, overrides) else { return Ok(()) };
        let secrets = Secrets { token: self.token(), pull: None };
        let [namespace, _] = build_namespace(subject, &self.shared.around);
        let mut wanted = vec![namespace];
        wanted.extend(build_surroundings(subject, &self.shared.around, &start, &secrets));
        self.put_back(&subject.room(), wanted).await?;
        if has_lab(&start) {
            // Its role bindings are made, not compared: nobody but who made them may change them.
            let bounds = build_lab(subject, &self.shared.around, &start);
            let bounds = bounds.into_iter().filter(|object| object.part != Part::RoleBinding).collect();
            self.put_back(&subject.lab(), bounds).await?;
        }
        Ok(())
    }

    /// Puts back what is missing or different of these; the namespace is the first of them.
    async fn put_back(&self, room: &str, wanted: Vec<Object>) -> Result<(), Stop> {
        let cluster = &self.shared.settings.cluster;
        for object in wanted {
            let name = object.manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let live = cluster.read_part(object.part, room, &name).await?;
            if object.part == Part::Namespace && live.as_ref().is_none_or(|live| !is_labelled(live, &self.uid)) {
                // Not ours to touch; the next look sees what became of it.
                return Ok(());
            }
            let is_there = live.as_ref().is_some_and(|live| covers(live, &comparable(object.part, &object.manifest)));
            if !is_there {
                tracing::info!(
                    kind = object.part.kind(),
                    namespace = room,
                    name,
                    "an object was changed and is put back"
                );
                cluster.apply_part(object.part, room, &object.manifest).await?;
            }
        }
        Ok(())
    }
}

/// What runs, as it was started.
fn running(record: &Record, overrides: Option<&Value>) -> Option<Start> {
    let (pin, run) = (record.pin.as_ref()?, record.run.as_ref()?);
    let step = pin.step(&run.step)?;
    Some(Start {
        step: step.id.clone(),
        image: step.image(),
        fingerprint: run.fingerprint.clone(),
        artifact: pin.artifact.clone(),
        settings: effective(&pin.defaults, overrides).ok()?,
    })
}

fn is_labelled(live: &Value, uid: &str) -> bool {
    let labels = live.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get(crate::crd::labels::INSTANCE_UID)).and_then(Value::as_str) == Some(uid)
}

/// What of an object can be compared: a token is another one each time it is signed.
fn comparable(part: Part, manifest: &Value) -> Value {
    let mut manifest = manifest.clone();
    if part == Part::Secret
        && let Some(object) = manifest.as_object_mut()
    {
        object.remove("data");
    }
    manifest
}

/// Whether everything that `wanted` says is so in `live`, which may say more.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| match live.get(name) {
            Some(live) => covers(live, wanted),
            // What is empty is left out of what the server tells.
            None => is_empty(wanted),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        (Value::String(live), Value::String(wanted)) => live == wanted || is_equal_quantity(live, wanted),
        (live, wanted) => live == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(_) | Value::Bool(true) | Value::String(_) => false,
    }
}

/// The server writes quantities in its own way.
fn is_equal_quantity(left: &str, right: &str) -> bool {
    let amount = |text: &str| text.parse::<Quantity>().map(|quantity| quantity.thousandths());
    matches!((amount(left), amount(right)), (Ok(left), Ok(right)) if left == right)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(live: Value, wanted: Value, expected: bool) {
        assert_eq!(covers(&live, &wanted), expected, "{live} covers {wanted}");
    }

    #[test]
    fn what_the_server_adds_or_writes_its_own_way_is_no_difference() {
        let wanted = json!({ "spec": { "hard": { "cpu": "1000m", "pods": "2" }, "rules": [{ "a": 1 }], "none": {} } });
        let live =
            json!({ "spec": { "hard": { "cpu": "1", "pods": "2" }, "rules": [{ "a": 1, "b": 2 }] }, "status": 1 });
        check(live, wanted.clone(), true);
        check(json!({ "spec": { "hard": { "cpu": "2", "pods": "2" }, "rules": [{ "a": 1 }] } }), wanted.clone(), false);
        check(json!({ "spec": { "hard": { "cpu": "1", "pods": "2" }, "rules": [] } }), wanted.clone(), false);
        // More rules than wanted let more through.
        check(json!({ "spec": { "hard": { "cpu": "1", "pods": "2" }, "rules": [{ "a": 1 }, {}] } }), wanted, false);
        check(json!({}), json!({ "type": "Opaque" }), false);
    }

    #[test]
    fn a_token_that_was_signed_anew_is_no_difference() {
        let secret = |data: &str| json!({ "type": "Opaque", "data": { "token": data } });
        assert!(covers(&secret("one"), &comparable(Part::Secret, &secret("two"))));
    }
}
