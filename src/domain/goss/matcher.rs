//! Matchers: what a spec expects of a value, read from YAML with every problem at its place.
//!
//! Whether a value meets one is decided in `evaluate`.

use std::ops::{Deref, DerefMut};

use serde_json::{Number, Value as Json, json};

use super::constraint::Constraint;
use super::pattern::{Expressions, Pattern};
use crate::domain::yaml::{Kind, Node, Problems, Value, join, nearest, shorten};

/// The longest list that a matcher may have.
const MAX_LIST: usize = 2_000;

/// What is expected of an attribute.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// As the spec writes it.
    pub raw: Json,
    /// Its meaning.
    pub matcher: Matcher,
}

/// A matcher.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// Equal to this value, without any conversion.
    Equal(Json),
    /// As text, equal to this one.
    Text(String),
    /// As number, equal to this one.
    Number(Number),
    /// This boolean.
    Boolean(bool),
    /// A list that contains elements for all of these; a text is none.
    List(Vec<Self>),
    /// As text, begins so.
    HavePrefix(String),
    /// As text, ends so.
    HaveSuffix(String),
    /// As text, has a match of this expression, in Go's syntax.
    MatchRegexp(String),
    /// As text, has this one in it.
    ContainSubstring(String),
    /// As number, compares so.
    Compare(Comparison, Number),
    /// A text, list or mapping of this length; texts in bytes.
    HaveLen(u64),
    /// As text, has these patterns line by line.
    HavePatterns(Vec<Pattern>),
    /// A mapping with such a key.
    HaveKey(Box<Self>),
    /// As list, has such an element.
    ContainElement(Box<Self>),
    /// As list, has an element of its own for each of these.
    ContainElements(Vec<Self>),
    /// A list of such elements and no others, in any order.
    ConsistOf(Vec<Self>),
    /// Not so.
    Not(Box<Self>),
    /// All of these.
    And(Vec<Self>),
    /// One of these.
    Or(Vec<Self>),
    /// A version, or versions, in this range.
    SemverConstraint(String, Constraint),
    /// A text of JSON in which what each path leads to meets its matcher.
    Gjson(Vec<(String, Self)>),
}

/// A comparison of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Greater.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
}

impl Comparison {
    /// Its name in specs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Greater => "gt",
            Self::GreaterOrEqual => "ge",
            Self::Less => "lt",
            Self::LessOrEqual => "le",
        }
    }
}

const NAMES: [&str; 20] = [
    "equal",
    "have-prefix",
    "have-suffix",
    "match-regexp",
    "contain-substring",
    "gt",
    "ge",
    "lt",
    "le",
    "have-len",
    "have-patterns",
    "have-key",
    "contain-element",
    "contain-elements",
    "consist-of",
    "not",
    "and",
    "or",
    "semver-constraint",
    "gjson",
];

/// Where problems go while matchers are read, and what is known to be a regular expression.
#[derive(Debug)]
pub struct Reading<'r, 'p> {
    /// The problems so far.
    pub problems: &'r mut Problems<'p>,
    /// The expressions that were checked.
    pub expressions: &'r mut Expressions,
}

impl<'p> Deref for Reading<'_, 'p> {
    type Target = Problems<'p>;

    fn deref(&self) -> &Problems<'p> {
        self.problems
    }
}

impl DerefMut for Reading<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.problems
    }
}

impl Expectation {
    /// Reads what `node` expects; `lines` when a list means patterns.
    pub fn parse(node: &Node, lines: bool, field: &str, problems: &mut Reading<'_, '_>) -> Option<Self> {
        let matcher = match &node.value {
            Value::Sequence(_) if lines => Matcher::HavePatterns(patterns(node, field, problems)?),
            _ => Matcher::parse(node, field, problems)?,
        };
        Some(Self { raw: node.to_json(), matcher })
    }
}

impl Matcher {
    fn parse(node: &Node, field: &str, problems: &mut Reading<'_, '_>) -> Option<Self> {
        match (&node.value, node.kind()) {
            (Value::Sequence(_), _) => Some(Self::List(matchers(node, field, problems)?)),
            (Value::Mapping(entries), _) => match &entries[..] {
                [entry] => Self::named(&entry.key, &entry.value, entry.key_place, field, problems),
                _ => {
                    let count = entries.len();
                    let message = format!("a matcher has exactly one key, found {count}");
                    let help = "put several under `and:` or `or:`, as a list";
                    problems.error("matcher", node.place, field, message, help);
                    None
                }
            },
            (Value::Scalar { .. }, Kind::Null) => {
                problems.error("matcher", node.place, field, "nothing is expected here", "write a value or a matcher");
                None
            }
            (Value::Scalar { text, .. }, _) => Some(match node.to_json() {
                Json::Bool(flag) => Self::Boolean(flag),
                Json::Number(number) => Self::Number(number),
                _ => Self::Text(text.clone()),
            }),
        }
    }

    fn named(
        name: &str,
        node: &Node,
        place: crate::domain::diagnostic::Place,
        field: &str,
        problems: &mut Reading<'_, '_>,
    ) -> Option<Self> {
        let field = &join(field, name);
        let text = |problems: &mut Reading<'_, '_>| problems.string(node, field).map(str::to_owned);
        let inner = |problems: &mut Reading<'_, '_>| Self::parse(node, field, problems).map(Box::new);
        Some(match name {
            "equal" => Self::Equal(node.to_json()),
            "have-prefix" => Self::HavePrefix(text(problems)?),
            "have-suffix" => Self::HaveSuffix(text(problems)?),
            "contain-substring" => Self::ContainSubstring(text(problems)?),
            "match-regexp" => {
                let expression = text(problems)?;
                if let Err(error) = problems.expressions.check(&expression) {
                    regexp_error(node, field, &error, problems);
                    return None;
                }
                Self::MatchRegexp(expression)
            }
            "gt" | "ge" | "lt" | "le" => {
                let comparison = match name {
                    "gt" => Comparison::Greater,
                    "ge" => Comparison::GreaterOrEqual,
                    "lt" => Comparison::Less,
                    _ => Comparison::LessOrEqual,
                };
                let Json::Number(number) = node.to_json() else {
                    problems.wrong_type(node, field, "a number");
                    return None;
                };
                Self::Compare(comparison, number)
            }
            "have-len" => {
                let Some(length) = node.to_json().as_u64() else {
                    problems.wrong_type(node, field, "a whole number");
                    return None;
                };
                Self::HaveLen(length)
            }
            "have-patterns" => Self::HavePatterns(patterns(node, field, problems)?),
            "have-key" => Self::HaveKey(inner(problems)?),
            "contain-element" => {
                if matches!(node.kind(), Kind::Sequence | Kind::Null) {
                    problems.wrong_type(node, field, "a matcher, a string or a number");
                    return None;
                }
                Self::ContainElement(inner(problems)?)
            }
            "contain-elements" => Self::ContainElements(matchers(node, field, problems)?),
            "consist-of" => Self::ConsistOf(matchers(node, field, problems)?),
            "not" => Self::Not(inner(problems)?),
            "and" => Self::And(matchers(node, field, problems)?),
            "or" => Self::Or(matchers(node, field, problems)?),
            "semver-constraint" => {
                let range = text(problems)?;
                let Some(constraint) = Constraint::parse(&range) else {
                    let message = format!("\"{}\" is no range of versions", shorten(&range));
                    let help = "write it like `>=1.2.0 <2.0.0`, versions with three numbers";
                    problems.error("matcher", node.place, field, message, help);
                    return None;
                };
                Self::SemverConstraint(range, constraint)
            }
            "gjson" => {
                let entries = problems.entries(node, field)?;
                let paths = entries.iter().map(|entry| {
                    Some((entry.key.clone(), Self::parse(&entry.value, &join(field, &entry.key), problems)?))
                });
                Self::Gjson(all(paths)?)
            }
            "xml" => {
                let message = "the built-in engine does not evaluate the matcher \"xml\", an XPath expression";
                let help = "let a command ask (`xmllint --xpath …`) and match its output, or set `checks.engine: goss` \
                            in workspace.yaml and put `goss` into the images";
                problems.error("unknown-matcher", place, field, message, help);
                return None;
            }
            _ => {
                let help = match nearest(name, &NAMES) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("the matchers are: {}", NAMES.join(", ")),
                };
                let message = format!("unknown matcher \"{}\"", shorten(name));
                problems.error("unknown-matcher", place, field, message, help);
                return None;
            }
        })
    }

    /// As goss writes it in its JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let list = |matchers: &[Self]| Json::Array(matchers.iter().map(Self::to_json).collect());
        match self {
            Self::Equal(value) => value.clone(),
            Self::Text(text) => json!(text),
            Self::Number(number) => json!({ "eq": number }),
            Self::Boolean(flag) => json!(flag),
            Self::List(matchers) | Self::ContainElements(matchers) => json!({ "contain-elements": list(matchers) }),
            Self::HavePrefix(text) => json!({ "have-prefix": text }),
            Self::HaveSuffix(text) => json!({ "have-suffix": text }),
            Self::MatchRegexp(text) => json!({ "match-regexp": text }),
            Self::ContainSubstring(text) => json!({ "contain-substring": text }),
            Self::Compare(comparison, number) => json!({ comparison.name(): number }),
            Self::HaveLen(length) => json!({ "have-len": length }),
            Self::HavePatterns(patterns) => {
                json!({ "have-patterns": patterns.iter().map(|pattern| &pattern.text).collect::<Vec<_>>() })
            }
            Self::HaveKey(matcher) => json!({ "have-key": matcher.to_json() }),
            Self::ContainElement(matcher) => json!({ "contain-element": matcher.to_json() }),
            Self::ConsistOf(matchers) => json!({ "consist-of": list(matchers) }),
            Self::Not(matcher) => json!({ "not": matcher.to_json() }),
            Self::And(matchers) => json!({ "and": list(matchers) }),
            Self::Or(matchers) => json!({ "or": list(matchers) }),
            Self::SemverConstraint(range, _) => json!({ "semver-constraint": range }),
            Self::Gjson(paths) => {
                let paths: serde_json::Map<_, _> =
                    paths.iter().map(|(path, matcher)| (path.clone(), matcher.to_json())).collect();
                json!({ "gjson": paths })
            }
        }
    }
}

/// All values, or none where one is missing; every one is asked for, so that all problems are found.
fn all<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let values: Vec<Option<T>> = values.collect();
    values.into_iter().collect()
}

fn list<'n>(node: &'n Node, field: &str, problems: &mut Reading<'_, '_>) -> Option<&'n [Node]> {
    let nodes = problems.list(node, field)?;
    if nodes.len() > MAX_LIST {
        let message = format!("the list has {} elements, more than the {MAX_LIST} that are compared", nodes.len());
        problems.error("too-many", node.place, field, message, "check with a command instead");
        return None;
    }
    Some(nodes)
}

fn matchers(node: &Node, field: &str, problems: &mut Reading<'_, '_>) -> Option<Vec<Matcher>> {
    let nodes = list(node, field, problems)?;
    all(nodes.iter().enumerate().map(|(index, node)| Matcher::parse(node, &format!("{field}[{index}]"), problems)))
}

fn patterns(node: &Node, field: &str, problems: &mut Reading<'_, '_>) -> Option<Vec<Pattern>> {
    let nodes = list(node, field, problems)?;
    all(nodes.iter().enumerate().map(|(index, node)| {
        let field = format!("{field}[{index}]");
        let Some(text) = node.scalar().filter(|_| node.kind() != Kind::Null) else {
            let help = "write a text, or put matchers under `and:`";
            problems.error("matcher", node.place, &field, "each pattern is a text", help);
            return None;
        };
        match Pattern::parse(text, problems.expressions) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                regexp_error(node, &field, &error, problems);
                None
            }
        }
    }))
}

fn regexp_error(node: &Node, field: &str, error: &regex::Error, problems: &mut Reading<'_, '_>) {
    let text = shorten(node.scalar().unwrap_or_default());
    let (message, help) = match error {
        regex::Error::CompiledTooBig(_) => {
            (format!("the regular expression \"{text}\" is too large"), "use smaller repetition counts".to_owned())
        }
        error => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            (
                format!("\"{text}\" is no regular expression: {reason}"),
                "put a `\\` before characters that are meant literally".to_owned(),
            )
        }
    };
    problems.error("regexp", node.place, field, message, help);
}
