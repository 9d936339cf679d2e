//! The patterns that goss looks for line by line: a text, `/a regexp/`, and either with `!` before it.
//!
//! Also turns Go's regular expressions into those of the regex crate. What is searched is given line by line;
//! nothing here reads.

use std::collections::HashSet;

use regex::{Regex, RegexBuilder};

/// The largest compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

/// One pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As the spec writes it.
    pub text: String,
    /// True when no line may have it.
    pub inverse: bool,
    /// What a line must have.
    pub sought: Sought,
}

/// What a pattern looks for.
#[derive(Debug, Clone)]
pub enum Sought {
    /// A text anywhere in the line.
    Text(String),
    /// A match anywhere in the line.
    Match(String),
}

impl Pattern {
    /// Reads a pattern; the error is the regular expression's.
    pub fn parse(text: &str, expressions: &mut Expressions) -> Result<Self, regex::Error> {
        let (inverse, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let between = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let sought = if let Some(expression) = between {
            expressions.check(expression)?;
            Sought::Match(expression.to_owned())
        } else {
            // A backslash takes the meaning from the `!` or `/` after it.
            let escaped = rest.strip_prefix('\\').filter(|after| after.starts_with(['!', '/', '\\']));
            Sought::Text(escaped.unwrap_or(rest).to_owned())
        };
        Ok(Self { text: text.to_owned(), inverse, sought })
    }
}

/// The expressions of a spec that were found right: compiling is slow, and authors repeat themselves.
#[derive(Debug, Default)]
pub struct Expressions {
    checked: HashSet<String>,
}

impl Expressions {
    /// Checks that `expression` can be compiled.
    pub fn check(&mut self, expression: &str) -> Result<(), regex::Error> {
        if !self.checked.contains(expression) {
            compile(expression)?;
            self.checked.insert(expression.to_owned());
        }
        Ok(())
    }
}

/// A search for patterns in a text that comes line by line.
#[derive(Debug)]
pub struct Search {
    patterns: Vec<Running>,
    open: usize,
}

#[derive(Debug)]
struct Running {
    text: String,
    inverse: bool,
    test: Test,
    seen: bool,
}

#[derive(Debug)]
enum Test {
    Text(String),
    Match(Regex),
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// The patterns that hold, in the order of the spec.
    pub found: Vec<String>,
    /// The patterns that do not.
    pub missing: Vec<String>,
}

impl Search {
    /// Begins a search; the error is a regular expression's.
    pub fn new(patterns: &[Pattern]) -> Result<Self, regex::Error> {
        let patterns = patterns
            .iter()
            .map(|pattern| {
                let test = match &pattern.sought {
                    Sought::Text(text) => Test::Text(text.clone()),
                    Sought::Match(expression) => Test::Match(compile(expression)?),
                };
                Ok(Running { text: pattern.text.clone(), inverse: pattern.inverse, test, seen: false })
            })
            .collect::<Result<Vec<_>, regex::Error>>()?;
        let open = patterns.len();
        Ok(Self { patterns, open })
    }

    /// Looks at the next line, which has no line end; false when no further line can change anything.
    pub fn line(&mut self, line: &str) -> bool {
        let line = line.strip_suffix('\r').unwrap_or(line);
        for pattern in self.patterns.iter_mut().filter(|pattern| !pattern.seen) {
            pattern.seen = match &pattern.test {
                Test::Text(text) => line.contains(text.as_str()),
                Test::Match(regex) => regex.is_match(line),
            };
            self.open -= usize::from(pattern.seen);
        }
        self.open > 0
    }

    /// Looks at all lines of `text`.
    pub fn text(&mut self, text: &str) {
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.is_empty() {
            return;
        }
        for line in text.split('\n') {
            if !self.line(line) {
                return;
            }
        }
    }

    /// What holds now that the text is at its end. The empty pattern holds for the empty text as well.
    #[must_use]
    pub fn finish(self) -> Searched {
        let (found, missing): (Vec<_>, Vec<_>) =
            self.patterns.into_iter().partition(|it| it.seen != it.inverse || it.text.is_empty());
        let texts = |patterns: Vec<Running>| patterns.into_iter().map(|it| it.text).collect();
        Searched { found: texts(found), missing: texts(missing) }
    }
}

/// Compiles an expression that is written for Go.
pub fn compile(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(expression)).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).nest_limit(100).build()
}

/// The same expression in the regex crate's syntax: Go's classes are ASCII, a brace that begins no repetition
/// stands for itself, and a bracket inside a class too.
fn translate(expression: &str) -> String {
    let mut output = String::with_capacity(expression.len() + 16);
    let mut rest = expression;
    let mut class = Class::Outside;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        if first == '\\' {
            let Some(escaped) = rest[1..].chars().next() else {
                output.push('\\');
                break;
            };
            taken = 1 + escaped.len_utf8();
            if escaped == 'Q' && class == Class::Outside {
                let body = &rest[2..];
                let end = body.find("\\E").unwrap_or(body.len());
                output.push_str(&regex::escape(&body[..end]));
                rest = body[end..].strip_prefix("\\E").unwrap_or("");
                continue;
            }
            escape(escaped, class != Class::Outside, &rest[..taken], &mut output);
            class = class.after_item();
        } else if class == Class::Outside {
            match first {
                '[' => {
                    class = Class::Begin;
                    output.push('[');
                    if rest[1..].starts_with('^') {
                        output.push('^');
                        taken += 1;
                    }
                }
                '{' if !begins_repetition(rest) => output.push_str("\\{"),
                _ => output.push(first),
            }
        } else {
            match first {
                ']' if class == Class::Begin => output.push_str("\\]"),
                ']' => output.push(']'),
                '[' if rest[1..].starts_with(':') && rest[2..].contains(":]") => {
                    let end = rest[2..].find(":]").unwrap_or_default() + 4;
                    output.push_str(&rest[..end]);
                    taken = end;
                }
                '[' | '&' | '~' => {
                    output.push('\\');
                    output.push(first);
                }
                // A second one would subtract classes.
                '-' if output.ends_with('-') && class == Class::Inside => output.push_str("\\-"),
                _ => output.push(first),
            }
            class = if first == ']' && class == Class::Inside { Class::Outside } else { class.after_item() };
        }
        rest = &rest[taken..];
    }
    output
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Outside,
    Begin,
    Inside,
}

impl Class {
    fn after_item(self) -> Self {
        if self == Self::Outside { Self::Outside } else { Self::Inside }
    }
}

fn escape(escaped: char, inside: bool, whole: &str, output: &mut String) {
    let text = match (escaped, inside) {
        ('d', false) => "[0-9]",
        ('d', true) => "0-9",
        ('D', _) => "[^0-9]",
        ('w', false) => "[0-9A-Za-z_]",
        ('w', true) => "0-9A-Za-z_",
        ('W', _) => "[^0-9A-Za-z_]",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('s', true) => "\\t\\n\\f\\r ",
        ('S', _) => "[^\\t\\n\\f\\r ]",
        ('b', false) => "(?-u:\\b)",
        ('<', _) => "<",
        ('>', _) => ">",
        _ => whole,
    };
    output.push_str(text);
}

/// True for `{2}`, `{2,}` and `{2,3}`.
fn begins_repetition(text: &str) -> bool {
    let Some(end) = text.find('}') else { return false };
    let (least, most) = match text[1..end].split_once(',') {
        Some((least, most)) => (least, most),
        None => (&text[1..end], ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, patterns: &[(&str, bool)]) {
        let parsed: Vec<Pattern> = patterns
            .iter()
            .map(|(pattern, _)| Pattern::parse(pattern, &mut Expressions::default()).expect(pattern))
            .collect();
        let mut search = Search::new(&parsed).expect("patterns that compile");
        search.text(text);
        let missing = search.finish().missing;
        for (pattern, holds) in patterns {
            assert_eq!(!missing.contains(&(*pattern).to_owned()), *holds, "{pattern} in {text:?}");
        }
    }

    #[test]
    fn patterns_hold_for_some_line_and_inverse_ones_for_none() {
        check(
            "foo bar\nmoo cow\r\n! /x/ end\n",
            &[
                ("foo", true),
                ("bar\nmoo", false),
                ("/^m.*w$/", true),
                ("!ftw", true),
                ("!foo", false),
                ("!/^ERROR:/", true),
                ("!/^foo/", false),
                ("\\! /x", true),
                ("\\/x/", true),
                ("/nothing/", false),
                ("", true),
            ],
        );
        check("", &[("", true), ("x", false), ("!x", true), ("/^$/", false), ("!/^$/", true)]);
        check("a /etc/passwd b\n", &[("/etc/passwd", true), ("!/etc/shadow", true), ("/", true)]);
    }

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (expression, text, matches) in [
            ("server {", "server {", true),
            ("a{2}", "aa", true),
            ("a{2,}$", "aaa", true),
            ("^a{,2}$", "a{,2}", true),
            ("\\d", "٣", false),
            ("[\\d.]+$", "1.2", true),
            ("[^\\w]", "ä", true),
            ("\\bä", " ä", false),
            ("[[x]y", "[y", true),
            ("[]x]y", "]y", true),
            ("[^]]", "]", false),
            ("[[:alpha:]]1", "a1", true),
            ("[a&&b]", "&", true),
            ("[+--]", ",", true),
            ("\\Qa.b{\\E+", "a.b{{", true),
            ("\\Qa.b", "axb", false),
            ("\\<x\\>", "<x>", true),
            ("^#!\\/bin\\/sh", "#!/bin/sh", true),
            ("(?i)GOSS", "goss", true),
        ] {
            let regex = compile(expression).expect(expression);
            assert_eq!(regex.is_match(text), matches, "{expression} on {text}");
        }
    }

    #[test]
    fn expressions_that_grow_too_large_are_refused() {
        assert!(compile("(((a{100}){100}){100}){100}").is_err());
        assert!(compile(&"(".repeat(200)).is_err());
        assert!(Pattern::parse("/(/", &mut Expressions::default()).is_err());
    }

    proptest! {
        #[test]
        fn no_expression_panics(expression in "(?s)[\\\\\\[\\]{}^$(|)*+?a-cQE0-9:&~<-]{0,30}", text in ".{0,20}") {
            if let Ok(regex) = compile(&expression) {
                let _ = regex.is_match(&text);
            }
        }

        #[test]
        fn a_plain_text_is_found_in_the_line_that_has_it(before in "[a-z ]{0,9}", text in "[a-z]{1,9}") {
            let mut search = Search::new(&[Pattern::parse(&text, &mut Expressions::default()).unwrap()]).unwrap();
            search.text(&format!("x\n{before}{text}\ny"));
            prop_assert!(search.finish().missing.is_empty());
        }
    }
}
