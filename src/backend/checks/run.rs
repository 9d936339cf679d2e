//! The built-in engine: goes through a spec in its order, some resources at a time, and makes the report.
//!
//! How a resource is looked at is not here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value as Json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::fact::{Fact, Missing};
use super::file::Look;
use super::{
    ChecksError, CommandUser, Options, account, addr, command, dns, file, http, include, interface, kernel_param,
    mount, package, port, process, service,
};
use crate::domain::goss::evaluate::{judge, to_text};
use crate::domain::goss::message::{hint, message, reveals};
use crate::domain::goss::subject::Retry;
use crate::domain::goss::{
    Assertion, CheckResult, Detail, Found, Judgement, Outcome, Report, Resource, Subject, parse_spec,
};

/// How many resources are looked at at once.
const CONCURRENCY: usize = 4;
/// The longest text of a found or expected value in the report, in characters.
pub(super) const SHOWN: usize = 400;

pub async fn run(spec: &str, options: &Options) -> Result<Report, ChecksError> {
    let started_at = Timestamp::now();
    let start = Instant::now();
    let spec = parse_spec("goss.yaml", spec.as_bytes()).into_result().map_err(ChecksError::Spec)?.0;
    let base = options.base_dir.clone();
    let resources = tokio::task::spawn_blocking(move || include::resolve(spec, &base))
        .await
        .unwrap_or_else(|error| Err(ChecksError::Goss(error.to_string())))?;
    let context = Arc::new(Context {
        environment: command::environment(&options.image_environment),
        command_user: options
            .command_user
            .clone()
            .map(|user| CommandUser { environment: command::environment(&user.environment), ..user }),
    });
    let mut results = look_at_all(&resources, &context, options.timeout).await;
    let all = resources.iter().zip(&mut results).flat_map(|(resource, results)| match results.take() {
        Some(results) => results,
        None => out_of_time(resource, options.timeout),
    });
    let all = all.collect();
    Ok(Report::of(started_at, u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), all))
}

/// What every resource may need.
#[derive(Debug)]
pub struct Context {
    /// For programs that run as the backend's own user.
    pub environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Who commands run as; none for the backend itself.
    pub command_user: Option<CommandUser>,
}

/// The results of each resource; none for those that were not done in time.
async fn look_at_all(
    resources: &[Arc<Resource>],
    context: &Arc<Context>,
    timeout: Duration,
) -> Vec<Option<Vec<CheckResult>>> {
    let mut results: Vec<Option<Vec<CheckResult>>> = resources.iter().map(|_| None).collect();
    let slots = Arc::new(Semaphore::new(CONCURRENCY));
    let mut running = JoinSet::new();
    for (index, resource) in resources.iter().enumerate() {
        let (resource, context, slots) = (Arc::clone(resource), Arc::clone(context), Arc::clone(&slots));
        running.spawn(async move {
            let _slot = slots.acquire_owned().await;
            (index, look_at(&resource, &context).await)
        });
    }
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            done = running.join_next() => match done {
                Some(Ok((index, done))) => results[index] = Some(done),
                Some(Err(error)) => tracing::warn!(%error, "a check ended early"),
                None => break,
            },
            // Dropping the rest ends their commands with all that they started.
            () = &mut deadline => break,
        }
    }
    results
}

/// Looks at one resource, again where it is to be retried.
async fn look_at(resource: &Resource, context: &Context) -> Vec<CheckResult> {
    if resource.skip {
        let start = Started::now();
        return resource.assertions.iter().map(|assertion| skipped(resource, assertion, &start)).collect();
    }
    let retry = match &resource.subject {
        Subject::Command { retry, .. } | Subject::Dns { retry, .. } | Subject::Package { retry, .. } => *retry,
        _ => Retry { count: 0, delay: Duration::ZERO },
    };
    let mut tries = 0;
    loop {
        let results = look_once(resource, context).await;
        if tries == retry.count || results.iter().all(|result| result.outcome == Outcome::Passed) {
            return results;
        }
        tries += 1;
        tokio::time::sleep(retry.delay).await;
    }
}

async fn look_once(resource: &Resource, context: &Context) -> Vec<CheckResult> {
    let mut results = Vec::new();
    let mut closed = false;
    let start = Started::now();
    let (gate, others): (Vec<_>, Vec<_>) =
        resource.assertions.iter().partition(|assertion| resource.gate() == Some(assertion.attribute.property));
    let mut looking = Looking::default();
    for assertion in gate {
        let fact = looking.fact(resource, assertion, context).await;
        closed = closed || !opens(assertion, &fact);
        results.push(result(resource, assertion, fact, looking.is_closed, &start));
    }
    for assertion in others {
        if closed {
            results.push(skipped(resource, assertion, &start));
            continue;
        }
        let start = if looking.is_used() { Started::now() } else { start };
        let fact = looking.fact(resource, assertion, context).await;
        results.push(result(resource, assertion, fact, looking.is_closed, &start));
    }
    results
}

/// True when the gate holds and the thing is there: what is rightly absent has no other attributes either.
fn opens(assertion: &Assertion, fact: &Fact) -> bool {
    match fact {
        Err(_) => false,
        Ok(found) => *found != Found::from(false) && judge(&assertion.expectation, found).passed,
    }
}

/// What is kept of a resource between its attributes, so that all of them speak of one moment.
#[derive(Debug, Default)]
struct Looking {
    /// The learner may not read what the last fact comes from.
    is_closed: bool,
    command: Option<Result<command::Ended, Missing>>,
    answer: Option<Result<http::Answer, Missing>>,
    addresses: Option<Result<Vec<String>, Missing>>,
}

impl Looking {
    const fn is_used(&self) -> bool {
        self.command.is_some() || self.answer.is_some() || self.addresses.is_some()
    }

    async fn fact(&mut self, resource: &Resource, assertion: &Assertion, context: &Context) -> Fact {
        let attribute = assertion.attribute.property;
        match &resource.subject {
            Subject::Addr { address, local_address, timeout } => {
                addr::reachable(address, local_address.as_deref(), *timeout).await
            }
            Subject::Command { exec, timeout, .. } => {
                if self.command.is_none() {
                    self.command = Some(command::run(exec, *timeout, resource.meta.wants_root(), context).await);
                }
                command::fact(self.command.as_ref(), attribute)
            }
            Subject::Dns { name, record, server, timeout, .. } => {
                if self.addresses.is_none() {
                    self.addresses = Some(dns::resolve(name, record.as_deref(), server.as_deref(), *timeout).await);
                }
                dns::fact(self.addresses.as_ref(), attribute)
            }
            Subject::Http(request) => {
                if self.answer.is_none() {
                    self.answer = Some(http::ask(request).await);
                }
                http::fact(self.answer.as_ref(), attribute)
            }
            Subject::Matching { content, as_reader } => {
                Ok(if *as_reader { Found::Text(to_text(content)) } else { Found::Value(content.clone()) })
            }
            Subject::Service { name } => service::fact(name, attribute, &context.environment).await,
            Subject::Package { name, .. } => package::fact(name, attribute, &context.environment).await,
            _ => {
                let look = read(resource, assertion, context).await;
                self.is_closed = look.is_closed;
                look.fact
            }
        }
    }
}

/// The facts that are read from the system's files, off the threads that serve.
async fn read(resource: &Resource, assertion: &Assertion, context: &Context) -> Look {
    let learner = context.command_user.as_ref().map(|user| user.identity.clone());
    let open = |fact| Look { fact, is_closed: false };
    let subject = resource.subject.clone();
    let attribute = assertion.attribute.property;
    let matcher = assertion.expectation.matcher.clone();
    let limit = match &subject {
        Subject::Mount { timeout, .. } => *timeout,
        _ => Duration::from_secs(60),
    };
    let reading = tokio::task::spawn_blocking(move || {
        let fact = match &subject {
            Subject::File { path } => return file::look(path, attribute, &matcher, learner.as_ref()),
            Subject::User { name } => account::user(name, attribute),
            Subject::Group { name } => account::group(name, attribute),
            Subject::Process { name } => process::running(name),
            Subject::Port { protocol, port } => port::fact(protocol, *port, attribute),
            Subject::Mount { path, .. } => mount::fact(path, attribute),
            Subject::Interface { name } => interface::fact(name, attribute),
            Subject::KernelParam { name } => kernel_param::value_of(name),
            Subject::Registry => super::fact::unknown("the Windows registry is not there on Linux"),
            _ => super::fact::unknown("nothing is known of this"),
        };
        Look { fact, is_closed: false }
    });
    match tokio::time::timeout(limit, reading).await {
        Ok(Ok(look)) => look,
        Ok(Err(error)) => open(super::fact::unknown(format!("the look at it ended early: {error}"))),
        Err(_) => open(super::fact::failed(format!("it did not answer within {} ms", limit.as_millis()))),
    }
}

#[derive(Debug, Clone, Copy)]
struct Started {
    at: Timestamp,
    instant: Instant,
}

impl Started {
    fn now() -> Self {
        Self { at: Timestamp::now(), instant: Instant::now() }
    }
}

fn result(resource: &Resource, assertion: &Assertion, fact: Fact, is_closed: bool, start: &Started) -> CheckResult {
    let (outcome, judgement) = match fact {
        Ok(found) => {
            let judgement = judge(&assertion.expectation, &found);
            (if judgement.passed { Outcome::Passed } else { Outcome::Failed }, judgement)
        }
        Err(missing) => {
            let outcome = if matches!(missing, Missing::Failed(_)) { Outcome::Failed } else { Outcome::Error };
            let error = Some(missing.reason().to_owned());
            let expected = assertion.expectation.raw.clone();
            (outcome, Judgement { error, expected, ..Judgement::default() })
        }
    };
    let judgement = if is_closed { closed(judgement) } else { judgement };
    finished(resource, assertion, outcome, Some(judgement), start)
}

/// Without what was found, which the learner may not read.
fn closed(judgement: Judgement) -> Judgement {
    let error = (!judgement.passed).then(|| "what is in it cannot be read by you and is not shown".to_owned());
    Judgement { passed: judgement.passed, expected: judgement.expected, error, ..Judgement::default() }
}

fn skipped(resource: &Resource, assertion: &Assertion, start: &Started) -> CheckResult {
    finished(resource, assertion, Outcome::Skipped, None, start)
}

fn out_of_time(resource: &Resource, timeout: Duration) -> Vec<CheckResult> {
    let reason = format!("the checks were not done within {} seconds", timeout.as_secs());
    let start = Started::now();
    let results = resource.assertions.iter().map(|assertion| {
        if resource.skip {
            return skipped(resource, assertion, &start);
        }
        result(resource, assertion, super::fact::unknown(reason.clone()), false, &start)
    });
    results.collect()
}

fn finished(
    resource: &Resource,
    assertion: &Assertion,
    outcome: Outcome,
    judgement: Option<Judgement>,
    start: &Started,
) -> CheckResult {
    let took = start.instant.elapsed();
    let facts = resource.kind.facts();
    let property = assertion.attribute.name;
    let message = message(resource, assertion, judgement.as_ref());
    let reveals = reveals(resource, assertion);
    let judgement = judgement.map(|judgement| if reveals { judgement } else { veiled(judgement) });
    let found = judgement.as_ref().map_or_else(String::new, |judgement| match (&judgement.error, &judgement.actual) {
        (Some(error), _) => error.clone(),
        (None, Json::Null) => match &judgement.missing {
            Some(missing) => format!("without {}", to_text(missing).replace('\n', ", ")),
            None => String::new(),
        },
        (None, actual) => to_text(judgement.untransformed.as_ref().unwrap_or(actual)),
    });
    CheckResult {
        id: format!("{}:{}:{property}", facts.name, resource.id),
        resource: facts.name.to_owned(),
        resource_id: resource.id.clone(),
        property: property.to_owned(),
        title: resource.title.clone(),
        outcome,
        message,
        hint: hint(resource, assertion),
        expected: match &assertion.expectation.raw {
            _ if !reveals => String::new(),
            raw @ Json::Object(_) => shown(&raw.to_string()),
            raw => shown(&to_text(raw)),
        },
        found: shown(&found),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        detail: Some(Box::new(Detail {
            judgement: judgement.map(bounded),
            meta: resource.meta.raw.clone(),
            started_at: start.at,
            duration_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        })),
    }
}

/// The text, cut where it is longer than [`SHOWN`].
pub(super) fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN { text.to_owned() } else { text.chars().take(SHOWN - 1).chain(['…']).collect() }
}

/// Without what the spec expects and what it was held against.
fn veiled(judgement: Judgement) -> Judgement {
    Judgement {
        passed: judgement.passed,
        error: judgement.error.map(|_| "it is not as expected".to_owned()),
        message: judgement.message,
        ..Judgement::default()
    }
}

/// Without the large texts, of which a report with many assertions would hold as many.
fn bounded(mut judgement: Judgement) -> Judgement {
    let cut = |value: &mut Json| {
        if let Json::String(text) = value
            && text.len() > 10 * SHOWN
        {
            *text = shown(text);
        }
    };
    cut(&mut judgement.actual);
    judgement.untransformed.as_mut().map(cut);
    judgement
}
