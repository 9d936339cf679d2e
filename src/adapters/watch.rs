//! File watching: says that something below a directory changed, never what.
//!
//! Events are hints. Some get lost in bursts and in new folders, so who listens reads the whole again, and does so
//! from time to time without any event as well.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Quiet time after the last event before a tick is given.
const QUIET: Duration = Duration::from_millis(200);

/// The longest that a steady stream of events holds a tick back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("failed to watch \"{path}\" for changes")]
pub struct Error {
    path: PathBuf,
    source: notify::Error,
}

/// Watches a directory until it is dropped.
#[derive(Debug)]
pub struct Watch {
    ticks: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch everything below `root`; must be called inside a tokio runtime.
    pub fn start(root: &Path) -> Result<Self, Error> {
        let failed = |source| Error { path: root.to_owned(), source };
        let real = root.canonicalize().map_err(|error| failed(notify::Error::io(error)))?;
        let is_bare = real.join("HEAD").is_file() && real.join("objects").is_dir();
        let (events, raw) = mpsc::channel(1);
        let base = real.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_hint = match &event {
                Ok(event) => {
                    !matches!(event.kind, EventKind::Access(_))
                        && event.paths.iter().any(|path| matters(&base, is_bare, path))
                }
                // A lost event is the strongest hint of all.
                Err(_) => true,
            };
            if is_hint {
                let _ = events.try_send(());
            }
        })
        .map_err(failed)?;
        watcher.watch(&real, RecursiveMode::Recursive).map_err(failed)?;
        let (tick, ticks) = mpsc::channel(1);
        tokio::spawn(debounce(raw, tick));
        Ok(Self { ticks, _watcher: watcher })
    }

    /// Waits for the next change; none when the watch ended.
    pub async fn changed(&mut self) -> Option<()> {
        self.ticks.recv().await
    }
}

async fn debounce(mut raw: mpsc::Receiver<()>, tick: mpsc::Sender<()>) {
    while raw.recv().await.is_some() {
        let last_moment = Instant::now() + PATIENCE;
        while Instant::now() < last_moment {
            match tokio::time::timeout(QUIET, raw.recv()).await {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => break,
            }
        }
        if tick.is_closed() {
            return;
        }
        // One pending tick stands for all.
        let _ = tick.try_send(());
    }
}

/// Whether a change of `path` may change a workshop: of Git's own files only those that move a reference.
fn matters(root: &Path, is_bare: bool, path: &Path) -> bool {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let mut parts = relative.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    if !is_bare && !parts.by_ref().any(|name| name == ".git") {
        return true;
    }
    matches!(parts.next(), Some("HEAD" | "refs" | "packed-refs"))
        && relative.extension().is_none_or(|extension| extension != "lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is_bare: bool, path: &str, expected: bool) {
        assert_eq!(matters(Path::new("/r"), is_bare, &Path::new("/r").join(path)), expected, "{path}");
    }

    #[test]
    fn of_gits_own_files_only_references_matter() {
        check(false, "a/step-spec.yaml", true);
        check(false, ".git/index", false);
        check(false, ".git/objects/ab/cd", false);
        check(false, ".git/HEAD", true);
        check(false, ".git/refs/heads/main", true);
        check(false, ".git/refs/heads/main.lock", false);
        check(true, "refs/heads/main", true);
        check(true, "objects/ab/cd", false);
    }

    #[tokio::test]
    async fn a_change_below_gives_a_tick() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(directory.path()).unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        std::fs::write(directory.path().join("a/file"), "x").unwrap();
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("a tick in time").expect("a watch");
    }

    #[tokio::test]
    async fn a_missing_directory_is_an_error_that_names_it() {
        let error = Watch::start(Path::new("/nowhere/at/all")).err().unwrap();
        assert_eq!(error.to_string(), "failed to watch \"/nowhere/at/all\" for changes");
    }
}
