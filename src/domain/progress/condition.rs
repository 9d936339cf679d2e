//! The conditions of `navigation.unlock_condition`: what has to be completed before a step opens.
//!
//! `completed(<step>)`, joined by `and` and `or`, with parentheses; `and` binds closer. Whether a step is completed
//! comes from outside.

use super::super::names::StepId;

/// The longest condition, in bytes.
const MAX_BYTES: usize = 1000;
/// The deepest parentheses.
const MAX_DEPTH: usize = 16;

/// What has to hold before a step is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// This step is completed.
    Completed(String),
    /// All of them hold.
    All(Vec<Condition>),
    /// One of them holds.
    Any(Vec<Condition>),
}

/// A text that is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its unlock condition cannot be read at character {at}: {reason}")]
pub struct InvalidCondition {
    /// The character where reading ended, from 1.
    pub at: usize,
    /// What was expected there.
    pub reason: &'static str,
}

impl Condition {
    /// Parses e.g. `completed(one) and (completed(two) or completed(three))`.
    pub fn parse(text: &str) -> Result<Self, InvalidCondition> {
        let mut reading = Reading { text, at: 0 };
        if text.len() > MAX_BYTES {
            return Err(reading.error("it is too long"));
        }
        let condition = reading.any(0)?;
        reading.skip_space();
        if reading.at < text.len() {
            return Err(reading.error("`and`, `or` or the end is due here"));
        }
        Ok(condition)
    }

    /// Whether it holds.
    pub fn holds(&self, is_completed: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Completed(step) => is_completed(step),
            Self::All(parts) => parts.iter().all(|part| part.holds(is_completed)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(is_completed)),
        }
    }

    /// The steps whose completion would make it hold, where it does not; the first way of several.
    pub fn missing(&self, is_completed: &impl Fn(&str) -> bool) -> Vec<String> {
        if self.holds(is_completed) {
            return Vec::new();
        }
        match self {
            Self::Completed(step) => vec![step.clone()],
            Self::All(parts) => {
                let mut steps: Vec<String> = Vec::new();
                for step in parts.iter().flat_map(|part| part.missing(is_completed)) {
                    if !steps.contains(&step) {
                        steps.push(step);
                    }
                }
                steps
            }
            Self::Any(parts) => {
                parts.iter().map(|part| part.missing(is_completed)).min_by_key(Vec::len).unwrap_or_default()
            }
        }
    }

    /// The steps that it names.
    #[must_use]
    pub fn steps(&self) -> Vec<&str> {
        match self {
            Self::Completed(step) => vec![step],
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::steps).collect(),
        }
    }
}

struct Reading<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reading<'t> {
    fn error(&self, reason: &'static str) -> InvalidCondition {
        InvalidCondition { at: self.text[..self.at].chars().count() + 1, reason }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes `word` if it is next; a word ends where no letter, digit or hyphen follows.
    fn take(&mut self, word: &str) -> bool {
        self.skip_space();
        let Some(rest) = self.rest().strip_prefix(word) else { return false };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if word.ends_with(is_name) && rest.starts_with(is_name) {
            return false;
        }
        self.at += word.len();
        true
    }

    fn any(&mut self, depth: usize) -> Result<Condition, InvalidCondition> {
        let mut parts = vec![self.all(depth)?];
        while self.take("or") {
            parts.push(self.all(depth)?);
        }
        Ok(one_or(parts, Condition::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Condition, InvalidCondition> {
        let mut parts = vec![self.term(depth)?];
        while self.take("and") {
            parts.push(self.term(depth)?);
        }
        Ok(one_or(parts, Condition::All))
    }

    fn term(&mut self, depth: usize) -> Result<Condition, InvalidCondition> {
        if depth > MAX_DEPTH {
            return Err(self.error("its parentheses are too deep"));
        }
        let close = |reading: &mut Self| {
            if reading.take(")") { Ok(()) } else { Err(reading.error("`)` is due here")) }
        };
        if self.take("(") {
            let inner = self.any(depth + 1)?;
            close(self)?;
            return Ok(inner);
        }
        if !self.take("completed") || !self.take("(") {
            return Err(self.error("`completed(<step>)` is due here"));
        }
        self.skip_space();
        let name = self.rest().split(|c: char| c == ')' || c.is_whitespace()).next().unwrap_or_default();
        let step = StepId::parse(name).map_err(|_| self.error("a step's id is due here"))?;
        self.at += name.len();
        close(self)?;
        Ok(Condition::Completed(step.to_string()))
    }
}

fn one_or(mut parts: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            join(parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, completed: &[&str], expected: &[&str]) {
        let condition = Condition::parse(text).unwrap();
        let is_completed = |step: &str| completed.contains(&step);
        assert_eq!(condition.holds(&is_completed), expected.is_empty(), "{text}");
        assert_eq!(condition.missing(&is_completed), expected, "{text}");
    }

    #[test]
    fn a_condition_holds_when_its_steps_are_completed() {
        check("completed(one)", &["one"], &[]);
        check(" completed( one )\n", &[], &["one"]);
        check("completed(a) and completed(b) and completed(a)", &[], &["a", "b"]);
        check("completed(a) and completed(b)", &["a"], &["b"]);
        check("completed(a) or completed(b)", &["b"], &[]);
        // `and` binds closer, and the shortest way is what is missing.
        check("completed(a) and completed(b) or completed(c)", &["c"], &[]);
        check("completed(a) and completed(b) or completed(c)", &["a"], &["b"]);
        check("completed(a) and (completed(b) or completed(c))", &["c"], &["a"]);
        check("(completed(or) and(completed(and-1)))", &["or"], &["and-1"]);
    }

    #[test]
    fn what_is_no_condition_is_refused_with_its_place() {
        let check = |text: &str, at, reason: &str| {
            let error = Condition::parse(text).unwrap_err();
            assert_eq!((error.at, error.reason), (at, reason), "{text}");
        };
        check("", 1, "`completed(<step>)` is due here");
        check("step1.completed", 1, "`completed(<step>)` is due here");
        check("completed(A)", 11, "a step's id is due here");
        check("completed(a", 12, "`)` is due here");
        check("completed(a) completed(b)", 14, "`and`, `or` or the end is due here");
        check("completed(a) andcompleted(b)", 14, "`and`, `or` or the end is due here");
        check("completed(a) and", 17, "`completed(<step>)` is due here");
        check(&"(".repeat(40), 18, "its parentheses are too deep");
        check(&" ".repeat(1001), 1, "it is too long");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s)(completed|and|or|[() é]|[a-c]|.){0,30}") {
            let _ = Condition::parse(&text);
        }
    }
}
