//! Kubernetes quantities: `500m`, `512Mi`, `1.5`, `2e3`.
//!
//! The author's text is kept as it is; the value serves limits and comparisons.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A positive amount of processors, bytes or the like, as Kubernetes writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    text: String,
    thousandths: u128,
}

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no quantity: {reason}")]
pub struct InvalidQuantity {
    text: String,
    reason: &'static str,
}

const SUFFIXES: [(&str, u128, u128); 14] = [
    ("", 1, 1),
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
];
const MAX_DIGITS: usize = 18;

impl Quantity {
    /// The value in thousandths of the unit, rounded up: 500 for `500m` processors.
    #[must_use]
    pub const fn thousandths(&self) -> u128 {
        self.thousandths
    }

    /// The value in whole units, rounded up: bytes for an amount of memory.
    #[must_use]
    pub const fn units(&self) -> u128 {
        self.thousandths.div_ceil(1_000)
    }

    /// The author's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let invalid = |reason| InvalidQuantity { text: text.to_owned(), reason };
        let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(invalid("it does not begin with a number"));
        }
        if whole.len() + fraction.len() > MAX_DIGITS {
            return Err(invalid("it has more than 18 digits"));
        }
        let (times, over) = match (suffix.strip_prefix(['e', 'E']), SUFFIXES.iter().find(|(name, ..)| *name == suffix))
        {
            (_, Some((_, times, over))) => (*times, *over),
            (Some(exponent), None) => {
                let exponent: i32 = exponent.parse().map_err(|_| invalid("the exponent is no number"))?;
                let power = 10_u128
                    .checked_pow(exponent.unsigned_abs())
                    .filter(|_| exponent.unsigned_abs() <= 15)
                    .ok_or_else(|| invalid("the exponent is above 15"))?;
                if exponent < 0 { (1, power) } else { (power, 1) }
            }
            (None, None) => {
                return Err(invalid("the suffix is none of m, k, M, G, T, P, Ki, Mi, Gi, Ti, Pi"));
            }
        };
        // At most 18 digits, a factor up to 2^50 and the thousand fit into 128 bits.
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| invalid("it is no number"))?;
        let divisor = 10_u128.pow(fraction.len() as u32) * over;
        let thousandths = (digits * times * 1_000).div_ceil(divisor);
        if thousandths == 0 {
            return Err(invalid("it is zero"));
        }
        Ok(Self { text: text.to_owned(), thousandths })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(text: String) -> Result<Self, InvalidQuantity> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.text
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+([numkMGTP]|[KMGTP]i|[eE][+-]?[0-9]+)?$" })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, thousandths: Option<u128>) {
        assert_eq!(text.parse::<Quantity>().ok().map(|quantity| quantity.thousandths()), thousandths, "{text}");
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        check("500m", Some(500));
        check("1", Some(1_000));
        check("1.5", Some(1_500));
        check(".5", Some(500));
        check("1n", Some(1));
        check("512Mi", Some(512 << 20).map(|bytes: u128| bytes * 1_000));
        check("2e3", Some(2_000_000));
        check("2E-3", Some(2));
        for text in ["", "0", "0Mi", "-1", "1 Gi", "1GB", "1.2.3", "m", "1e99", "9999999999999999999", "1Ki1", "1é"] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.]{0,20}[a-zA-Z]{0,2}[+-]?[0-9]{0,4}|.*") {
            let _ = text.parse::<Quantity>();
        }
    }
}
