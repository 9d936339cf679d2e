//! The cases that goss publishes for its matchers, as facts: the same expectations, outcomes and figures.
//!
//! Each case names the value, the matcher in YAML's flow form, and what goss 0.4 makes of it.

use serde_json::{Value as Json, json};

use super::*;

mod conversions;

enum Is {
    Passed,
    Skipped,
    /// Actual, message, expected.
    Failed(Json, &'static str, Json),
    /// As before, with a part that not every failure has: `missing`, `extra` or `transforms`.
    With(Json, &'static str, Json, &'static [(&'static str, &'static str)]),
    /// Could not be told, after these conversions.
    Error(&'static str),
}
use Is::{Error, Failed, Passed, Skipped, With};

struct Case(&'static str, Json, bool, &'static str, Is);

/// Judges every case by way of a spec, and compares all that goss says; returns passed, failed, skipped.
fn check(cases: Vec<Case>) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for Case(name, content, as_reader, matches, is) in cases {
        let skip = matches!(is, Skipped);
        let spec = format!(
            "matching: {{{name}: {{content: {content}, as-reader: {as_reader}, skip: {skip}, matches: {matches}}}}}\n"
        );
        let parsed = parse_spec("goss.yaml", spec.as_bytes());
        assert_eq!(parsed.diagnostics, [], "{name}");
        let items = parsed.value.unwrap().items;
        let [Item::Resource(resource)] = &items[..] else { panic!("{name}: not one resource") };
        let [assertion] = &resource.assertions[..] else { panic!("{name}: not one assertion") };
        if resource.skip {
            counts.2 += 1;
            continue;
        }
        let Subject::Matching { content, as_reader } = &resource.subject else { panic!("{name}") };
        let found = if *as_reader { Found::Text(evaluate::to_text(content)) } else { Found::Value(content.clone()) };
        let judgement = judge(&assertion.expectation, &found);
        if judgement.passed {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
        compare(name, &judgement, &is);
    }
    counts
}

fn compare(name: &str, found: &Judgement, is: &Is) {
    let (actual, message, expected, parts) = match is {
        Passed | Skipped => {
            assert!(found.passed, "{name}: {found:#?}");
            return;
        }
        Error(chain) => {
            assert!(found.error.is_some() && !found.passed, "{name}: {found:#?}");
            assert_eq!(Json::Array(found.transforms.clone()), parse(chain), "{name}");
            return;
        }
        Failed(actual, message, expected) => (actual, message, expected, &[][..]),
        With(actual, message, expected, parts) => (actual, message, expected, *parts),
    };
    assert!(!found.passed && found.error.is_none(), "{name}: {found:#?}");
    assert_eq!(found.message, *message, "{name}");
    assert_eq!(found.expected, *expected, "{name}");
    // A text that is read line by line is named there and shown here.
    if *message != "to have patterns" {
        assert_eq!(found.actual, *actual, "{name}");
    }
    let part = |key: &str| parts.iter().find(|(known, _)| *known == key).map(|(_, text)| parse(text));
    assert_eq!(found.missing, part("missing"), "{name}");
    assert_eq!(found.extra, part("extra"), "{name}");
    let transforms = (!found.transforms.is_empty()).then(|| Json::Array(found.transforms.clone()));
    assert_eq!(transforms, part("transforms"), "{name}");
}

fn parse(text: &str) -> Json {
    serde_json::from_str(text).expect(text)
}

const TO_TEXT: (&str, &str) = ("transforms", r#"[{"to-string":{}}]"#);
const TO_NUMBER: (&str, &str) = ("transforms", r#"[{"to-numeric":{}}]"#);
const SENTENCE: &str = "this is a test";
const LINES: &str = "foo bar\nmoo cow\n";
const NUMBERED: &str = "foo bar\n15\nmoo cow\n";
const OBJECT: &str = r#"{"foo": "bar", "moo": {"nested": "cow"}, "count": "15"}"#;
const ARRAY: &str = r#"{"arr": [{"nested": "cow"}, {"nested2": "moo"}]}"#;

fn groups() -> Json {
    json!(["group1", "group2", "group3"])
}

fn words() -> Json {
    json!(["foo", "bar", "moo"])
}

#[test]
fn basic_cases_pass_and_one_is_skipped() {
    let counts = check(vec![
        Case("string", json!(SENTENCE), false, "this is a test", Passed),
        Case("regexp", json!(SENTENCE), false, "{match-regexp: '^this'}", Passed),
        Case("skip", json!(SENTENCE), false, "this is a test", Skipped),
        Case("semver", json!("1.2.3"), false, "{semver-constraint: '>=1.2.0'}", Passed),
        Case("int", json!(42), false, "42", Passed),
        Case("array", groups(), false, "[group1, group2]", Passed),
        Case(
            "array_matchers",
            words(),
            false,
            "{and: [{contain-elements: [foo, bar]}, [foo, bar], {equal: [foo, bar, moo]}, \
             {consist-of: [foo, {have-prefix: m}, bar]}, {contain-element: {have-prefix: b}}, \
             {contain-element: {have-suffix: r}}]}",
            Passed,
        ),
        Case("reader", json!(LINES), true, "[foo, '/^m.*w$/', '!ftw', '!/^ERROR:/']", Passed),
        Case("not_string", json!(SENTENCE), false, "{not: this is a failing test}", Passed),
        Case("not_regexp", json!(SENTENCE), false, "{not: {match-regexp: '^foo'}}", Passed),
        Case("not_int", json!(42), false, "{not: 43}", Passed),
        Case("not_array", groups(), false, "{not: [group1, group2, group2, group4]}", Passed),
        Case(
            "not_array_matchers",
            words(),
            false,
            "{and: [{not: {contain-elements: [fox, box]}}, {not: [fox, bax]}, {not: {equal: [fox, bax, mox]}}, \
             {not: {consist-of: [{have-suffix: x}, {have-prefix: t}, box]}}, \
             {not: {contain-element: {have-prefix: x}}}]}",
            Passed,
        ),
        Case(
            "not_reader",
            json!(LINES),
            true,
            "{not: {contain-elements: [fox, '/^t.*w$/', '!foo', '!/^foo/']}}",
            Passed,
        ),
    ]);
    assert_eq!(counts, (13, 0, 1), "14 assertions, 0 failed, 1 skipped");
}

#[test]
fn basic_cases_fail_with_the_same_parts() {
    let text = |text: &str| json!(text);
    let counts = check(vec![
        Case("string", text(SENTENCE), false, "another test", Failed(text(SENTENCE), "to equal", text("another test"))),
        Case("prefix", text("foo"), false, "{have-prefix: g}", Failed(text("foo"), "to have prefix", text("g"))),
        Case("suffix", text("foo"), false, "{have-suffix: x}", Failed(text("foo"), "to have suffix", text("x"))),
        Case(
            "substring",
            text("foo"),
            false,
            "{contain-substring: x}",
            Failed(text("foo"), "to contain substring", text("x")),
        ),
        Case(
            "regexp",
            text(SENTENCE),
            false,
            "{match-regexp: '^foo'}",
            Failed(text(SENTENCE), "to match regular expression", text("^foo")),
        ),
        Case(
            "semver",
            text("1.2.3"),
            false,
            "{or: [{semver-constraint: '>=9.9.0'}]}",
            Failed(
                text("1.2.3"),
                "to satisfy at least one of these matchers",
                json!([{"semver-constraint": ">=9.9.0"}]),
            ),
        ),
        Case(
            "len",
            text("123"),
            false,
            "{or: [{have-len: 2}]}",
            Failed(text("123"), "to satisfy at least one of these matchers", json!([{"have-len": 2}])),
        ),
        Case("int", json!(42), false, "43", Failed(json!(42), "to be numerically eq", json!(43))),
        Case(
            "array",
            groups(),
            false,
            "[group1, group2, group2, group4]",
            With(
                groups(),
                "to contain elements matching",
                json!(["group1", "group2", "group2", "group4"]),
                &[("missing", r#"["group2", "group4"]"#)],
            ),
        ),
        Case(
            "array_matchers",
            words(),
            false,
            "{or: [{contain-elements: [fox, box]}, [fox, bax], {equal: [fox, bax, mox]}, \
             {consist-of: [fox, {have-prefix: t}, box]}, {contain-element: {have-prefix: x}}]}",
            Failed(
                words(),
                "to satisfy at least one of these matchers",
                json!([
                    {"contain-elements": ["fox", "box"]},
                    {"contain-elements": ["fox", "bax"]},
                    ["fox", "bax", "mox"],
                    {"consist-of": ["fox", {"have-prefix": "t"}, "box"]},
                    {"contain-element": {"have-prefix": "x"}},
                ]),
            ),
        ),
        Case(
            "array_consists_of",
            words(),
            false,
            "{consist-of: [fox, {have-prefix: t}, box]}",
            With(
                words(),
                "to consist of",
                json!(["fox", {"have-prefix": "t"}, "box"]),
                &[("missing", r#"["fox", {"have-prefix": "t"}, "box"]"#), ("extra", r#"["foo", "bar", "moo"]"#)],
            ),
        ),
        Case(
            "reader",
            text(LINES),
            true,
            "[fox, '/^t.*w$/', '!foo', '!/^foo/']",
            With(
                Json::Null,
                "to have patterns",
                json!(["fox", "/^t.*w$/", "!foo", "!/^foo/"]),
                &[("missing", r#"["fox", "/^t.*w$/", "!foo", "!/^foo/"]"#)],
            ),
        ),
        Case(
            "not_string",
            text(SENTENCE),
            false,
            "{not: this is a test}",
            Failed(text(SENTENCE), "not to equal", text(SENTENCE)),
        ),
        Case(
            "not_regexp",
            text(SENTENCE),
            false,
            "{not: {match-regexp: '^this'}}",
            Failed(text(SENTENCE), "not to match regular expression", text("^this")),
        ),
        Case(
            "not_prefix",
            text("foo"),
            false,
            "{not: {have-prefix: f}}",
            Failed(text("foo"), "not to have prefix", text("f")),
        ),
        Case(
            "not_suffix",
            text("foo"),
            false,
            "{not: {have-suffix: o}}",
            Failed(text("foo"), "not to have suffix", text("o")),
        ),
        Case(
            "not_substring",
            text("foo"),
            false,
            "{not: {contain-substring: oo}}",
            Failed(text("foo"), "not to contain substring", text("oo")),
        ),
        Case(
            "not_len",
            text("123"),
            false,
            "{not: {have-len: 3}}",
            Failed(text("123"), "not to have length", json!(3)),
        ),
        Case("not_int", json!(42), false, "{not: 42}", Failed(json!(42), "not to be numerically eq", json!(42))),
        Case(
            "not_and",
            json!(42),
            false,
            "{not: {and: [42, 42]}}",
            Failed(json!(42), "not to satisfy all of these matchers", json!([{"eq": 42}, {"eq": 42}])),
        ),
        Case(
            "not_array",
            groups(),
            false,
            "{not: [group1, group2, group3]}",
            Failed(groups(), "not to contain elements matching", groups()),
        ),
        Case(
            "not_array_matchers",
            words(),
            false,
            "{or: [{not: {contain-elements: [foo, bar]}}, {not: [foo, bar]}, {not: {equal: [foo, bar, moo]}}, \
             {not: {consist-of: [foo, {have-prefix: m}, bar]}}, {not: {contain-element: {have-prefix: b}}}]}",
            Failed(
                words(),
                "to satisfy at least one of these matchers",
                json!([
                    {"not": {"contain-elements": ["foo", "bar"]}},
                    {"not": {"contain-elements": ["foo", "bar"]}},
                    {"not": ["foo", "bar", "moo"]},
                    {"not": {"consist-of": ["foo", {"have-prefix": "m"}, "bar"]}},
                    {"not": {"contain-element": {"have-prefix": "b"}}},
                ]),
            ),
        ),
        Case(
            "not_array_element",
            words(),
            false,
            "{not: {contain-element: foo}}",
            Failed(words(), "not to contain element matching", text("foo")),
        ),
        Case(
            "not_array_consists_of",
            words(),
            false,
            "{not: {consist-of: [foo, {have-prefix: m}, bar]}}",
            Failed(words(), "not to consist of", json!(["foo", {"have-prefix": "m"}, "bar"])),
        ),
        // A list below `not` is no list of patterns, and a text no list.
        Case("not_reader", text(LINES), true, "{not: [foo, '/^m.*w$/', '!ftw', '!/^ERROR:/']}", Error("[]")),
    ]);
    assert_eq!(counts, (0, 25, 0), "25 assertions, 25 failed");
}
