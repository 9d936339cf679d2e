//! Specs and values that nobody should write: they are refused or bounded, and never end the program.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn problems(text: &str) -> Vec<&'static str> {
    parse_spec("goss.yaml", text.as_bytes()).diagnostics.iter().map(|problem| problem.rule).collect()
}

#[test]
fn huge_and_deep_specs_are_refused() {
    let list = vec!["x"; 3_000].join(", ");
    assert_eq!(problems(&format!("user: {{a: {{exists: true, groups: [{list}]}}}}")), ["too-many"]);
    let deep = format!("matching: {{a: {{content: 1, matches: {}1{}}}}}", "{not: ".repeat(100), "}".repeat(100));
    assert!(!problems(&deep).is_empty());
    let mut many = String::from("file:\n");
    for number in 0..10_001 {
        writeln!(many, "  /{number}: {{exists: true}}").unwrap();
    }
    assert_eq!(problems(&many), ["too-many"]);
    let few = many.rsplit_once("  /").unwrap().0;
    let spec = parse_spec("goss.yaml", few.as_bytes());
    assert_eq!((spec.diagnostics.len(), spec.value.unwrap().assertion_count()), (0, 10_000));
    let large = "a{1000}".repeat(50);
    assert_eq!(problems(&format!("file: {{/a: {{exists: true, contents: ['/({large}){{1000}}/']}}}}")), ["regexp"]);
}

#[test]
fn pairings_are_bounded_and_right_where_elements_compete() {
    let judged = |matches: &str, content: Json| {
        let spec = format!("matching: {{a: {{content: {content}, matches: {matches}}}}}");
        let spec = parse_spec("goss.yaml", spec.as_bytes()).into_result().expect(matches).0;
        let Item::Resource(resource) = &spec.items[0] else { panic!("{matches}") };
        judge(&resource.assertions[0].expectation, &Found::Value(content))
    };
    // The first would take what only the second can have.
    assert!(judged("{consist-of: [{have-prefix: a}, ab, {have-suffix: c}]}", json!(["ab", "ac", "bc"])).passed);
    assert!(!judged("{consist-of: [{have-prefix: a}, ab]}", json!(["ab", "bc"])).passed);
    let missing = judged("[{have-prefix: a}, ab, ab]", json!(["ab", "ac"])).missing;
    assert_eq!(missing, Some(json!(["ab"])));
    let expected = format!("[{}]", vec!["{have-prefix: x}"; 2_000].join(", "));
    let many = judged(&expected, json!(vec!["x"; 2_001]));
    assert!(many.error.is_some_and(|error| error.contains("too many")));
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "(?s).{0,20}".prop_map(Json::from),
        r#"[{}\[\]",:a-c0-9]{0,20}"#.prop_map(Json::from),
        Just(json!(r#"{"a": {"b": [1, "2", {"c": null}]}}"#)),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::hash_map("[a-c]{0,2}", inner, 0..4).prop_map(|map| map.into_iter().collect::<Json>()),
        ]
    })
}

/// Matchers as JSON, which is YAML as well.
fn any_matcher() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        any_value(),
        ("(have-prefix|have-suffix|contain-substring|match-regexp|semver-constraint)", "[a-c0-9.*\\[({>=< |x]{0,9}")
            .prop_map(|(name, text)| json!({ name: text })),
        ("(gt|ge|lt|le|have-len)", any::<i32>()).prop_map(|(name, number)| json!({ name: number })),
        any_value().prop_map(|value| json!({ "equal": value })),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            ("(not|have-key|contain-element)", inner.clone()).prop_map(|(name, it)| json!({ name: it })),
            ("(and|or|contain-elements|consist-of)", prop::collection::vec(inner.clone(), 0..4))
                .prop_map(|(name, them)| json!({ name: them })),
            (r#"[a-c.@#|*?!<>=%()\[\]{}:"\\0-9]{0,12}"#, inner).prop_map(|(path, it)| json!({ "gjson": { path: it } })),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_and_no_matcher_panics(content in any_value(), matches in any_matcher(), as_reader in any::<bool>()) {
        let spec = json!({ "matching": { "a": { "content": content, "as-reader": as_reader, "matches": matches } } });
        let parsed = parse_spec("goss.yaml", spec.to_string().as_bytes());
        for item in parsed.value.iter().flat_map(|spec| &spec.items) {
            let Item::Resource(resource) = item else { continue };
            for assertion in &resource.assertions {
                let found = if as_reader {
                    Found::Text(evaluate::to_text(&content))
                } else {
                    Found::Value(content.clone())
                };
                let judgement = judge(&assertion.expectation, &found);
                prop_assert!(!(judgement.passed && judgement.error.is_some()));
                let _ = message::message(resource, assertion, Some(&judgement));
            }
        }
    }

    #[test]
    fn negation_turns_every_answer_that_is_one(content in any_value(), matches in any_matcher()) {
        let passed = |matches: &Json| {
            let spec = json!({ "matching": { "a": { "content": content, "matches": matches } } }).to_string();
            let spec = parse_spec("goss.yaml", spec.as_bytes()).into_result().ok()?.0;
            let Some(Item::Resource(resource)) = spec.items.first() else { return None };
            let judgement = judge(&resource.assertions.first()?.expectation, &Found::Value(content.clone()));
            Some((judgement.passed, judgement.error.is_some()))
        };
        if let (Some((passed, false)), Some((not_passed, false))) =
            (passed(&matches), passed(&json!({ "not": matches })))
        {
            prop_assert_ne!(passed, not_passed);
        }
    }

    #[test]
    fn no_spec_panics(text in "(?s)((file|command|user|dns|port|http|package|mount|gossfile): \\{.{0,60}\\}\n){0,2}") {
        let _ = parse_spec("goss.yaml", text.as_bytes());
    }
}
