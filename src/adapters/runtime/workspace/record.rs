//! The directory of one workspace and what is written down there, so that any later program finds it again.
//!
//! A directory whose record does not say that the start came to its end is a leftover, whatever is in it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::identity::Identity;
use crate::domain::digest::Digest;

/// The longest path of a Unix socket, in bytes without the final zero.
const MAX_SOCKET_PATH: usize = 107;
/// Records are small; a larger file is none.
const MAX_RECORD: u64 = 1 << 20;

/// What a later program must know of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The instance's uid.
    pub uid: String,
    /// The instance's name, for people.
    pub name: String,
    /// The step.
    pub step: String,
    /// What the operator calls this start.
    pub fingerprint: String,
    /// When it was started.
    pub started_at: Option<jiff::Timestamp>,
    /// The container's first process.
    pub process: Option<Identity>,
    /// The program that carries its traffic to the internet.
    pub egress: Option<Identity>,
    /// True when everything of the start was done.
    pub is_started: bool,
}

/// The directory of one workspace.
#[derive(Debug, Clone)]
pub struct Place {
    /// The directory.
    pub path: PathBuf,
    /// Its name, and the container's.
    pub id: String,
    /// Where the sockets are: in the directory, or elsewhere where its path is too long for one.
    pub sockets: PathBuf,
}

impl Place {
    /// The place of a workspace below `root`.
    pub fn of(root: &Path, uid: &str) -> Self {
        Self::named(root, &Digest::of(uid.as_bytes()).short())
    }

    /// The place of this name below `root`.
    pub fn named(root: &Path, id: &str) -> Self {
        let path = root.join(id);
        let near = path.join("run");
        let longest = near.join(crate::domain::container::place::BACKEND_SOCKET);
        let sockets = if longest.as_os_str().len() <= MAX_SOCKET_PATH {
            near
        } else {
            Path::new("/run/workshop").join(Digest::of(root.display().to_string().as_bytes()).short()).join(id)
        };
        Self { path, id: id.to_owned(), sockets }
    }

    /// A file or directory in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The output of the container.
    pub fn log(&self) -> PathBuf {
        self.join("output.log")
    }

    /// The backend's socket.
    pub fn backend_socket(&self) -> PathBuf {
        self.sockets.join(crate::domain::container::place::BACKEND_SOCKET)
    }

    /// The record; nothing where there is none or what is there is none. An error says nothing of the workspace.
    pub fn read(&self) -> io::Result<Option<Record>> {
        let file = match fs::File::open(self.join("workspace.json")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= MAX_RECORD).then(|| serde_json::from_slice(&bytes).ok()).flatten())
    }

    /// Writes the record, whole or not at all.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.path)?;
        serde_json::to_writer(&mut file, record)?;
        file.flush()?;
        file.persist(self.join("workspace.json")).map(drop).map_err(|error| error.error)
    }

    /// Keeps the exit code for those who ask later.
    pub fn write_exit(&self, code: i32) {
        let _ = fs::write(self.join("exit"), code.to_string());
    }

    /// The exit code, where somebody saw it.
    pub fn exit_code(&self) -> Option<i32> {
        fs::read_to_string(self.join("exit")).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::of(root.path(), "u-1");
        fs::create_dir(&place.path).unwrap();
        assert_eq!(place.read().unwrap(), None);
        let record = Record {
            uid: "u-1".into(),
            name: "alice".into(),
            step: "one".into(),
            fingerprint: "f".into(),
            started_at: Some(jiff::Timestamp::UNIX_EPOCH),
            process: Some(Identity { pid: 1, start: 2 }),
            egress: None,
            is_started: true,
        };
        place.write(&record).unwrap();
        assert_eq!(place.read().unwrap(), Some(record));
        fs::write(place.join("workspace.json"), "{").unwrap();
        assert_eq!(place.read().unwrap(), None);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_an_absent_one() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::of(root.path(), "u-1");
        assert_eq!(place.read().unwrap(), None);
        fs::create_dir_all(place.join("workspace.json")).unwrap();
        assert!(place.read().is_err());
    }

    #[test]
    fn a_socket_has_a_path_that_the_kernel_takes() {
        for root in ["/s".to_owned(), format!("/{}", "long/".repeat(40))] {
            let socket = Place::of(Path::new(&root), "u-1").backend_socket();
            assert!(socket.as_os_str().len() <= MAX_SOCKET_PATH, "{}", socket.display());
        }
    }
}
