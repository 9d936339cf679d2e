//! Version ranges as goss's `semver-constraint` has them: `>=1.2.0 <2.0.0 || 3.x`.
//!
//! By plain precedence: a pre-release lies before its release, and no range leaves it out for being one.

use std::cmp::Ordering;

use semver::Version;

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// One of these must hold, each with all of its parts.
    alternatives: Vec<Vec<Bound>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bound {
    Compare(Operator, Version),
    /// Outside of the half-open span.
    Outside(Version, Version),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

const OPERATORS: [(&str, Operator); 8] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::Equal),
    ("!", Operator::NotEqual),
];

impl Constraint {
    /// Reads a range; none where it is no such thing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let alternatives = text.split("||").map(parse_all).collect::<Option<Vec<_>>>()?;
        Some(Self { alternatives })
    }

    /// True when `version` lies in the range.
    #[must_use]
    pub fn holds(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|bounds| bounds.iter().all(|bound| bound.holds(version)))
    }
}

fn parse_all(text: &str) -> Option<Vec<Bound>> {
    let mut bounds = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let found = OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)));
        let (operator, after) = found.unwrap_or((Operator::Equal, rest));
        let after = after.trim_start();
        let end = after.find(|any: char| any.is_whitespace() || "<>=!".contains(any)).unwrap_or(after.len());
        bounds.extend(bounds_of(operator, &after[..end])?);
        rest = after[end..].trim_start();
    }
    (!bounds.is_empty()).then_some(bounds)
}

fn bounds_of(operator: Operator, version: &str) -> Option<Vec<Bound>> {
    let Some((low, high)) = wildcard(version) else {
        return Some(vec![Bound::Compare(operator, Version::parse(version).ok()?)]);
    };
    let at_least = |version| Bound::Compare(Operator::GreaterOrEqual, version);
    let below = |version| Bound::Compare(Operator::Less, version);
    Some(match operator {
        Operator::Equal => vec![at_least(low), below(high)],
        Operator::NotEqual => vec![Bound::Outside(low, high)],
        Operator::Greater => vec![at_least(high)],
        Operator::GreaterOrEqual => vec![at_least(low)],
        Operator::Less => vec![below(low)],
        Operator::LessOrEqual => vec![below(high)],
    })
}

/// The first version of `1.x` or `1.2.x` and the first after it.
fn wildcard(text: &str) -> Option<(Version, Version)> {
    let parts: Vec<&str> = text.split('.').collect();
    let is_any = |part: &&str| matches!(*part, "x" | "X" | "*");
    let first_any = parts.iter().position(is_any)?;
    if !parts[first_any..].iter().all(is_any) || parts.len() > 3 {
        return None;
    }
    let numbers: Vec<u64> = parts[..first_any].iter().map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [major] => Some((Version::new(major, 0, 0), Version::new(major.checked_add(1)?, 0, 0))),
        [major, minor] => Some((Version::new(major, minor, 0), Version::new(major, minor.checked_add(1)?, 0))),
        _ => None,
    }
}

impl Bound {
    fn holds(&self, version: &Version) -> bool {
        match self {
            Self::Outside(low, high) => {
                version.cmp_precedence(low) == Ordering::Less || version.cmp_precedence(high) != Ordering::Less
            }
            Self::Compare(operator, bound) => {
                let order = version.cmp_precedence(bound);
                match operator {
                    Operator::Less => order == Ordering::Less,
                    Operator::LessOrEqual => order != Ordering::Greater,
                    Operator::Greater => order == Ordering::Greater,
                    Operator::GreaterOrEqual => order != Ordering::Less,
                    Operator::Equal => order == Ordering::Equal,
                    Operator::NotEqual => order != Ordering::Equal,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_lie_in_their_ranges() {
        for (range, inside, outside) in [
            (">=1.2.0", "1.2.3", "1.1.9"),
            (">1.0.0 <2.0.0 !=1.5.0", "1.9.9", "1.5.0"),
            (">5.0.0 || < 1.5.0", "1.0.1", "3.0.0"),
            ("1.2.3", "1.2.3+build", "1.2.4"),
            ("==1.2.3", "1.2.3", "1.2.3-rc1"),
            ("!1.2.3", "1.2.4", "1.2.3"),
            (">1.0.0<2.0.0", "1.1.0-alpha", "2.0.0"),
            ("1.x", "1.9.0", "2.0.0"),
            ("1.2.x", "1.2.9", "1.3.0"),
            ("!=1.2.x", "1.3.0", "1.2.0"),
            (">1.2.x", "1.3.0", "1.2.9"),
            ("<=1.x", "1.9.9", "2.0.0"),
        ] {
            let constraint = Constraint::parse(range).expect(range);
            assert!(constraint.holds(&Version::parse(inside).unwrap()), "{range} {inside}");
            assert!(!constraint.holds(&Version::parse(outside).unwrap()), "{range} {outside}");
        }
        for text in ["", "||", ">", "1", "1.2", ">=abc", "1.x.2", "1.0.0 ||"] {
            assert_eq!(Constraint::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_range_panics(text in "[<>=!|x*0-9. -]{0,20}") {
            let _ = Constraint::parse(&text);
        }
    }
}
