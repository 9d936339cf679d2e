//! The runtimes of this machine, as the operator asks them.
//!
//! Nothing is decided here.

use std::time::Duration;

use futures_util::StreamExt as _;

use super::Containers;
use crate::domain::chain;
use crate::domain::container::{Found, WorkspaceSpec};
use crate::pipeline::runtime_end::RuntimeEnd;

/// The last words of a container are cut to this, in bytes.
const MAX_WORDS: usize = 600;
/// So many lines of them are told.
const LINES: usize = 5;
/// How long they may take to come.
const PATIENCE: Duration = Duration::from_secs(2);

impl Containers for RuntimeEnd {
    async fn prepare(&self, image: &str) -> Result<(), String> {
        Self::prepare(self, image).await.map_err(|error| chain::line(&error))
    }

    async fn start(&self, spec: &WorkspaceSpec, fingerprint: &str) -> Result<Found, String> {
        Self::start(self, spec, fingerprint).await.map_err(|error| chain::line(&error))
    }

    async fn stop(&self, uid: &str, grace: Duration) -> Result<(), String> {
        Self::stop(self, uid, grace).await.map_err(|error| chain::line(&error))
    }

    async fn list(&self) -> Result<Vec<Found>, String> {
        Self::list(self).await.map_err(|error| chain::line(&error))
    }

    async fn last_words(&self, uid: &str) -> String {
        let read = async {
            let mut stream = self.logs(uid, false).await.ok()?;
            let mut end: Vec<u8> = Vec::new();
            while let Some(Ok(bytes)) = stream.next().await {
                end.extend_from_slice(&bytes);
                if end.len() > 2 * MAX_WORDS {
                    end.drain(..end.len() - MAX_WORDS);
                }
            }
            Some(end)
        };
        let end = tokio::time::timeout(PATIENCE, read).await.ok().flatten().unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&end))
    }
}

/// The last lines of an output, in one line for people, without what a terminal would act on.
fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].join(" / ");
    let plain: String = shown.chars().filter(|character| !character.is_control()).collect();
    let skipped = plain.chars().count().saturating_sub(MAX_WORDS);
    plain.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_told_in_one_without_control_characters() {
        assert_eq!(last_lines(""), "");
        assert_eq!(last_lines("a\n\nb \r\nc\n"), "a / b / c");
        assert_eq!(last_lines("1\n2\n3\n4\n5\n6\n\u{1b}[31m7"), "3 / 4 / 5 / 6 / [31m7");
        assert_eq!(last_lines(&"x".repeat(2_000)).len(), MAX_WORDS);
    }
}
