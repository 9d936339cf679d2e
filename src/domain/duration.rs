//! Durations as people write them in YAML: `30m`, `2h`, `1h30m`.
//!
//! Whole milliseconds; what a duration is for is decided where it is read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A span of time, shown in its shortest form (`90m` reads back as `1h30m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    milliseconds: u64,
}

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no duration: {reason}")]
pub struct InvalidDuration {
    text: String,
    reason: &'static str,
}

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// A hundred years: longer ones are mistakes, and sums of two never overflow.
const MAX_MILLISECONDS: u64 = 100 * 366 * 24 * 3_600_000;

impl Duration {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self { milliseconds: seconds * 1_000 }
    }

    /// The duration for the standard library.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.milliseconds)
    }

    /// True for no time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.milliseconds == 0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.get()
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let invalid = |reason| InvalidDuration { text: text.to_owned(), reason };
        let mut rest = text;
        let mut milliseconds = 0_u64;
        if rest.is_empty() {
            return Err(invalid("it is empty"));
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return Err(invalid("a number is missing"));
            }
            let (number, behind) = rest.split_at(digits);
            let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, behind) = behind.split_at(letters);
            let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(invalid("each number needs one of the units h, m, s, ms"));
            };
            milliseconds = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(*factor))
                .and_then(|part| milliseconds.checked_add(part))
                .filter(|sum| *sum <= MAX_MILLISECONDS)
                .ok_or_else(|| invalid("it is longer than a hundred years"))?;
            rest = behind;
        }
        Ok(Self { milliseconds })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.milliseconds == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.milliseconds;
        for (unit, factor) in UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Duration {
    type Error = InvalidDuration;

    fn try_from(text: String) -> Result<Self, InvalidDuration> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+(h|m|s|ms))+$" })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(text.parse::<Duration>().ok().map(|duration| duration.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn durations_are_numbers_with_units() {
        check("30m", Some("30m"));
        check("2h", Some("2h"));
        check("1h30m", Some("1h30m"));
        check("90m", Some("1h30m"));
        check("1500ms", Some("1s500ms"));
        check("0s", Some("0s"));
        for text in ["", "30", "m", "1d", "1h 30m", "-1h", "1.5h", "99999999999999999999h", "900000000h", "1hm", "é"] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(milliseconds in 0..MAX_MILLISECONDS) {
            let duration = Duration { milliseconds };
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Duration>();
        }
    }
}
