//! The key that signs the tokens of local mode: one file of the state directory that nobody else may read.
//!
//! What is signed with it is decided elsewhere.

use std::error::Error as StdError;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::Error;
use crate::domain::token::SigningKey;

/// The key's file in the state directory.
const FILE: &str = "keys/signing.pk8";

/// More than a key has, in bytes.
const MAX_BYTES: u64 = 4096;

/// The signing key of the state directory; made where there is none. Programs that start at one moment get one key.
pub fn read_or_make_signing_key(state: &Path) -> Result<SigningKey, Error> {
    let path = state.join(FILE);
    let failed = |attempt, source: Box<dyn StdError + Send + Sync>| Error::Key { attempt, path: path.clone(), source };
    if let Some(key) = read(&path).map_err(|source| failed("read", source))? {
        return Ok(key);
    }
    make(&path).map_err(|source| failed("make", source))?;
    read(&path).map_err(|source| failed("read", source))?.ok_or_else(|| failed("read", "it is gone again".into()))
}

fn read(path: &Path) -> Result<Option<SigningKey>, Box<dyn StdError + Send + Sync>> {
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("others may read it (mode {:o}): remove it, and a new one is made", mode & 0o777).into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(SigningKey::from_pkcs8(&bytes)?))
}

fn make(path: &Path) -> Result<(), Box<dyn StdError + Send + Sync>> {
    let directory = path.parent().ok_or("it has no directory")?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut file =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o600)).tempfile_in(directory)?;
    file.write_all(SigningKey::generate().to_pkcs8())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Another program was faster; its key counts.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_programs_of_a_state_directory_have_one_key_that_nobody_else_reads() {
        let state = tempfile::tempdir().unwrap();
        let keys: Vec<String> = std::thread::scope(|scope| {
            let read = || read_or_make_signing_key(state.path()).unwrap().verify_key().to_string();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        let path = state.path().join(FILE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_or_make_signing_key(state.path()), Err(Error::Key { attempt: "read", .. })));
    }
}
