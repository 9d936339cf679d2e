//! What a learner reads about an assertion: the author's words, else a sentence made from the spec.
//!
//! Says what should be and, where it helps, what was found; how it is shown is the page's matter.

use serde_json::Value as Json;

use super::evaluate::{Judgement, to_text};
use super::kinds::Shape;
use super::matcher::{Comparison, Expectation, Matcher};
use super::pattern::{Pattern, Sought};
use super::spec::{Assertion, Resource};
use super::subject::{Exec, Subject};

/// The message of one assertion; `judgement` is none where nothing was looked at.
#[must_use]
pub fn message(resource: &Resource, assertion: &Assertion, judgement: Option<&Judgement>) -> String {
    if let Some(authors) = authors_words(resource, assertion) {
        return authors.to_owned();
    }
    if reveals(resource, assertion) {
        return sentence(resource, assertion, judgement);
    }
    match judgement {
        Some(judgement) if judgement.passed => format!("{} is as it should be", subject(resource)),
        _ => format!("{} is not yet as it should be", subject(resource)),
    }
}

fn authors_words<'r>(resource: &'r Resource, assertion: &Assertion) -> Option<&'r str> {
    resource.meta.text("message", assertion.attribute.name).or(resource.title.as_deref())
}

/// True when learners may see what the spec expects: `meta.reveal`, else unless the author found other words for a
/// text, because the text is then the answer to a question.
#[must_use]
pub fn reveals(resource: &Resource, assertion: &Assertion) -> bool {
    let said = resource.meta.raw.as_ref().and_then(|meta| meta.get("reveal")?.as_bool());
    said.unwrap_or_else(|| assertion.attribute.shape == Shape::Value || authors_words(resource, assertion).is_none())
}

/// The author's hint for one assertion.
#[must_use]
pub fn hint(resource: &Resource, assertion: &Assertion) -> Option<String> {
    resource.meta.text("hint", assertion.attribute.name).map(str::to_owned)
}

/// The sentence for an assertion about which the author says nothing.
#[must_use]
pub fn sentence(resource: &Resource, assertion: &Assertion, judgement: Option<&Judgement>) -> String {
    let should = should(resource, assertion);
    let failed = judgement.filter(|judgement| !judgement.passed);
    let Some(judgement) = failed else { return should };
    if let Some(error) = &judgement.error {
        return format!("{should}: {}", cut(error, 300));
    }
    match found(assertion, judgement) {
        Some(found) => format!("{should}, {found}"),
        None => should,
    }
}

fn should(resource: &Resource, assertion: &Assertion) -> String {
    let subject = subject(resource);
    let Expectation { matcher, .. } = &assertion.expectation;
    let state = |word: &str| match matcher {
        Matcher::Boolean(true) => Some(format!("{subject} should {word}")),
        Matcher::Boolean(false) => Some(format!("{subject} should not {word}")),
        _ => None,
    };
    let known = match assertion.attribute.name {
        "exists" => state("exist"),
        "installed" => state("be installed"),
        "running" => state("be running"),
        "enabled" => state("be enabled"),
        "listening" => state("be open"),
        "reachable" => state("be reachable"),
        "resolvable" | "resolveable" => state("resolve"),
        "exit-status" => Some(format!(
            "{subject} should end with {}",
            if_plain("exit status ", matcher, "an exit status that should ")
        )),
        "stdout" => Some(format!("{subject} should {}", text_phrase(matcher, "print"))),
        "stderr" => Some(format!("the errors of {subject} should {}", text_phrase(matcher, "be"))),
        "contents" | "contains" => Some(format!("{subject} should {}", text_phrase(matcher, "hold"))),
        "body" => Some(format!("the answer of {subject} should {}", text_phrase(matcher, "be"))),
        "headers" => Some(format!("the headers of {subject} should {}", text_phrase(matcher, "be"))),
        "status" => Some(format!("{subject} should answer {}", if_plain("", matcher, "with a status that should "))),
        "matches" => Some(format!("{subject} should {}", phrase(matcher))),
        "value" => Some(format!("{subject} should {}", phrase(matcher))),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let property = match assertion.attribute.name {
            "linked-to" => "target",
            "filetype" => "type",
            "ip" => "address",
            "uid" => "user number",
            "gid" => "group number",
            "opts" => "options",
            other => other,
        };
        format!("the {property} of {subject} should {}", phrase(matcher))
    })
}

/// What was found instead, where it is short enough to say.
fn found(assertion: &Assertion, judgement: &Judgement) -> Option<String> {
    let actual = judgement.untransformed.as_ref().unwrap_or(&judgement.actual);
    if let Json::Bool(_) | Json::Null = actual {
        return None;
    }
    let text = to_text(actual);
    let text = text.trim_end();
    let shown = if text.lines().count() > 1 || text.chars().count() > 80 {
        return None;
    } else if text.is_empty() {
        "nothing".to_owned()
    } else {
        text.to_owned()
    };
    Some(match assertion.attribute.name {
        "exit-status" => format!("it ended with {shown}"),
        "stdout" | "stderr" => format!("it printed {shown}"),
        "status" => format!("it answered {shown}"),
        "contents" | "contains" => format!("it holds {shown}"),
        _ => format!("it is {shown}"),
    })
}

/// The thing that is looked at.
#[must_use]
pub fn subject(resource: &Resource) -> String {
    let named = |kind: &str, name: &str| format!("the {kind} {}", cut(name, 120));
    match &resource.subject {
        Subject::Addr { address, .. } => cut(address, 120),
        Subject::Command { exec: Exec::Shell(line), .. } => {
            // A line that says what the key says better.
            let line = if line.chars().count() > 60 || line.contains('\n') { &resource.id } else { line };
            format!("`{}`", cut(line, 60))
        }
        Subject::Command { exec: Exec::Program(words), .. } => format!("`{}`", cut(&words.join(" "), 60)),
        Subject::Dns { name, record: Some(record), .. } => named(&format!("{record} record of"), name),
        Subject::Dns { name, .. } => named("name", name),
        Subject::File { path } => cut(path, 120),
        Subject::Group { name } => named("group", name),
        Subject::Http(request) if request.method == "GET" => cut(&request.url, 120),
        Subject::Http(request) => format!("{} {}", request.method, cut(&request.url, 120)),
        Subject::Interface { name } => named("network interface", name),
        Subject::KernelParam { name } => named("kernel parameter", name),
        Subject::Matching { .. } => cut(&resource.id, 120),
        Subject::Mount { path, .. } => named("mount", path),
        Subject::Package { name, .. } => named("package", name),
        Subject::Port { protocol, port } => format!("port {port} ({protocol})"),
        Subject::Process { name } => named("process", name),
        Subject::Registry => "the Windows registry".to_owned(),
        Subject::Service { name } => named("service", name),
        Subject::User { name } => named("user", name),
    }
}

/// The plain value after `before`, else the matcher's phrase after `otherwise`.
fn if_plain(before: &str, matcher: &Matcher, otherwise: &str) -> String {
    match matcher {
        Matcher::Number(_) | Matcher::Text(_) | Matcher::Equal(_) => format!("{before}{}", plain(matcher)),
        _ => format!("{otherwise}{}", phrase(matcher)),
    }
}

/// `print 0`, `print nothing`, `have a line with …`.
fn text_phrase(matcher: &Matcher, verb: &str) -> String {
    match matcher {
        Matcher::Text(text) if text.is_empty() => {
            if verb == "be" {
                "be empty".to_owned()
            } else {
                format!("{verb} nothing")
            }
        }
        Matcher::Text(_) | Matcher::Number(_) => format!("{verb} {}", plain(matcher)),
        _ => phrase(matcher),
    }
}

fn plain(matcher: &Matcher) -> String {
    match matcher {
        Matcher::Text(text) => cut(text.trim_end(), 80),
        Matcher::Number(number) => number.to_string(),
        Matcher::Boolean(flag) => flag.to_string(),
        Matcher::Equal(value) => cut(&to_text(value), 80),
        other => cut(&other.to_json().to_string(), 80),
    }
}

/// What follows "should".
fn phrase(matcher: &Matcher) -> String {
    let quoted = |text: &str| format!("\"{}\"", cut(text, 80));
    match matcher {
        Matcher::Text(text) if text.is_empty() => "be empty".to_owned(),
        Matcher::Text(_) | Matcher::Number(_) | Matcher::Boolean(_) | Matcher::Equal(_) => {
            format!("be {}", plain(matcher))
        }
        Matcher::List(matchers) | Matcher::ContainElements(matchers) => format!("have {}", listed(matchers, " and ")),
        Matcher::ContainElement(matcher) => format!("have {}", listed(std::slice::from_ref(matcher), "")),
        Matcher::ConsistOf(matchers) => format!("be exactly {}", listed(matchers, " and ")),
        Matcher::HavePrefix(text) => format!("begin with {}", quoted(text)),
        Matcher::HaveSuffix(text) => format!("end with {}", quoted(text)),
        Matcher::ContainSubstring(text) => format!("have {} in it", quoted(text)),
        Matcher::MatchRegexp(text) => format!("match /{}/", cut(text, 80)),
        Matcher::Compare(comparison, number) => {
            let relation = match comparison {
                Comparison::Greater => "more than",
                Comparison::GreaterOrEqual => "at least",
                Comparison::Less => "less than",
                Comparison::LessOrEqual => "at most",
            };
            format!("be {relation} {number}")
        }
        Matcher::HaveLen(length) => format!("have the length {length}"),
        Matcher::HavePatterns(patterns) => {
            patterns.iter().take(3).map(pattern).collect::<Vec<_>>().join(" and ") + more(patterns.len())
        }
        Matcher::HaveKey(matcher) => format!("have the key {}", plain(matcher)),
        Matcher::Not(matcher) => format!("not {}", phrase(matcher)),
        Matcher::And(matchers) => phrases(matchers, " and "),
        Matcher::Or(matchers) => phrases(matchers, " or "),
        Matcher::SemverConstraint(range, _) => format!("be a version {}", cut(range, 80)),
        Matcher::Gjson(paths) => {
            let each = paths.iter().take(3).map(|(path, matcher)| format!("{} at `{path}`", phrase(matcher)));
            each.collect::<Vec<_>>().join(" and ") + more(paths.len())
        }
    }
}

const fn more(count: usize) -> &'static str {
    if count > 3 { " and more" } else { "" }
}

fn phrases(matchers: &[Matcher], between: &str) -> String {
    matchers.iter().take(3).map(phrase).collect::<Vec<_>>().join(between) + more(matchers.len())
}

fn listed(matchers: &[Matcher], between: &str) -> String {
    let each = matchers.iter().take(3).map(|matcher| match matcher {
        Matcher::Text(_) | Matcher::Number(_) | Matcher::Boolean(_) | Matcher::Equal(_) => plain(matcher),
        other => format!("an element that should {}", phrase(other)),
    });
    each.collect::<Vec<_>>().join(between) + more(matchers.len())
}

fn pattern(pattern: &Pattern) -> String {
    let no = if pattern.inverse { "no line" } else { "a line" };
    match &pattern.sought {
        Sought::Text(text) => format!("have {no} with \"{}\"", cut(text, 80)),
        Sought::Match(expression) => format!("have {no} that matches /{}/", cut(expression, 80)),
    }
}

/// The text in one line, cut.
fn cut(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most { line } else { line.chars().take(most - 1).chain(['…']).collect() }
}
