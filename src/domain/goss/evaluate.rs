//! Whether a found value meets a matcher, with goss's conversions and in goss's words.
//!
//! Pure; where the value comes from is not known here.

use std::cmp::Ordering;

use semver::Version;
use serde_json::{Number, Value as Json, json};

use super::matcher::{Comparison, Expectation, Matcher};
use super::pairing::Pairing;
use super::pattern::{Search, Searched, compile};

/// A value as it was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A value.
    Value(Json),
    /// A text that goss would read line by line.
    Text(String),
    /// A text whose patterns were sought while it was read.
    Searched(Searched),
}

impl From<bool> for Found {
    fn from(value: bool) -> Self {
        Self::Value(json!(value))
    }
}

impl From<&str> for Found {
    fn from(value: &str) -> Self {
        Self::Value(json!(value))
    }
}

/// How an expectation was met or missed; the fields are those of goss's JSON.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    /// True when it was met.
    pub passed: bool,
    /// Why it could not be told, where that is so; goss counts that as failed.
    pub error: Option<String>,
    /// The value that was compared.
    pub actual: Json,
    /// The relation, e.g. `to equal`.
    pub message: &'static str,
    /// What was expected.
    pub expected: Json,
    /// The expected elements that were not found.
    pub missing: Option<Json>,
    /// The expected elements that were found.
    pub found: Option<Json>,
    /// The found elements that were not expected.
    pub extra: Option<Json>,
    /// The conversions that changed the value.
    pub transforms: Vec<Json>,
    /// The value before them, where there are any.
    pub untransformed: Option<Json>,
}

/// Holds `found` against `expectation`.
#[must_use]
pub fn judge(expectation: &Expectation, found: &Found) -> Judgement {
    let searched = match (&expectation.matcher, found) {
        (Matcher::HavePatterns(_), Found::Searched(searched)) => Ok(searched.clone()),
        (Matcher::HavePatterns(patterns), Found::Text(text)) => Search::new(patterns)
            .map(|mut search| {
                search.text(text);
                search.finish()
            })
            .map_err(|error| error.to_string()),
        _ => return judge_value(expectation, found),
    };
    let actual = match found {
        Found::Text(text) => json!(text),
        _ => Json::Null,
    };
    match searched {
        Err(error) => Judgement { error: Some(error), actual, ..Judgement::default() },
        Ok(searched) if searched.missing.is_empty() => passed(expectation, actual),
        Ok(searched) => Judgement {
            actual,
            message: "to have patterns",
            expected: expectation.raw.clone(),
            missing: Some(json!(searched.missing)),
            found: Some(json!(searched.found)),
            ..Judgement::default()
        },
    }
}

fn passed(expectation: &Expectation, actual: Json) -> Judgement {
    let expected = expectation.raw.clone();
    Judgement { passed: true, actual, message: "matches expectation", expected, ..Judgement::default() }
}

fn judge_value(expectation: &Expectation, found: &Found) -> Judgement {
    let actual = match found {
        Found::Value(value) => value.clone(),
        Found::Text(text) => Json::String(text.clone()),
        Found::Searched(_) => Json::Null,
    };
    match test(&expectation.matcher, &actual) {
        Ok(true) => passed(expectation, actual),
        Ok(false) => explain(&expectation.matcher, &actual, false),
        Err(error) => Judgement { passed: false, error: Some(error), ..explain(&expectation.matcher, &actual, false) },
    }
}

/// True when `actual` meets `matcher`; the error says why it cannot be told.
pub(super) fn test(matcher: &Matcher, actual: &Json) -> Result<bool, String> {
    match matcher {
        Matcher::Equal(value) => Ok(equal(actual, value)),
        Matcher::Boolean(flag) => Ok(actual.as_bool() == Some(*flag)),
        Matcher::Text(text) => Ok(to_text(actual) == *text),
        Matcher::HavePrefix(text) => Ok(to_text(actual).starts_with(text)),
        Matcher::HaveSuffix(text) => Ok(to_text(actual).ends_with(text)),
        Matcher::ContainSubstring(text) => Ok(to_text(actual).contains(text)),
        Matcher::MatchRegexp(expression) => {
            compile(expression).map(|regex| regex.is_match(&to_text(actual))).map_err(|error| error.to_string())
        }
        Matcher::Number(number) => Ok(compare(&to_number(actual)?, number) == Some(Ordering::Equal)),
        Matcher::Compare(comparison, number) => {
            let order = compare(&to_number(actual)?, number);
            Ok(match comparison {
                Comparison::Greater => order == Some(Ordering::Greater),
                Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                Comparison::Less => order == Some(Ordering::Less),
                Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            })
        }
        Matcher::HaveLen(length) => match actual {
            Json::String(text) => Ok(text.len() as u64 == *length),
            Json::Array(values) => Ok(values.len() as u64 == *length),
            Json::Object(values) => Ok(values.len() as u64 == *length),
            other => Err(format!("a text, list or mapping has a length, but {} has none", brief(other))),
        },
        Matcher::HavePatterns(patterns) => {
            let mut search = Search::new(patterns).map_err(|error| error.to_string())?;
            search.text(&to_text(actual));
            Ok(search.finish().missing.is_empty())
        }
        Matcher::HaveKey(matcher) => match actual {
            Json::Object(values) => any(matcher, values.keys().map(|key| json!(key))),
            other => Err(format!("a mapping has keys, but {} has none", brief(other))),
        },
        Matcher::ContainElement(matcher) => any(matcher, elements(&to_list(actual))?.into_iter()),
        Matcher::List(matchers) => Ok(Pairing::new(matchers, &elements(actual)?)?.missing().is_empty()),
        Matcher::ContainElements(matchers) => {
            Ok(Pairing::new(matchers, &elements(&to_list(actual))?)?.missing().is_empty())
        }
        Matcher::ConsistOf(matchers) => {
            let pairing = Pairing::new(matchers, &elements(actual)?)?;
            Ok(pairing.missing().is_empty() && pairing.extra().is_empty())
        }
        Matcher::Not(matcher) => test(matcher, actual).map(|met| !met),
        Matcher::And(matchers) => first(matchers, false, |matcher| test(matcher, actual)).map(|found| found.is_none()),
        Matcher::Or(matchers) => first(matchers, true, |matcher| test(matcher, actual)).map(|found| found.is_some()),
        Matcher::SemverConstraint(_, constraint) => {
            Ok(to_versions(actual)?.iter().all(|version| constraint.holds(version)))
        }
        Matcher::Gjson(paths) => {
            let unmet = first(paths, false, |(path, matcher)| test(matcher, &gjson(path, actual)?))?;
            Ok(unmet.is_none())
        }
    }
}

/// The first for which the question has this answer.
fn first<'m, T>(
    items: &'m [T],
    answer: bool,
    ask: impl Fn(&'m T) -> Result<bool, String>,
) -> Result<Option<&'m T>, String> {
    for item in items {
        if ask(item)? == answer {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

fn any(matcher: &Matcher, values: impl Iterator<Item = Json>) -> Result<bool, String> {
    let mut last = Ok(false);
    for value in values {
        match test(matcher, &value) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => last = Err(error),
        }
    }
    last
}

/// Why `matcher` is not met, or with `negated` why it is.
fn explain(matcher: &Matcher, actual: &Json, negated: bool) -> Judgement {
    let plain = |actual: &Json, to: &'static str, not_to: &'static str, expected: Json| Judgement {
        actual: actual.clone(),
        message: if negated { not_to } else { to },
        expected,
        ..Judgement::default()
    };
    let as_text = |to, not_to, text: &str| {
        converted(actual, json!(to_text(actual)), json!({ "to-string": {} }), |actual| {
            plain(actual, to, not_to, json!(text))
        })
    };
    let as_number = |to, not_to, number: &Number| match to_number(actual) {
        Ok(found) => converted(actual, Json::Number(found), json!({ "to-numeric": {} }), |actual| {
            plain(actual, to, not_to, json!(number))
        }),
        Err(_) => Judgement {
            transforms: vec![json!({ "to-numeric": {} })],
            untransformed: Some(actual.clone()),
            ..plain(actual, to, not_to, json!(number))
        },
    };
    match matcher {
        Matcher::Equal(value) => plain(actual, "to equal", "not to equal", value.clone()),
        Matcher::Boolean(flag) => plain(actual, "to equal", "not to equal", json!(flag)),
        Matcher::Text(text) => as_text("to equal", "not to equal", text),
        Matcher::HavePrefix(text) => as_text("to have prefix", "not to have prefix", text),
        Matcher::HaveSuffix(text) => as_text("to have suffix", "not to have suffix", text),
        Matcher::ContainSubstring(text) => as_text("to contain substring", "not to contain substring", text),
        Matcher::MatchRegexp(text) => as_text("to match regular expression", "not to match regular expression", text),
        Matcher::Number(number) => as_number("to be numerically eq", "not to be numerically eq", number),
        Matcher::Compare(comparison, number) => {
            let (to, not_to) = match comparison {
                Comparison::Greater => ("to be numerically gt", "not to be numerically gt"),
                Comparison::GreaterOrEqual => ("to be numerically ge", "not to be numerically ge"),
                Comparison::Less => ("to be numerically lt", "not to be numerically lt"),
                Comparison::LessOrEqual => ("to be numerically le", "not to be numerically le"),
            };
            as_number(to, not_to, number)
        }
        Matcher::HaveLen(length) => plain(actual, "to have length", "not to have length", json!(length)),
        Matcher::HavePatterns(patterns) => {
            let texts: Vec<&String> = patterns.iter().map(|pattern| &pattern.text).collect();
            plain(actual, "to have patterns", "not to have patterns", json!(texts))
        }
        Matcher::HaveKey(key) => plain(actual, "to have key matching", "not to have key matching", key.to_json()),
        Matcher::ContainElement(element) => converted(actual, to_list(actual), json!({ "to-array": {} }), |actual| {
            let (to, not_to) = ("to contain element matching", "not to contain element matching");
            plain(actual, to, not_to, element.to_json())
        }),
        Matcher::List(matchers) => explain_elements(matchers, actual, negated),
        Matcher::ContainElements(matchers) => converted(actual, to_list(actual), json!({ "to-array": {} }), |actual| {
            explain_elements(matchers, actual, negated)
        }),
        Matcher::ConsistOf(matchers) => {
            let mut judgement = plain(actual, "to consist of", "not to consist of", list_json(matchers));
            if !negated && let Some(pairing) = pairing(matchers, actual) {
                judgement.missing = some_list(pairing.missing());
                judgement.extra = some_list(pairing.extra());
            }
            judgement
        }
        Matcher::Not(matcher) => explain(matcher, actual, !negated),
        Matcher::And(matchers) if negated => {
            let to = "not to satisfy all of these matchers";
            plain(actual, to, to, list_json(matchers))
        }
        Matcher::And(matchers) => {
            let unmet = matchers.iter().find(|matcher| test(matcher, actual) != Ok(true));
            unmet.map_or_else(|| plain(actual, "", "", Json::Null), |matcher| explain(matcher, actual, false))
        }
        Matcher::Or(matchers) if negated => {
            let met = matchers.iter().find(|matcher| test(matcher, actual) == Ok(true));
            met.map_or_else(|| plain(actual, "", "", Json::Null), |matcher| explain(matcher, actual, true))
        }
        Matcher::Or(matchers) => {
            let to = "to satisfy at least one of these matchers";
            plain(actual, to, to, list_json(matchers))
        }
        Matcher::SemverConstraint(range, _) => {
            plain(actual, "to satisfy semver constraint", "not to satisfy semver constraint", json!(range))
        }
        Matcher::Gjson(paths) if negated => {
            plain(actual, "", "not to satisfy all of these matchers", Matcher::Gjson(paths.clone()).to_json())
        }
        Matcher::Gjson(paths) => explain_path(paths, actual),
    }
}

fn explain_path(paths: &[(String, Matcher)], actual: &Json) -> Judgement {
    let unmet =
        paths.iter().find(|(path, matcher)| gjson(path, actual).and_then(|value| test(matcher, &value)) != Ok(true));
    let Some((path, matcher)) = unmet else { return Judgement { actual: actual.clone(), ..Judgement::default() } };
    let transform = json!({ "gjson": { "Path": path } });
    match gjson(path, actual) {
        Ok(value) => converted(actual, value, transform, |value| explain(matcher, value, false)),
        Err(_) => Judgement {
            actual: actual.clone(),
            expected: matcher.to_json(),
            transforms: vec![transform],
            untransformed: Some(actual.clone()),
            ..Judgement::default()
        },
    }
}

/// Explains the converted value, and notes the conversion when it changed something.
fn converted(actual: &Json, value: Json, transform: Json, explain: impl Fn(&Json) -> Judgement) -> Judgement {
    let mut judgement = explain(&value);
    if *actual != value {
        judgement.transforms.insert(0, transform);
        judgement.untransformed = Some(actual.clone());
    }
    judgement
}

fn explain_elements(matchers: &[Matcher], actual: &Json, negated: bool) -> Judgement {
    let mut judgement = Judgement {
        actual: actual.clone(),
        message: if negated { "not to contain elements matching" } else { "to contain elements matching" },
        expected: list_json(matchers),
        ..Judgement::default()
    };
    if !negated && let Some(pairing) = pairing(matchers, actual) {
        judgement.missing = some_list(pairing.missing());
        judgement.found = some_list(pairing.found());
    }
    judgement
}

fn pairing<'m>(matchers: &'m [Matcher], actual: &Json) -> Option<Pairing<'m>> {
    Pairing::new(matchers, &elements(actual).ok()?).ok()
}

fn some_list(values: Vec<Json>) -> Option<Json> {
    (!values.is_empty()).then_some(Json::Array(values))
}

fn list_json(matchers: &[Matcher]) -> Json {
    Json::Array(matchers.iter().map(Matcher::to_json).collect())
}

fn elements(value: &Json) -> Result<Vec<Json>, String> {
    match value {
        Json::Array(values) => Ok(values.clone()),
        Json::Object(values) => Ok(values.values().cloned().collect()),
        other => Err(format!("a list or mapping was expected, found {}", brief(other))),
    }
}

/// Equal, numbers by their value.
fn equal(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => compare(left, right) == Some(Ordering::Equal),
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

fn compare(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

/// The text of a value as Go prints it; the elements of a list are lines.
#[must_use]
pub fn to_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(values) => values.iter().map(to_text).collect::<Vec<_>>().join("\n"),
        Json::Null => "<nil>".to_owned(),
        Json::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// Go's `%v`: the shortest digits, with an exponent for large and small ones.
fn go_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return value.to_string() };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn to_number(value: &Json) -> Result<Number, String> {
    let parse = |text: &str| {
        let text = text.trim();
        let exact = text.parse::<i64>().ok().map(Number::from);
        exact.or_else(|| Number::from_f64(text.parse().ok()?)).ok_or_else(|| format!("{} is no number", brief(value)))
    };
    match value {
        Json::Number(number) => Ok(number.clone()),
        Json::String(text) => parse(text),
        Json::Array(values) if values.iter().all(Json::is_string) => parse(&to_text(value)),
        _ => Err(format!("{} is no number", brief(value))),
    }
}

fn to_list(value: &Json) -> Json {
    match value {
        Json::String(text) => Json::Array(text.split('\n').map(|line| json!(line)).collect()),
        other => other.clone(),
    }
}

fn to_versions(value: &Json) -> Result<Vec<Version>, String> {
    let parse = |value: &Json| {
        let version = value.as_str().and_then(|text| Version::parse(text).ok());
        version.ok_or_else(|| format!("{} is no version with three numbers", brief(value)))
    };
    match value {
        Json::Array(values) if !values.is_empty() => values.iter().map(parse).collect(),
        Json::Array(_) => Err("there is no version".to_owned()),
        other => Ok(vec![parse(other)?]),
    }
}

fn gjson(path: &str, value: &Json) -> Result<Json, String> {
    let Json::String(text) = value else {
        return Err(format!("a text of JSON was expected, found {}", brief(value)));
    };
    // Its bound of nesting keeps the path search below from recursing without end.
    if serde_json::from_str::<Json>(text).is_err() {
        return Err(format!("{} is no JSON", brief(value)));
    }
    let found = gjson::get(text, path);
    if !found.exists() {
        return Err(format!("the JSON has nothing at \"{path}\""));
    }
    serde_json::from_str(found.json()).map_err(|error| format!("what is at \"{path}\" is no JSON: {error}"))
}

/// The value for a message, cut.
pub(super) fn brief(value: &Json) -> String {
    let text = value.to_string();
    if text.chars().count() <= 200 { text } else { text.chars().take(199).chain(['…']).collect() }
}
