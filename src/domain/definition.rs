//! The rows that a workshop puts into its artifact, and their content digest.
//!
//! How rows become YAML files is `export`'s matter, how they become SQLite an adapter's.

use std::collections::{BTreeMap, BTreeSet};

use super::digest::{Digest, FramedHasher};
use super::names::{StepId, WorkshopId};

/// The version of a workshop that names none.
pub const DEFAULT_VERSION: &str = "v1";
/// The creation time of a workshop that names none; never the clock, so that equal trees give equal bytes.
pub const DEFAULT_CREATED_AT: &str = "1970-01-01T00:00:00Z";
/// What the keys of metadata that compile adds begin with; they are no part of the content digest.
pub const IMAGE_METADATA: &str = "image.";
/// The metadata key of the manifest digest that compile produced.
pub const IMAGE_DIGEST: &str = "image.digest";

/// A workshop as rows: table `workshop`, and one [`StepRow`] for each row of `steps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// `workshop.id`.
    pub id: WorkshopId,
    /// `workshop.name`: the display name.
    pub name: String,
    /// `workshop.version`.
    pub version: String,
    /// `workshop.created_at`, as written.
    pub created_at: String,
    /// The steps in their order; `position` counts from 1.
    pub steps: Vec<StepRow>,
}

/// One step: its row of `steps`, its rows of `step_metadata` and its row of `navigation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// `steps.id`.
    pub id: StepId,
    /// `steps.title`.
    pub title: String,
    /// `steps.markdown`; absence differs from an empty text.
    pub markdown: Option<String>,
    /// `steps.image_tag`: the full human reference.
    pub image_tag: String,
    /// `steps.goss_spec`; absent: no validation.
    pub goss_spec: Option<String>,
    /// The rows of `step_metadata`.
    pub metadata: BTreeMap<String, String>,
    /// The row of `navigation`.
    pub navigation: Navigation,
}

/// Where a learner goes from a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Navigation {
    /// `navigation.next_step_id`.
    pub next: Option<StepId>,
    /// `navigation.prev_step_id`.
    pub prev: Option<StepId>,
    /// `navigation.unlock_condition`; absent: always open.
    pub unlock_condition: Option<String>,
}

impl Navigation {
    /// The navigation of step `index` (from 0) where nothing else is said: to its neighbours, always open.
    #[must_use]
    pub fn linear(ids: &[StepId], index: usize) -> Self {
        Self {
            next: ids.get(index + 1).cloned(),
            prev: index.checked_sub(1).and_then(|before| ids.get(before)).cloned(),
            unlock_condition: None,
        }
    }
}

/// Why rows cannot be an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDefinition {
    /// A workshop without steps.
    #[error("workshop \"{0}\" has no steps")]
    NoSteps(WorkshopId),
    /// Two steps with one id.
    #[error("step \"{0}\" is there twice")]
    DuplicateStep(StepId),
    /// Navigation to a step that is not there.
    #[error("step \"{step}\" leads to \"{target}\", which is no step of this workshop")]
    UnknownStep {
        /// The step whose navigation it is.
        step: StepId,
        /// The missing step.
        target: StepId,
    },
    /// SQLite's text functions end at a NUL, so none may be in a text.
    #[error("{field} has a NUL character at byte {offset}")]
    Nul {
        /// The column, with the step it belongs to.
        field: String,
        /// The offset in bytes, from 0.
        offset: usize,
    },
}

/// The offset in bytes of the first NUL of `text`.
#[must_use]
pub fn nul_offset(text: &str) -> Option<usize> {
    text.bytes().position(|byte| byte == 0)
}

impl Definition {
    /// The step ids in their order.
    #[must_use]
    pub fn step_ids(&self) -> Vec<StepId> {
        self.steps.iter().map(|step| step.id.clone()).collect()
    }

    /// The step called `id`.
    #[must_use]
    pub fn step(&self, id: &str) -> Option<&StepRow> {
        self.steps.iter().find(|step| step.id.as_str() == id)
    }

    /// The manifest digest of each step's image, where compile or the export recorded one.
    #[must_use]
    pub fn image_digests(&self) -> BTreeMap<String, Digest> {
        let digest = |step: &StepRow| step.metadata.get(IMAGE_DIGEST)?.parse().ok();
        self.steps.iter().filter_map(|step| Some((step.id.to_string(), digest(step)?))).collect()
    }

    /// The identity of the content: a digest over all rows in canonical order, without the `image.*` metadata.
    #[must_use]
    pub fn content_digest(&self) -> Digest {
        let mut hasher = FramedHasher::new("workshop.content");
        hasher.number(1).part(self.id.as_str()).part(&self.name).part(&self.version).part(&self.created_at);
        hasher.number(self.steps.len() as u64);
        for step in &self.steps {
            hasher.part(step.id.as_str()).part(&step.title).optional(step.markdown.as_deref());
            hasher.part(&step.image_tag).optional(step.goss_spec.as_deref());
            let content = || step.metadata.iter().filter(|(key, _)| !key.starts_with(IMAGE_METADATA));
            hasher.number(content().count() as u64);
            for (key, value) in content() {
                hasher.part(key).part(value);
            }
            let navigation = &step.navigation;
            hasher.optional(navigation.next.as_ref().map(StepId::as_str));
            hasher.optional(navigation.prev.as_ref().map(StepId::as_str));
            hasher.optional(navigation.unlock_condition.as_deref());
        }
        hasher.finish()
    }

    /// Holds the rows against the rules of the schema that types do not hold.
    pub fn check(&self) -> Result<(), InvalidDefinition> {
        if self.steps.is_empty() {
            return Err(InvalidDefinition::NoSteps(self.id.clone()));
        }
        let mut ids = BTreeSet::new();
        if let Some(step) = self.steps.iter().find(|step| !ids.insert(step.id.as_str())) {
            return Err(InvalidDefinition::DuplicateStep(step.id.clone()));
        }
        for (field, text) in self.texts() {
            if let Some(offset) = nul_offset(text) {
                return Err(InvalidDefinition::Nul { field: field.to_string(), offset });
            }
        }
        for step in &self.steps {
            for target in [&step.navigation.next, &step.navigation.prev].into_iter().flatten() {
                if !ids.contains(target.as_str()) {
                    return Err(InvalidDefinition::UnknownStep { step: step.id.clone(), target: target.clone() });
                }
            }
        }
        Ok(())
    }

    /// All free texts, each with its column.
    fn texts(&self) -> impl Iterator<Item = (TextField<'_>, &str)> {
        let workshop = [("name", &self.name), ("version", &self.version), ("created_at", &self.created_at)];
        let workshop = workshop.into_iter().map(|(column, text)| (TextField { step: None, column }, text.as_str()));
        let steps = self.steps.iter().flat_map(|step| {
            let columns = [
                ("title", Some(step.title.as_str())),
                ("markdown", step.markdown.as_deref()),
                ("image_tag", Some(step.image_tag.as_str())),
                ("goss_spec", step.goss_spec.as_deref()),
                ("unlock_condition", step.navigation.unlock_condition.as_deref()),
            ];
            let metadata = step.metadata.iter().flat_map(|(key, value)| [("metadata key", key), ("metadata", value)]);
            columns
                .into_iter()
                .filter_map(|(column, text)| Some((column, text?)))
                .chain(metadata.map(|(column, text)| (column, text.as_str())))
                .map(|(column, text)| (TextField { step: Some(&step.id), column }, text))
        });
        workshop.chain(steps)
    }
}

/// Names a text for a message.
struct TextField<'a> {
    step: Option<&'a StepId>,
    column: &'static str,
}

impl std::fmt::Display for TextField<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.step {
            None => write!(f, "{} of the workshop", self.column),
            Some(step) => write!(f, "{} of step \"{step}\"", self.column),
        }
    }
}

/// True for what SQLite and RFC 3339 both take as a date with a time, e.g. `2026-01-31T12:00:00Z` or
/// `2026-01-31 12:00:00`.
#[must_use]
pub fn is_datetime(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', ' ']) else { return false };
    let number = |text: &str, digits: usize| {
        (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u32>().ok())?
    };
    let in_range = |text: &str, range: std::ops::RangeInclusive<u32>| number(text, 2).filter(|n| range.contains(n));
    let date: Vec<&str> = date.split('-').collect();
    let [year, month, day] = date[..] else { return false };
    let (Some(year), Some(month)) = (number(year, 4), in_range(month, 1..=12)) else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if in_range(day, 1..=days).is_none() {
        return false;
    }
    let (time, zone) = time.find(['Z', '+', '-']).map_or((time, ""), |at| time.split_at(at));
    let zone_is_valid = match zone.strip_prefix(['+', '-']) {
        None => zone.is_empty() || zone == "Z",
        Some(zone) => zone
            .split_once(':')
            .is_some_and(|(hours, minutes)| in_range(hours, 0..=23).is_some() && in_range(minutes, 0..=59).is_some()),
    };
    let (time, fraction) = time.split_once('.').map_or((time, None), |(time, fraction)| (time, Some(fraction)));
    let fraction_is_valid = fraction.is_none_or(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let time: Vec<&str> = time.split(':').collect();
    let [hours, minutes, seconds] = time[..] else { return false };
    let time_is_valid =
        in_range(hours, 0..=23).is_some() && in_range(minutes, 0..=59).is_some() && in_range(seconds, 0..=59).is_some();
    zone_is_valid && fraction_is_valid && time_is_valid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        let ids = [StepId::parse("one").unwrap(), StepId::parse("two").unwrap()];
        let step = |index: usize| StepRow {
            id: ids[index].clone(),
            title: "A step".into(),
            markdown: Some("text\r\n".into()),
            image_tag: format!("example.org/w:{}", ids[index]),
            goss_spec: None,
            metadata: BTreeMap::new(),
            navigation: Navigation::linear(&ids, index),
        };
        Definition {
            id: WorkshopId::parse("w").unwrap(),
            name: "W".into(),
            version: DEFAULT_VERSION.into(),
            created_at: DEFAULT_CREATED_AT.into(),
            steps: vec![step(0), step(1)],
        }
    }

    #[test]
    fn linear_navigation_ends_at_both_ends() {
        let steps = definition().steps;
        assert_eq!(steps[0].navigation.prev, None);
        assert_eq!(steps[0].navigation.next.as_ref(), Some(&steps[1].id));
        assert_eq!(steps[1].navigation.prev.as_ref(), Some(&steps[0].id));
        assert_eq!(steps[1].navigation.next, None);
    }

    #[test]
    fn every_row_but_image_metadata_is_in_the_content_digest() {
        let before = definition().content_digest();
        let differs = |change: fn(&mut Definition)| {
            let mut changed = definition();
            change(&mut changed);
            changed.content_digest() != before
        };
        assert!(differs(|it| it.name.push('x')));
        assert!(differs(|it| it.version.push('x')));
        assert!(differs(|it| it.created_at.push('x')));
        assert!(differs(|it| it.steps.swap(0, 1)));
        assert!(differs(|it| it.steps[0].title.push('x')));
        assert!(differs(|it| it.steps[0].markdown = None));
        assert!(differs(|it| it.steps[0].goss_spec = Some(String::new())));
        assert!(differs(|it| it.steps[0].image_tag.push('x')));
        assert!(differs(|it| it.steps[0].navigation.next = None));
        assert!(differs(|it| it.steps[0].navigation.unlock_condition = Some(String::new())));
        assert!(differs(|it| drop(it.steps[0].metadata.insert("skip".into(), "false".into()))));
        assert!(!differs(|it| drop(it.steps[0].metadata.insert(IMAGE_DIGEST.into(), "sha256:1".into()))));
    }

    #[test]
    fn rows_that_no_artifact_can_hold_are_refused() {
        let refusal = |change: fn(&mut Definition)| {
            let mut changed = definition();
            change(&mut changed);
            changed.check().map_err(|error| error.to_string())
        };
        assert_eq!(refusal(|_| ()), Ok(()));
        assert_eq!(refusal(|it| it.steps.clear()), Err("workshop \"w\" has no steps".into()));
        assert_eq!(refusal(|it| it.steps[1].id = it.steps[0].id.clone()), Err("step \"one\" is there twice".into()));
        assert_eq!(
            refusal(|it| it.steps[1].markdown = Some("ab\0".into())),
            Err("markdown of step \"two\" has a NUL character at byte 2".into())
        );
        assert_eq!(
            refusal(|it| drop(it.steps.pop())),
            Err("step \"one\" leads to \"two\", which is no step of this workshop".into())
        );
    }

    #[test]
    fn datetimes_are_those_of_sqlite_and_rfc_3339() {
        for text in ["1970-01-01T00:00:00Z", "2024-02-29 23:59:59", "2024-01-01T00:00:00.125+02:00"] {
            assert!(is_datetime(text), "{text}");
        }
        for text in
            ["", "2024-01-01", "2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z", "yesterday T", "2024-13-01 00:00:00"]
        {
            assert!(!is_datetime(text), "{text}");
        }
    }
}
