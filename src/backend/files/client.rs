//! The backend's half: starts the child as the learner and believes its answers no further than their caps.
//!
//! A child that dies, hangs or talks nonsense is replaced at the next request.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::body::{Body, Bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::Mutex;

use super::protocol::{Answer, Entry, FailureKind, MAX_CONTENT, MAX_HEAD, Request};
use super::{ARCHIVE, MODE};
use crate::backend::exec::{self, ControllingTerminal, Identity};
use crate::backend::reaper::{self, OwnedChild};

/// How long one operation may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request for files was not done.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The child refuses.
    #[error("{message}")]
    Refused {
        /// Why.
        kind: FailureKind,
        /// In words.
        message: String,
    },
    /// The child cannot be started, or ended, or talks nonsense.
    #[error("failed to ask the child that reads and writes files")]
    Child(#[source] std::io::Error),
    /// It does not answer.
    #[error("the files did not answer in time")]
    Timeout,
}

/// A file's bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    /// Its tag, with quotes.
    pub tag: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Reads and writes files as the learner.
#[derive(Debug)]
pub struct FilesClient {
    identity: Identity,
    child: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    input: ChildStdin,
    output: ChildStdout,
    _child: OwnedChild,
}

impl FilesClient {
    /// For the files that `identity` may read and write.
    pub fn new(identity: Identity) -> Self {
        Self { identity, child: Mutex::default() }
    }

    fn start(&self, arguments: &[OsString]) -> Result<Running, FilesError> {
        let mode = [OsStr::new(MODE)];
        let arguments = mode.into_iter().chain(arguments.iter().map(OsString::as_os_str));
        let mut command = exec::command(
            &self.identity,
            Path::new("/"),
            std::iter::empty(),
            exec::program().as_os_str(),
            arguments,
            ControllingTerminal::No,
        );
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = reaper::spawn(&mut command).map_err(FilesError::Child)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(FilesError::Child(std::io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Running { input, output, _child: child })
    }

    async fn ask(&self, request: &Request, body: &[u8]) -> Result<(Answer, Vec<u8>), FilesError> {
        let mut slot = self.child.lock().await;
        let mut is_new = false;
        // A child that ended between two requests says so only now.
        loop {
            if slot.is_none() {
                *slot = Some(self.start(&[])?);
                is_new = true;
            }
            // Out of the slot while it works: a request that is given up leaves a child in an unknown state.
            let Some(mut running) = slot.take() else { continue };
            match tokio::time::timeout(TIMEOUT, running.exchange(request, body)).await {
                Ok(Ok(answer)) => {
                    *slot = Some(running);
                    return match answer {
                        (Answer::Failed { kind, message }, _) => Err(FilesError::Refused { kind, message }),
                        answer => Ok(answer),
                    };
                }
                Ok(Err(error)) if is_new => return Err(FilesError::Child(error)),
                Ok(Err(_)) => {}
                Err(_) => return Err(FilesError::Timeout),
            }
        }
    }

    /// The entries of a directory.
    pub async fn list(&self, path: &str) -> Result<Vec<Entry>, FilesError> {
        match self.ask(&Request::List { path: path.to_owned() }, &[]).await? {
            (Answer::Entries { entries, .. }, _) => Ok(entries),
            _ => Err(nonsense()),
        }
    }

    /// The bytes of a file.
    pub async fn read(&self, path: &str) -> Result<Content, FilesError> {
        match self.ask(&Request::Read { path: path.to_owned() }, &[]).await? {
            (Answer::Content { tag }, bytes) => Ok(Content { tag, bytes }),
            _ => Err(nonsense()),
        }
    }

    /// Writes a file and gives its tag. Where `if_match` is given it must have that tag, with `is_new` not be there.
    pub async fn write(
        &self,
        path: &str,
        if_match: Option<String>,
        is_new: bool,
        content: &[u8],
    ) -> Result<String, FilesError> {
        match self.ask(&Request::Write { path: path.to_owned(), if_match, is_new }, content).await? {
            (Answer::Content { tag }, _) => Ok(tag),
            _ => Err(nonsense()),
        }
    }

    /// Removes a file, or a directory with all that is in it.
    pub async fn remove(&self, path: &str) -> Result<(), FilesError> {
        self.ask(&Request::Remove { path: path.to_owned() }, &[]).await.map(drop)
    }

    /// Makes a directory.
    pub async fn make_directory(&self, path: &str) -> Result<(), FilesError> {
        self.ask(&Request::Directory { path: path.to_owned() }, &[]).await.map(drop)
    }

    /// Gives something another name; nothing may have it.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), FilesError> {
        self.ask(&Request::Move { from: from.to_owned(), to: to.to_owned() }, &[]).await.map(drop)
    }

    /// A gzipped tar of a directory, as a body; it breaks off where the archive cannot be finished.
    pub async fn archive(&self, path: &str) -> Result<Body, FilesError> {
        // Refusals come as answers and not as a broken stream.
        self.list(path).await?;
        let running = self.start(&[ARCHIVE.into(), path.into()])?;
        let stream = futures_util::stream::try_unfold(running, |mut running| async move {
            let mut chunk = vec![0; 64 << 10];
            let read = running.output.read(&mut chunk).await?;
            chunk.truncate(read);
            if read > 0 {
                return Ok(Some((Bytes::from(chunk), running)));
            }
            let status = running._child.wait().await?;
            if status.success() { Ok(None) } else { Err(std::io::Error::other("the archive is not whole")) }
        });
        Ok(Body::from_stream(stream))
    }
}

fn nonsense() -> FilesError {
    FilesError::Child(std::io::ErrorKind::InvalidData.into())
}

impl Running {
    async fn exchange(&mut self, request: &Request, body: &[u8]) -> std::io::Result<(Answer, Vec<u8>)> {
        let head = serde_json::to_vec(request).map_err(std::io::Error::other)?;
        for part in [&head[..], body] {
            self.input.write_u32(u32::try_from(part.len()).map_err(std::io::Error::other)?).await?;
            self.input.write_all(part).await?;
        }
        self.input.flush().await?;
        let head = self.read_part(MAX_HEAD).await?;
        let answer = serde_json::from_slice(&head).map_err(std::io::Error::other)?;
        Ok((answer, self.read_part(MAX_CONTENT).await?))
    }

    async fn read_part(&mut self, most: usize) -> std::io::Result<Vec<u8>> {
        let length = self.output.read_u32().await? as usize;
        if length > most {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut part = Vec::new();
        // Grows with what really comes.
        (&mut self.output).take(length as u64).read_to_end(&mut part).await?;
        if part.len() == length { Ok(part) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }
}
