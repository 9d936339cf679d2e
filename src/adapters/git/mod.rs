//! Git repositories through a bare mirror of ours: what a name stands for, and the files of a commit.
//!
//! gix does the work, cut off from every configuration but ours: nothing of the user's Git set-up, no credential
//! helper, no prompt. There is never a checkout. Everything here blocks; callers are on a thread for that.

mod connect;
mod error;
mod local;
mod mirror;
mod resolve;
mod scan;

pub use connect::Credentials;
pub use error::{GitError, Problem};
pub use local::read_local_revision;
pub use mirror::{Deadline, Mirror};
pub use resolve::Resolved;
pub use scan::{Commit, Memo, Scan, ScannedUnit};
