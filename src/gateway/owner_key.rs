//! The owner's key: in a state directory a file that only the user can read, made when it is first needed; in a
//! cluster an entry of a Secret that others read.
//!
//! It keeps and compares; what the key opens is decided by `access`.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::domain::token::generate_secret;

/// The key's file in the state directory.
const FILE: &str = "keys/owner.key";
/// Bytes of the owner's key.
const KEY_BYTES: usize = 32;

/// Why the owner's key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum OwnerKeyError {
    /// The file cannot be read or made.
    #[error("failed to read or make the owner's key \"{path}\"")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("\"{path}\" holds no key: remove it, and a new one is made")]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The text is no key.
    #[error("the owner's key is not the base64url of {KEY_BYTES} bytes")]
    Text,
}

/// What opens everything of one state directory.
#[derive(Clone)]
pub struct OwnerKey {
    text: String,
    key: hmac::Key,
    cookie_name: String,
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OwnerKey")
    }
}

impl OwnerKey {
    /// The key in `owner.key` of the state directory.
    pub fn read_or_make(state: &Path) -> Result<Self, OwnerKeyError> {
        let path = state.join(FILE);
        let bytes = read_or_make(&path)?;
        let text = std::str::from_utf8(&bytes).ok();
        text.and_then(|text| Self::from_text(text).ok()).ok_or(OwnerKeyError::Content { path })
    }

    /// The key that `text` is, as [`generate_secret`] makes it; white space around it does not count.
    pub fn from_text(text: &str) -> Result<Self, OwnerKeyError> {
        let text = text.trim();
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == KEY_BYTES);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes.ok_or(OwnerKeyError::Text)?);
        let cookie_name = build_cookie_name(&key);
        Ok(Self { text: text.to_owned(), key, cookie_name })
    }

    /// The key as the fragment of an address carries it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `given` is the key; takes the same time whichever part of it is wrong.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        let expected = hmac::sign(&self.key, self.text.as_bytes());
        hmac::verify(&self.key, given.as_bytes(), expected.as_ref()).is_ok()
    }

    /// The name of the owner's cookie. It differs from key to key: browsers keep one cookie of a name for all ports of
    /// a machine, so that two gateways there would take each other's away.
    #[must_use]
    pub fn cookie_name(&self) -> &str {
        &self.cookie_name
    }

    /// The value of the owner's cookie: it shows that the key was known, and is not the key.
    #[must_use]
    pub fn cookie(&self) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, COOKIE_TEXT).as_ref())
    }

    /// Whether `value` is the owner's cookie.
    #[must_use]
    pub fn is_cookie(&self, value: &str) -> bool {
        URL_SAFE_NO_PAD.decode(value).is_ok_and(|tag| hmac::verify(&self.key, COOKIE_TEXT, &tag).is_ok())
    }
}

const COOKIE_TEXT: &[u8] = b"cookie of the owner";
const COOKIE_NAME_TEXT: &[u8] = b"name of the owner's cookie";

fn build_cookie_name(key: &hmac::Key) -> String {
    let tag = hmac::sign(key, COOKIE_NAME_TEXT);
    let short = tag.as_ref().iter().take(4).map(|byte| format!("{byte:02x}"));
    format!("workshop_owner_{}", short.collect::<String>())
}

/// The file's bytes; one that is missing is made whole or not at all, and of two makers at once one wins.
fn read_or_make(path: &Path) -> Result<Vec<u8>, OwnerKeyError> {
    let failed = |source| OwnerKeyError::File { path: path.to_owned(), source };
    loop {
        match std::fs::read(path) {
            Ok(bytes) => {
                // Whoever copied it here with other rights did not mean to publish it.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
                return Ok(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut fresh = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        fresh.write_all(generate_secret().as_bytes()).and_then(|()| fresh.as_file().sync_all()).map_err(failed)?;
        match fresh.persist_noclobber(path) {
            Err(refused) if refused.error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(refused.error)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_user_alone() {
        let state = tempfile::tempdir().unwrap();
        let key = OwnerKey::read_or_make(state.path()).unwrap();
        let again = OwnerKey::read_or_make(state.path()).unwrap();
        assert_eq!((key.text(), key.cookie()), (again.text(), again.cookie()));
        let mode = state.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(key.is(again.text()) && key.is_cookie(&again.cookie()));
        let other = OwnerKey::read_or_make(tempfile::tempdir().unwrap().path()).unwrap();
        assert!(!key.is(other.text()) && !key.is_cookie(&other.cookie()));
        assert!(!key.is("") && !key.is(&key.cookie()) && !key.is_cookie("") && !key.is_cookie(key.text()));
        assert_eq!(key.cookie_name(), again.cookie_name());
        assert_ne!(key.cookie_name(), other.cookie_name());
        assert!(!format!("{key:?}").contains(key.text()));
    }

    #[test]
    fn a_file_that_holds_no_key_is_told_of_and_kept() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        std::fs::write(state.path().join(FILE), "short").unwrap();
        assert!(matches!(OwnerKey::read_or_make(state.path()), Err(OwnerKeyError::Content { .. })));
        assert_eq!(std::fs::read(state.path().join(FILE)).unwrap(), b"short");
    }
}
