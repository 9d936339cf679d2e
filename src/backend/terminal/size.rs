//! The size of a terminal, as clients say it and as the kernel takes it.

use serde::{Deserialize, Serialize};

/// No screen has more; a larger size would only cost programs memory.
const MOST: u16 = 2000;

/// Columns and rows of a terminal, in characters; each from 1 to 2000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire")]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What clients send: any numbers, or none.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    columns: u32,
    #[serde(default)]
    rows: u32,
}

impl From<Wire> for Size {
    fn from(wire: Wire) -> Self {
        let bounded = |value: u32, default: u16| match value {
            0 => default,
            value => u16::try_from(value).map_or(MOST, |value| value.min(MOST)),
        };
        let default = Self::default();
        Self { columns: bounded(wire.columns, default.columns), rows: bounded(wire.rows, default.rows) }
    }
}

impl Default for Size {
    fn default() -> Self {
        Self { columns: 80, rows: 24 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Option<(u16, u16)>) {
        let found = serde_json::from_str::<Size>(json).ok().map(|size| (size.columns, size.rows));
        assert_eq!(found, expected, "{json}");
    }

    #[test]
    fn a_size_is_what_the_client_says_within_bounds() {
        check(r#"{"columns":132,"rows":50}"#, Some((132, 50)));
        check(r#"{"columns":132,"rows":50,"more":true}"#, Some((132, 50)));
        check("{}", Some((80, 24)));
        check(r#"{"columns":0,"rows":0}"#, Some((80, 24)));
        check(r#"{"columns":4294967295,"rows":2001}"#, Some((2000, 2000)));
        check(r#"{"columns":-1}"#, None);
        check(r#"{"columns":"80"}"#, None);
    }
}
