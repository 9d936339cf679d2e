//! The published cases in which a value is converted before it is compared.

use serde_json::json;

use super::Is::{Error, Failed, Passed, With};
use super::*;

#[test]
fn conversions_pass() {
    let counts = check(vec![
        Case(
            "reader_as_array",
            json!(LINES),
            true,
            "{and: [{contain-element: {contain-substring: foo}}, {contain-element: {match-regexp: '^m.*w$'}}, \
             {not: {contain-substring: ftw}}, {not: {match-regexp: '^ERROR:'}}]}",
            Passed,
        ),
        Case(
            "numeric_string",
            json!(128),
            false,
            "{and: ['128', {have-prefix: '1'}, {have-suffix: '8'}, {match-regexp: '\\d{3}'}]}",
            Passed,
        ),
        Case("string_numeric", json!("128"), false, "{and: [128, 128.0, {le: 128}, {gt: 120}]}", Passed),
        Case("string_float", json!("128.3"), false, "{and: [128.3, {le: 129}, {gt: 120.2}]}", Passed),
        Case(
            "array",
            json!(["45", "46", "47"]),
            false,
            "[{contain-element: {match-regexp: '4.'}}, '45', {and: [{ge: 46}, {le: 50}]}]",
            Passed,
        ),
        Case(
            "reader_string_matchers",
            json!(NUMBERED),
            true,
            "{and: [{have-len: 19}, \"foo bar\\n15\\nmoo cow\\n\", {have-prefix: foo}, {have-suffix: \"cow\\n\"}, \
             {contain-element: {have-prefix: moo}}, \
             {contain-elements: [{not: this_doesnt_exist}, {lt: 20}, {have-prefix: moo}]}]}",
            Passed,
        ),
        Case("reader_array", json!(NUMBERED), true, "['foo bar', '15', moo cow]", Passed),
        Case("reader_single_string", json!("cool"), true, "cool", Passed),
        Case("reader_int_matchers", json!("40"), true, "{and: [{le: 250}, {ge: 20}]}", Passed),
        Case(
            "gjson",
            json!(OBJECT),
            true,
            "{gjson: {moo.nested: cow, foo: {have-prefix: b}, count: {le: 25}, '@this': {have-key: foo}, \
             moo: {and: [{have-key: nested}, {not: {have-key: nested2}}]}}}",
            Passed,
        ),
        Case(
            "gjson_equal",
            json!(r#"{"foo": "bar", "baz": "bing"}"#),
            false,
            "{gjson: {'@this': {equal: {baz: bing, foo: bar}}}}",
            Passed,
        ),
        Case(
            "gjson_array",
            json!(ARRAY),
            false,
            "{gjson: {arr: {or: [{contain-elements: [{have-key: nested}]}]}}}",
            Passed,
        ),
    ]);
    assert_eq!(counts, (12, 0, 0), "12 assertions, 0 failed");
}

#[test]
fn conversions_fail_and_name_what_they_did() {
    const NESTED: [(&str, &str); 1] = [("transforms", r#"[{"gjson":{"Path":"moo"}}]"#)];
    const THIS: [(&str, &str); 1] = [("transforms", r#"[{"gjson":{"Path":"@this"}}]"#)];
    let nested = || json!({"nested": "cow"});
    let counts = check(vec![
        Case(
            "reader_as_array",
            json!(LINES),
            true,
            "{and: [{contain-element: {contain-substring: fox}}, {contain-element: {match-regexp: '^t.*w$'}}]}",
            With(
                json!(["foo bar", "moo cow", ""]),
                "to contain element matching",
                json!({"contain-substring": "fox"}),
                &[("transforms", r#"[{"to-array":{}}]"#)],
            ),
        ),
        Case(
            "numeric_string",
            json!(128),
            false,
            "{and: ['129', {have-prefix: '2'}]}",
            With(json!("128"), "to equal", json!("129"), &[TO_TEXT]),
        ),
        Case(
            "string_numeric",
            json!("128"),
            false,
            "{and: [129, 129.1, {le: 127}, {gt: 130}]}",
            With(json!(128), "to be numerically eq", json!(129), &[TO_NUMBER]),
        ),
        Case(
            "string_float",
            json!("128.3"),
            false,
            "{and: [129.3, {le: 127}, {gt: 130.2}]}",
            With(json!(128.3), "to be numerically eq", json!(129.3), &[TO_NUMBER]),
        ),
        Case(
            "array",
            json!(["45", "46", "47"]),
            false,
            "[{contain-element: {match-regexp: '5.'}}, '55', {and: [{ge: 56}, {le: 30}]}]",
            With(
                json!(["45", "46", "47"]),
                "to contain elements matching",
                json!([{"contain-element": {"match-regexp": "5."}}, "55", {"and": [{"ge": 56}, {"le": 30}]}]),
                &[("missing", r#"[{"contain-element":{"match-regexp":"5."}},"55",{"and":[{"ge":56},{"le":30}]}]"#)],
            ),
        ),
        Case(
            "reader_string_matchers",
            json!(NUMBERED),
            true,
            "{and: [{have-len: 15}, {have-prefix: fox}]}",
            Failed(json!(NUMBERED), "to have length", json!(15)),
        ),
        Case(
            "reader_single_string",
            json!("cool"),
            true,
            "not-cool",
            Failed(json!("cool"), "to equal", json!("not-cool")),
        ),
        Case(
            "reader_int_matchers",
            json!("40"),
            true,
            "{and: [{le: 20}, {ge: 50}]}",
            With(json!(40), "to be numerically le", json!(20), &[TO_NUMBER]),
        ),
        Case(
            "gjson_simple",
            json!(OBJECT),
            true,
            "{gjson: {moo.nested: cowx}}",
            With(json!("cow"), "to equal", json!("cowx"), &[("transforms", r#"[{"gjson":{"Path":"moo.nested"}}]"#)]),
        ),
        Case(
            "gjson_prefix",
            json!(OBJECT),
            true,
            "{gjson: {foo: {have-prefix: x}}}",
            With(json!("bar"), "to have prefix", json!("x"), &[("transforms", r#"[{"gjson":{"Path":"foo"}}]"#)]),
        ),
        Case(
            "gjson_count",
            json!(OBJECT),
            true,
            "{gjson: {count: {le: 10}}}",
            With(
                json!(15),
                "to be numerically le",
                json!(10),
                &[("transforms", r#"[{"gjson":{"Path":"count"}},{"to-numeric":{}}]"#)],
            ),
        ),
        Case(
            "gjson_this",
            json!(OBJECT),
            true,
            "{gjson: {'@this': {have-key: nope}}}",
            With(parse(OBJECT), "to have key matching", json!("nope"), &THIS),
        ),
        Case(
            "gjson_and",
            json!(OBJECT),
            true,
            "{gjson: {moo: {and: [{have-key: nope}, {not: {have-key: nested}}]}}}",
            With(nested(), "to have key matching", json!("nope"), &NESTED),
        ),
        Case(
            "gjson_not_key",
            json!(OBJECT),
            true,
            "{gjson: {moo: {not: {have-key: nested}}}}",
            With(nested(), "not to have key matching", json!("nested"), &NESTED),
        ),
        Case(
            "gjson_equal",
            json!(r#"{"foo": "bar", "baz": "bing"}"#),
            false,
            "{gjson: {'@this': {equal: {fox: bar, baz: bing}}}}",
            With(json!({"baz": "bing", "foo": "bar"}), "to equal", json!({"baz": "bing", "fox": "bar"}), &THIS),
        ),
        Case(
            "gjson_have_key",
            json!(ARRAY),
            false,
            "{gjson: {'@this': {or: [{have-key: fail}]}}}",
            With(parse(ARRAY), "to satisfy at least one of these matchers", json!([{"have-key": "fail"}]), &THIS),
        ),
        Case("gjson_not_found", json!(ARRAY), false, "{gjson: {foo: bar}}", Error(r#"[{"gjson":{"Path":"foo"}}]"#)),
        Case(
            "gjson_invalid",
            json!(r#"{"arr""#),
            false,
            "{gjson: {'@this': [{have-key: arr}]}}",
            Error(r#"[{"gjson":{"Path":"@this"}}]"#),
        ),
    ]);
    assert_eq!(counts, (0, 18, 0), "18 assertions, 18 failed");
}
