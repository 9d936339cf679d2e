//! The learner's files over HTTP, with the learner's own rights.
//!
//! A child of the same program that has dropped privileges does all of it, and the kernel's permissions decide. The
//! learner may do anything to that child, so what it says is believed only as far as its caps reach.

mod archive;
mod client;
mod protocol;
mod worker;

pub use client::{FilesClient, FilesError};
pub use protocol::{Entry, FailureKind, MAX_CONTENT};

use std::ffi::OsStr;
use std::process::ExitCode;

/// The hidden mode of the program.
pub const MODE: &str = "files";
/// The mode's argument that makes it write an archive and end.
const ARCHIVE: &str = "archive";

/// Runs the helper mode if the arguments ask for it; `None` otherwise. To be called before any thread exists.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(MODE)) {
        return None;
    }
    // Its owner is the learner, whose debugger has no business here.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let done = match (arguments.next(), arguments.next()) {
        (Some(what), Some(path)) if what == ARCHIVE => archive::write(std::io::stdout().lock(), path.as_ref()),
        _ => worker::serve(std::io::stdin().lock(), std::io::stdout().lock()),
    };
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests;
