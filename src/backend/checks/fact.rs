//! What is found for an attribute, or why nothing can be.
//!
//! Shared by all kinds of resources; looking is theirs.

use crate::domain::goss::Found;

/// Why an attribute has no value.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// The machine's state is why: the assertion fails.
    Failed(String),
    /// It cannot be told at all: an error, which is not the learner's doing.
    Unknown(String),
}

/// What is found for one attribute.
pub type Fact = Result<Found, Missing>;

impl Missing {
    /// The reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Failed(reason) | Self::Unknown(reason) => reason,
        }
    }
}

/// A failure by the machine's state.
pub fn failed<T>(reason: impl Into<String>) -> Result<T, Missing> {
    Err(Missing::Failed(reason.into()))
}

/// What cannot be told.
pub fn unknown<T>(reason: impl Into<String>) -> Result<T, Missing> {
    Err(Missing::Unknown(reason.into()))
}

/// A value that was found.
pub fn value(value: impl Into<serde_json::Value>) -> Fact {
    Ok(Found::Value(value.into()))
}

/// The reason in an I/O error, without its number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Reads a file of the system up to `most` bytes, as text; none where it is not there.
pub fn read_text(path: impl AsRef<std::path::Path>, most: u64) -> std::io::Result<Option<String>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = match std::fs::File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // A device of that name might never end; a pipe would not even have opened without the flag.
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!("larger than {most} bytes")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
