//! Second beat: what the spec says, checked and in the words of the domain. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controller::outcome::{Intervals, Problem};
use crate::crd::conditions::Reason;
use crate::crd::repository::{CompileMode, Reference};
use crate::crd::{API_VERSION, Kind, WorkshopRepository, labels, validate};
use crate::domain::duration::Duration as Span;
use crate::domain::plan::Budget;
use crate::domain::revision::RefSpec;
use crate::domain::source::Source;

/// A repository that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Valid {
    pub(crate) source: Source,
    pub(crate) reference: RefSpec,
    pub(crate) intervals: Intervals,
    pub(crate) timeout: Duration,
    pub(crate) command_timeout: Option<Duration>,
    pub(crate) budget: Budget,
}

/// Checks a repository's spec; every rule that is broken is in the message.
pub(crate) fn check(repository: &WorkshopRepository) -> Result<Valid, Problem> {
    let spec = &repository.spec;
    // A definition of an older version may have let pass what this one refuses.
    let manifest = serde_json::json!({
        "apiVersion": API_VERSION, "kind": Kind::WorkshopRepository.name(),
        "metadata": { "name": repository.metadata.name }, "spec": spec,
    });
    let violations: Vec<String> = validate(&manifest, None).iter().map(ToString::to_string).collect();
    if !violations.is_empty() {
        return Err(Problem::spec(Reason::InvalidSpec, violations.join("; ")));
    }
    let unsupported = [
        (spec.verify.is_some(), "spec.verify: this version does not verify signatures; leave it out"),
        (
            spec.service_account_name.is_some(),
            "spec.serviceAccountName: this version applies objects as the controller itself; leave it out",
        ),
        (
            spec.compile.mode == Some(CompileMode::Job),
            "spec.compile.mode: this version compiles inside the controller; use Inline or leave it out",
        ),
    ];
    let refused: Vec<&str> =
        unsupported.into_iter().filter(|(is_used, _)| *is_used).map(|(_, message)| message).collect();
    if !refused.is_empty() {
        return Err(Problem::spec(Reason::Unsupported, refused.join("; ")));
    }
    let invalid = |field: &str, error: &dyn std::fmt::Display| {
        Problem::spec(Reason::InvalidSpec, format!("spec.{field}: {error}"))
    };
    let source = Source::parse(&spec.url).map_err(|error| invalid("url", &error))?;
    let reference = spec.reference.as_ref().map_or(RefSpec::Default, build_reference);
    reference.check().map_err(|error| invalid("ref", &error))?;
    let span = |text: &str, field: &str| text.parse::<Span>().map(Span::get).map_err(|error| invalid(field, &error));
    let optional = |text: Option<&String>, field: &str| text.map(|text| span(text, field)).transpose();
    Ok(Valid {
        source,
        reference,
        intervals: Intervals {
            interval: span(&spec.interval, "interval")?,
            retry: optional(spec.retry_interval.as_ref(), "retryInterval")?,
        },
        timeout: span(&spec.timeout, "timeout")?,
        command_timeout: optional(spec.compile.timeout.as_ref(), "compile.timeout")?,
        budget: build_budget(spec.prune_budget.as_ref()),
    })
}

/// A commit wins over the branch that holds it.
fn build_reference(reference: &Reference) -> RefSpec {
    let Reference { branch, tag, semver, name, commit } = reference;
    match (commit, name, semver, tag, branch) {
        (Some(commit), ..) => RefSpec::Commit(commit.clone()),
        (_, Some(name), ..) => RefSpec::Name(name.clone()),
        (_, _, Some(semver), ..) => RefSpec::Semver(semver.clone()),
        (_, _, _, Some(tag), _) => RefSpec::Tag(tag.clone()),
        (.., Some(branch)) => RefSpec::Branch(branch.clone()),
        _ => RefSpec::Default,
    }
}

fn build_budget(budget: Option<&IntOrString>) -> Budget {
    match budget {
        None => Budget::Half,
        Some(IntOrString::Int(count)) => Budget::Count(usize::try_from(*count).unwrap_or(0)),
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|percent| percent.parse().ok()).map_or(Budget::Count(0), Budget::Percent)
        }
    }
}

/// The plan hash that somebody approved.
pub(crate) fn approved(repository: &WorkshopRepository) -> Option<String> {
    annotation(repository, labels::APPROVE)
}

/// The value of the annotation that asks for a reconciliation now.
pub(crate) fn requested_at(repository: &WorkshopRepository) -> Option<String> {
    annotation(repository, labels::REQUESTED_AT)
}

fn annotation(repository: &WorkshopRepository, name: &str) -> Option<String> {
    repository.metadata.annotations.as_ref()?.get(name).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn repository(spec: Value) -> WorkshopRepository {
        serde_json::from_value(json!({
            "apiVersion": API_VERSION, "kind": "WorkshopRepository",
            "metadata": { "name": "a", "namespace": "b" }, "spec": spec,
        }))
        .expect("a repository")
    }

    fn refused(spec: Value, reason: Reason, part: &str) {
        let problem = check(&repository(spec)).expect_err(part);
        assert_eq!(problem.reason, reason, "{problem:?}");
        assert!(problem.message.contains(part), "{problem:?}");
    }

    #[test]
    fn a_spec_becomes_what_the_pipeline_needs() {
        let valid = check(&repository(json!({
            "url": "https://git.example/a.git", "ref": { "branch": "main", "commit": "0".repeat(40) },
            "interval": "30s", "retryInterval": "5s", "pruneBudget": "25%", "compile": { "timeout": "1h" },
        })))
        .expect("it makes sense");
        assert_eq!(valid.reference, RefSpec::Commit("0".repeat(40)));
        assert_eq!(valid.intervals.interval, Duration::from_secs(30));
        assert_eq!(valid.intervals.retry, Some(Duration::from_secs(5)));
        assert_eq!(valid.timeout, Duration::from_secs(60));
        assert_eq!(valid.command_timeout, Some(Duration::from_secs(3600)));
        assert_eq!(valid.budget, Budget::Percent(25));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let url = "https://git.example/a.git";
        refused(json!({ "url": "nothing", "interval": "0s" }), Reason::InvalidSpec, "spec.interval");
        refused(json!({ "url": "nothing", "interval": "0s" }), Reason::InvalidSpec, "spec.url");
        refused(json!({ "url": url, "ref": { "semver": "not a range" } }), Reason::InvalidSpec, "spec.ref");
        refused(json!({ "url": url, "ref": { "branch": "a..b" } }), Reason::InvalidSpec, "spec.ref");
        refused(json!({ "url": url, "verify": { "secretRef": { "name": "k" } } }), Reason::Unsupported, "spec.verify");
        refused(json!({ "url": url, "compile": { "mode": "Job" } }), Reason::Unsupported, "spec.compile.mode");
        refused(json!({ "url": url, "serviceAccountName": "a" }), Reason::Unsupported, "spec.serviceAccountName");
    }
}
