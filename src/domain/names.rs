//! Identifiers as types: only valid ones can exist.
//!
//! What an identifier names is read or computed elsewhere.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::{FramedHasher, hex};

/// The longest workshop id and step id, in characters.
pub const MAX_NAME: usize = 40;

/// Why a text is no name of its kind; reads as the rest of a sentence that begins with the quoted text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" {reason}")]
pub struct InvalidName {
    /// The refused text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn check_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > MAX_NAME {
        return Err("is longer than 40 characters");
    }
    if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Err("has characters other than a-z, 0-9 and -");
    }
    // Kubernetes object names are made of it, and they begin and end with an alphanumeric.
    if text.starts_with('-') || text.ends_with('-') {
        return Err("begins or ends with a hyphen");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text` and makes the name of it.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                check(text)
                    .map(|()| Self(text.to_owned()))
                    .map_err(|reason| InvalidName { text: text.to_owned(), reason })
            }

            /// The name's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A workshop's id: `workshop.name` of the recipe, and the name of its WorkspaceTemplate.
    WorkshopId,
    check_name
);

name!(
    /// A step's id, which is also its image tag.
    StepId,
    |text| {
        check_name(text)?;
        if text == "finish" {
            return Err("is reserved for the state after the last step");
        }
        if ["key-", "artifact-", "sha256-"].iter().any(|prefix| text.starts_with(prefix)) {
            return Err("begins with key-, artifact- or sha256-, which are tags of the platform");
        }
        Ok(())
    }
);

/// The id of a Git object: 40 hex digits of SHA-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 20]);

impl ObjectId {
    /// An id from its 20 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of a workshop's content: the Git tree id of its directory, and the tag when the followed ref is a
/// tag or a semver range (a workshop's version may come from it).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnitKey {
    /// Git's id of the workshop's tree, after ignore rules.
    pub tree: ObjectId,
    /// The followed tag.
    pub tag: Option<String>,
}

impl fmt::Display for UnitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            None => write!(f, "{}", self.tree),
            Some(tag) => write!(f, "{}@{tag}", self.tree),
        }
    }
}

/// The version of everything that a workshop's bytes depend on besides its inputs: layer, image and artifact format.
/// Raising it makes every workshop due once.
pub const FORMAT_VERSION: u64 = 1;

/// The one digest that decides whether work on a workshop is due.
#[must_use]
pub fn work_digest(
    unit: &UnitKey,
    registry: Option<&str>,
    base: Option<&super::digest::Digest>,
    platform: Option<&super::digest::Digest>,
) -> super::digest::Digest {
    let mut hasher = FramedHasher::new("workshop.work");
    hasher
        .number(FORMAT_VERSION)
        .part(unit.tree.as_bytes())
        .optional(unit.tag.as_deref())
        .optional(registry)
        .optional(base.map(ToString::to_string))
        .optional(platform.map(ToString::to_string));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(StepId::parse(text).err().map(|error| error.reason), expected, "{text}");
    }

    #[test]
    fn step_ids_follow_the_rule_and_avoid_the_platforms_tags() {
        check("first-steps", None);
        check("1", None);
        check("", Some("is empty"));
        check("First", Some("has characters other than a-z, 0-9 and -"));
        check("-a", Some("begins or ends with a hyphen"));
        check("finish", Some("is reserved for the state after the last step"));
        check("key-a", Some("begins with key-, artifact- or sha256-, which are tags of the platform"));
        check(&"a".repeat(41), Some("is longer than 40 characters"));
    }

    #[test]
    fn a_workshop_may_be_called_finish() {
        assert!(WorkshopId::parse("finish").is_ok());
    }
}
