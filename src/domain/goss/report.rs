//! What a run of checks came to: our report, and the same as goss's own JSON document.
//!
//! Values only; who runs, keeps and shows them is decided elsewhere.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::evaluate::Judgement;
use super::kinds::{KINDS, KindFacts};

/// The results of all assertions of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The step; set by who knows it.
    pub step: String,
    /// True when every assertion that was not left out by the author passed.
    pub passed: bool,
    /// When the run began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How many assertions came to what.
    pub counts: Counts,
    /// Each assertion, in the order of the spec.
    pub results: Vec<CheckResult>,
}

/// How many assertions came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All.
    pub total: usize,
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Not looked at, because the author says so or because the thing is not there at all.
    pub skipped: usize,
    /// Could not be told.
    pub errors: usize,
}

/// What an assertion came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is so.
    Passed,
    /// It is not so.
    Failed,
    /// It was not looked at.
    Skipped,
    /// It could not be told, which is not the learner's doing.
    Error,
}

/// One assertion and what it came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// `resource:key:property`.
    pub id: String,
    /// The kind of resource, as specs name it.
    pub resource: String,
    /// Its key in the spec.
    pub resource_id: String,
    /// The attribute.
    pub property: String,
    /// The author's title of the resource.
    pub title: Option<String>,
    /// What it came to.
    pub outcome: Outcome,
    /// What the learner reads.
    pub message: String,
    /// What helps to get it right.
    pub hint: Option<String>,
    /// What was expected, short.
    pub expected: String,
    /// What was found, short.
    pub found: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The parts of goss's document that the report does not show.
    #[serde(skip)]
    #[schema(ignore)]
    pub detail: Option<Box<Detail>>,
}

/// What goss's document says beyond the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Detail {
    /// The comparison; none where nothing was compared.
    pub judgement: Option<Judgement>,
    /// The author's `meta`.
    pub meta: Option<Json>,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
}

impl Report {
    /// A report of `results`.
    #[must_use]
    pub fn of(started_at: Timestamp, duration_ms: u64, results: Vec<CheckResult>) -> Self {
        let count = |outcome| results.iter().filter(|result| result.outcome == outcome).count();
        let counts = Counts {
            total: results.len(),
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
            errors: count(Outcome::Error),
        };
        let passed = counts.failed == 0 && counts.errors == 0;
        Self { step: String::new(), passed, started_at, duration_ms, counts, results }
    }

    /// The same as goss's `--format json` gives it; what could not be told counts as failed there.
    #[must_use]
    pub fn to_goss(&self) -> Json {
        let results: Vec<Json> = self.results.iter().map(|result| result.to_goss(self.started_at)).collect();
        let failed = self.counts.failed + self.counts.errors;
        let seconds = self.duration_ms as f64 / 1000.0;
        json!({
            "results": results,
            "summary": {
                "failed-count": failed,
                "skipped-count": self.counts.skipped,
                "summary-line": format!(
                    "Count: {}, Failed: {failed}, Skipped: {}, Duration: {seconds:.3}s",
                    self.counts.total, self.counts.skipped
                ),
                "test-count": self.counts.total,
                "total-duration": self.duration_ms * 1_000_000,
            },
        })
    }
}

impl CheckResult {
    fn to_goss(&self, run_started_at: Timestamp) -> Json {
        let facts = KINDS.iter().find(|facts| facts.name == self.resource);
        let type_name = facts.map_or(self.resource.as_str(), |facts| facts.type_name);
        let property = facts.map_or(self.property.as_str(), |facts| goss_property(facts, &self.property));
        let detail = self.detail.as_deref();
        let judgement = detail.and_then(|detail| detail.judgement.as_ref());
        let started_at = detail.map_or(run_started_at, |detail| detail.started_at);
        let nanoseconds = detail.map_or(self.duration_ms * 1_000_000, |detail| detail.duration_ns);
        let ended_at = started_at.checked_add(std::time::Duration::from_nanos(nanoseconds)).unwrap_or(started_at);
        let error = match (judgement.and_then(|judgement| judgement.error.as_deref()), self.outcome) {
            (Some(error), _) => Some(error),
            (None, Outcome::Error) => Some(self.found.as_str()),
            _ => None,
        };
        let matched = self.matcher_result(judgement);
        let head = format!("{type_name}: {}: {property}:", self.resource_id);
        let lines = match self.outcome {
            Outcome::Skipped => vec![format!("{head} skipped")],
            Outcome::Passed => vec![format!("{head} matches expectation: {}", matched["expected"])],
            _ => failure_lines(&head, error, &matched),
        };
        json!({
            "duration": nanoseconds,
            "end-time": ended_at.to_string(),
            "err": error,
            "matcher-result": matched,
            "meta": detail.and_then(|detail| detail.meta.clone()),
            "property": property,
            "resource-id": self.resource_id,
            "resource-type": type_name,
            "result": match self.outcome {
                Outcome::Passed => 0,
                Outcome::Skipped => 2,
                Outcome::Failed | Outcome::Error => 1,
            },
            "skipped": self.outcome == Outcome::Skipped,
            "start-time": started_at.to_string(),
            "successful": self.outcome == Outcome::Passed,
            "summary-line": lines.join("\n"),
            "summary-line-compact": lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
            "title": self.title.as_deref().unwrap_or_default(),
        })
    }

    fn matcher_result(&self, judgement: Option<&Judgement>) -> Json {
        let texts;
        let judgement = match (judgement, self.outcome) {
            (Some(judgement), _) => judgement,
            (None, Outcome::Skipped | Outcome::Error) => &Judgement::default(),
            // Only the texts are left of a report that was kept as JSON.
            (None, _) => {
                texts = Judgement {
                    actual: json!(self.found),
                    message: if self.outcome == Outcome::Passed { "matches expectation" } else { "to equal" },
                    expected: json!(self.expected),
                    ..Judgement::default()
                };
                &texts
            }
        };
        json!({
            "actual": judgement.actual,
            "expected": judgement.expected,
            "extra-elements": judgement.extra,
            "found-elements": judgement.found,
            "message": judgement.message,
            "missing-elements": judgement.missing,
            "transform-chain": (!judgement.transforms.is_empty()).then_some(&judgement.transforms),
            "untransformed-value": judgement.untransformed,
        })
    }
}

fn goss_property<'a>(facts: &KindFacts, property: &'a str) -> &'a str {
    facts
        .assertions
        .iter()
        .find(|attribute| attribute.name == property)
        .map_or(property, |attribute| attribute.property)
}

fn failure_lines(head: &str, error: Option<&str>, matched: &Json) -> Vec<String> {
    let mut lines = vec![head.to_owned()];
    let mut say = |title: &str, value: String| lines.extend([title.to_owned(), format!("    {value}")]);
    if let Some(error) = error {
        say("Error", error.replace('\n', "\n    "));
    } else {
        say("Expected", matched["actual"].to_string());
        say(matched["message"].as_str().unwrap_or_default(), matched["expected"].to_string());
        for (key, title) in
            [("missing-elements", "the missing elements were"), ("extra-elements", "the extra elements were")]
        {
            if !matched[key].is_null() {
                say(title, matched[key].to_string());
            }
        }
    }
    if !matched["transform-chain"].is_null() {
        say("the transform chain was", matched["transform-chain"].to_string());
        if error.is_none() {
            say("the raw value was", matched["untransformed-value"].to_string());
        }
    }
    lines
}
