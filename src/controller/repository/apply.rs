//! Fourth beat: carries the sync out, and stops it early for a newer commit or a newer spec.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Fuse, FusedFuture};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::mailbox::{Mailbox, Wake};
use crate::pipeline::sync::{Error, Event, Sync, SyncReport, Trigger};

/// How a sync ended.
pub(super) enum Applied {
    /// It ran to its end.
    Done(Box<Result<SyncReport, Error>>),
    /// A newer commit or spec makes it pointless.
    Overtaken,
    /// The worker has to end.
    Stopped,
}

/// What a sync needs besides itself.
pub(super) struct Around<'a> {
    pub(super) trigger: Trigger,
    /// How often the source is asked for something newer meanwhile.
    pub(super) interval: Duration,
    pub(super) stop: &'a CancellationToken,
    pub(super) mailbox: &'a mut Mailbox,
    /// Is told the revision once work on it has begun.
    pub(super) begun: mpsc::UnboundedSender<String>,
}

/// Runs the sync.
///
/// A command that builds for an hour must not keep an urgent fix waiting, so the source is asked on while the sync
/// runs; what was built by then is found again by its key.
pub(super) async fn run(sync: &Arc<Sync>, around: Around<'_>) -> Applied {
    let Around { trigger, interval, stop, mailbox, begun } = around;
    let cancel = stop.child_token();
    let running = Arc::new(Mutex::new(None::<String>));
    let mut work = spawn(Arc::clone(sync), trigger, cancel.clone(), Arc::clone(&running), begun);
    let asking = Fuse::terminated();
    tokio::pin!(asking);
    let mut overtaken = false;
    let mut look = Instant::now() + interval;
    loop {
        tokio::select! {
            result = &mut work => {
                return match (stop.is_cancelled(), overtaken, result) {
                    (true, ..) => Applied::Stopped,
                    (_, true, _) => Applied::Overtaken,
                    (.., Ok(result)) => Applied::Done(Box::new(result)),
                    // A panic is the worker's own: whoever watches it begins anew.
                    (.., Err(error)) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => Applied::Stopped,
                    },
                };
            }
            wake = mailbox.receive(), if !overtaken => match wake {
                None => return Applied::Stopped,
                Some(Wake::SpecChanged) => overtaken = true,
                Some(Wake::LookNow) => look = Instant::now(),
                Some(Wake::Later) => {}
            },
            () = sleep_until(look), if !overtaken && asking.is_terminated() => {
                look = Instant::now() + interval;
                asking.set(sync.origin.resolve(&sync.reference).fuse());
            }
            head = &mut asking, if !asking.is_terminated() => {
                let running = running.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // What is wrong with the source now is told by the next sync.
                if let (Some(running), Ok(head)) = (running, head) {
                    overtaken = head.revision.is_some_and(|revision| revision.to_string() != running);
                }
            }
        }
        if overtaken {
            cancel.cancel();
        }
    }
}

/// Starts the sync on a thread of its own: it reads, hashes and compresses, which must not hold up other repositories.
fn spawn(
    sync: Arc<Sync>,
    trigger: Trigger,
    cancel: CancellationToken,
    running: Arc<Mutex<Option<String>>>,
    begun: mpsc::UnboundedSender<String>,
) -> JoinHandle<Result<SyncReport, Error>> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let listener = |event: Event<'_>| {
            if let Event::Resolved { revision } = event {
                // Only whole values are put in, so a panic elsewhere leaves it sound.
                *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(revision.to_owned());
                let _ = begun.send(revision.to_owned());
            }
        };
        runtime.block_on(sync.run(trigger, &cancel, &listener))
    })
}
