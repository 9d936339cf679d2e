//! Writing values as YAML text: one set of options for everything the program writes.
//!
//! Strings that a YAML 1.1 reader would take for something else are quoted, and no line is folded, so that a diff of
//! the export shows what changed and nothing else.

use serde::Serialize;
use serde_yaml::SerializerOptions;

/// A value that YAML cannot say.
#[derive(Debug, thiserror::Error)]
#[error("failed to write a value as YAML")]
pub struct EmitError(#[from] serde_yaml::ser::Error);

/// The canonical YAML text of `value`.
pub fn emit<T: Serialize>(value: &T) -> Result<String, EmitError> {
    let mut options = SerializerOptions::default();
    options.folded_wrap_chars = usize::MAX;
    Ok(serde_yaml::to_string_with_options(value, options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::yaml;

    fn check(text: &str) {
        let document = emit(&serde_json::json!({ "key": text, "list": [{ "deep": text }] })).unwrap();
        let parsed = yaml::parse("f", document.as_bytes());
        assert!(parsed.diagnostics.is_empty(), "{text:?} became {document:?}: {:?}", parsed.diagnostics);
        let json = parsed.value.unwrap().root.to_json();
        assert_eq!(json["key"], *text, "{document:?}");
        assert_eq!(json["list"][0]["deep"], *text, "{document:?}");
    }

    #[test]
    fn awkward_texts_read_back_as_they_were() {
        for text in [
            "",
            " ",
            "\n",
            "\n\n",
            "a\n",
            "a\n\n\n",
            " a",
            "\ta",
            "a ",
            "a  \nb\t\n",
            "a\r\nb\r\n",
            "\r",
            "a\rb",
            "no",
            "on",
            "yes",
            "y",
            "~",
            "null",
            "1_000",
            "12:30:45",
            "2024-01-01",
            "1970-01-01T00:00:00Z",
            "=",
            "<<",
            "0644",
            "0x1f",
            "1e3",
            ".5",
            "- a",
            "? b",
            ": c",
            "a: b",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "|",
            ">",
            "'",
            "\"",
            "\\",
            "---",
            "...",
            "--- a",
            "a\n---\nb",
            "a\n...\n",
            "\u{1b}",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{2029}",
            "\u{feff}a",
            "a\u{feff}",
            "\u{a0}",
            "\u{1f600}",
            "\u{e000}",
            "\u{fffd}",
            "  \n a\n",
            "\n a\n",
            "a\n\u{feff}b\n",
            "a\n\u{85}b",
            "key:\n  - x\n",
            "a\n\t\n",
            "a\n \n",
            "\u{80}",
            "\u{fffe}",
            "\u{10ffff}",
        ] {
            check(text);
        }
        check(&"long ".repeat(1000));
    }

    proptest::proptest! {
        #[test]
        fn any_text_reads_back_as_it_was(text in "(?s)[^\\x00]{0,60}") {
            check(&text);
        }

        #[test]
        fn texts_of_indicators_read_back_as_they_were(text in "[ \t\n\r:#\\-?!&*|>'\"%@`{}\\[\\],~a0]{0,30}") {
            check(&text);
        }
    }
}
