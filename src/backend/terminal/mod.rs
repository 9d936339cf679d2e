//! The learner's terminal: one shell that outlives its connections, several viewers of its output.
//!
//! [`Terminal`] is all that the rest of the backend sees. The shell is run by `supervisor`, a connection by
//! `viewer`, what they share is in `hub`; `ttyd` and `v1` are the two wire protocols. `image_ttyd` puts the image's
//! own ttyd in place of all that.

mod hub;
mod image_ttyd;
mod pty;
mod ring;
mod size;
mod supervisor;
pub mod ttyd;
pub mod v1;
mod viewer;

use std::ffi::OsString;
use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Notify, mpsc, watch};

use super::exec::Identity;
use hub::Hub;
pub use size::Size;
pub use v1::Exit;

/// The longest message of a client, in bytes.
pub const LONGEST_MESSAGE: usize = 1 << 20;
/// Input that may wait for a program that does not read, in bytes.
const LONGEST_INPUT: usize = 1 << 20;
/// How long the last frame of a connection and its answer may take.
const CLOSING: Duration = Duration::from_secs(1);

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The system gave no random number for the session's id.
    #[error("failed to name the terminal's session")]
    Session,
}

/// The program in the terminal.
#[derive(Debug, Clone)]
pub struct Shell {
    /// Its path.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Who it runs as.
    pub user: Identity,
    /// Where it starts; `/` when that user cannot enter it.
    pub home: PathBuf,
    /// Its whole environment, but for `TERM`, which is set here.
    pub environment: Vec<(OsString, OsString)>,
}

/// The frames of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// ttyd's.
    Ttyd,
    /// Ours, `workshop.tty.v1`.
    V1,
}

/// What a viewer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look, type and size.
    ReadWrite,
    /// Look.
    ReadOnly,
}

/// Counts since the terminal began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalMetrics {
    /// Bytes typed.
    pub bytes_in: u64,
    /// Bytes that shells wrote.
    pub bytes_out: u64,
    /// Connections now.
    pub viewers: usize,
    /// Shells started after the first one.
    pub restarts: u64,
}

/// The `ttyd` of the image, where a workshop wants that one.
#[derive(Debug, Clone)]
pub struct ImageTtyd {
    /// Its path.
    pub program: PathBuf,
    /// A directory that the shell's user may write to; the socket `ttyd.sock` is made in it.
    pub directory: PathBuf,
}

/// What the rest of the backend wishes of the supervisor.
#[derive(Debug)]
enum Command {
    Restart,
    End,
}

/// Waits until a client that was sent a close has gone. It answers, and may be writing: a connection that is cut under it
/// takes the close with it.
async fn see_off(stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin)) {
    while let Some(Ok(_)) = stream.next().await {}
}

/// What supervisor and viewers share.
struct Shared {
    hub: Mutex<Hub>,
    /// Counts changes that viewers may want to know of.
    changed: watch::Sender<u64>,
    /// The supervisor should look at the hub again.
    nudge: Notify,
    input: mpsc::UnboundedSender<Bytes>,
    /// Bytes in `input`, which bounds it.
    input_waiting: AtomicUsize,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    starts: AtomicU64,
    /// Connections to the image's ttyd.
    proxied: AtomicUsize,
    activity: Arc<dyn Fn() + Send + Sync>,
    on_exit: Arc<dyn Fn(Exit) + Send + Sync>,
}

impl Shared {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_viewers(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }
}

/// A terminal; clones are the same one. It ends with [`Terminal::end`] or with the last clone.
#[derive(Clone)]
pub struct Terminal {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    ended: watch::Receiver<bool>,
    /// Where the image's ttyd listens, if it is what serves.
    socket: Option<PathBuf>,
}

impl Debug for Terminal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Terminal").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}

impl Terminal {
    /// Starts the shell. Must be called in a runtime.
    ///
    /// `activity` is called when somebody types, opens or resizes the terminal, not for output: a running `top` keeps
    /// nobody's workspace awake. `on_exit` is called at each end of a shell. A shell that cannot be started is such
    /// an end, and the reason is shown in the terminal.
    pub fn start(
        shell: Shell,
        activity: Arc<dyn Fn() + Send + Sync>,
        on_exit: Arc<dyn Fn(Exit) + Send + Sync>,
    ) -> Result<Self, TerminalError> {
        let (shared, typed) = new_shared(&shell, activity, on_exit)?;
        let (commands, wishes) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(false);
        let supervisor = supervisor::Supervisor::new(shell, Arc::clone(&shared), typed, wishes);
        tokio::spawn(async move {
            supervisor.run().await;
            end.send_replace(true);
        });
        Ok(Self { shared, commands, ended, socket: None })
    }

    /// Starts the image's ttyd instead, which starts a shell for each connection. Must be called in a runtime.
    ///
    /// Only its protocol is served, and nobody can watch. `on_exit` is called when ttyd itself ends.
    pub fn start_ttyd(
        shell: Shell,
        ttyd: ImageTtyd,
        activity: Arc<dyn Fn() + Send + Sync>,
        on_exit: Arc<dyn Fn(Exit) + Send + Sync>,
    ) -> Result<Self, TerminalError> {
        let (shared, _) = new_shared(&shell, activity, on_exit)?;
        let (commands, wishes) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(false);
        let socket = Some(image_ttyd::socket(&ttyd));
        let supervised = Arc::clone(&shared);
        tokio::spawn(async move {
            image_ttyd::supervise(&shell, &ttyd, &supervised, wishes).await;
            end.send_replace(true);
        });
        Ok(Self { shared, commands, ended, socket })
    }

    /// Answers a request for a WebSocket: with the better protocol that the client offers, or 400.
    pub fn upgrade(&self, upgrade: WebSocketUpgrade, access: Access) -> Response {
        if self.socket.is_some() && access == Access::ReadOnly {
            let message = "each connection to the image's ttyd has a shell of its own: there is nothing to watch\n";
            return (StatusCode::FORBIDDEN, message).into_response();
        }
        let known: &[&'static str] = match &self.socket {
            None => &[v1::PROTOCOL, ttyd::PROTOCOL],
            Some(_) => &[ttyd::PROTOCOL],
        };
        let upgrade =
            upgrade.protocols(known.iter().copied()).max_message_size(LONGEST_MESSAGE).max_frame_size(LONGEST_MESSAGE);
        let protocol = match upgrade.selected_protocol() {
            Some(name) if name == v1::PROTOCOL => Protocol::V1,
            Some(_) => Protocol::Ttyd,
            None => {
                let message = format!("the subprotocol must be {}\n", known.join(" or "));
                return (StatusCode::BAD_REQUEST, message).into_response();
            }
        };
        let terminal = self.clone();
        upgrade.on_upgrade(move |socket| async move { terminal.serve(socket, protocol, access).await })
    }

    /// Serves one viewer until its connection or the terminal ends.
    pub async fn serve(&self, socket: WebSocket, protocol: Protocol, access: Access) {
        match &self.socket {
            None => viewer::serve(&self.shared, socket, protocol, access).await,
            Some(path) => image_ttyd::proxy(&self.shared, socket, path).await,
        }
    }

    /// A new shell in place of the present one, which is hung up; also after too many quick ends.
    pub fn restart(&self) {
        // The other side is gone only after the end, when there is nothing to restart.
        let _ = self.commands.send(Command::Restart);
    }

    /// Hangs up the shell's whole session and closes the viewers. Takes less than 1.5 s.
    pub async fn end(&self) {
        let _ = self.commands.send(Command::End);
        let mut ended = self.ended.clone();
        // An error means that the supervisor is gone, which is an end as well.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// The counts.
    pub fn metrics(&self) -> TerminalMetrics {
        TerminalMetrics {
            bytes_in: self.shared.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.shared.bytes_out.load(Ordering::Relaxed),
            viewers: self.shared.hub().viewers() + self.shared.proxied.load(Ordering::Relaxed),
            restarts: self.shared.starts.load(Ordering::Relaxed).saturating_sub(1),
        }
    }
}

/// What supervisor and viewers share, and the other end of the input.
fn new_shared(
    shell: &Shell,
    activity: Arc<dyn Fn() + Send + Sync>,
    on_exit: Arc<dyn Fn(Exit) + Send + Sync>,
) -> Result<(Arc<Shared>, mpsc::UnboundedReceiver<Bytes>), TerminalError> {
    let (input, typed) = mpsc::unbounded_channel();
    let shared = Shared {
        hub: Mutex::new(Hub::new(new_session()?, title_of(shell))),
        changed: watch::Sender::new(0),
        nudge: Notify::new(),
        input,
        input_waiting: AtomicUsize::new(0),
        bytes_in: AtomicU64::new(0),
        bytes_out: AtomicU64::new(0),
        starts: AtomicU64::new(0),
        proxied: AtomicUsize::new(0),
        activity,
        on_exit,
    };
    Ok((Arc::new(shared), typed))
}

/// Names the one process that counts offsets this way.
fn new_session() -> Result<String, TerminalError> {
    let random: [u8; 16] =
        ::ring::rand::generate(&::ring::rand::SystemRandom::new()).map_err(|_| TerminalError::Session)?.expose();
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// As ttyd does: the command and the host.
fn title_of(shell: &Shell) -> String {
    let name = shell.program.file_name().unwrap_or(shell.program.as_os_str());
    let host = rustix::system::uname();
    format!("{} ({})", name.to_string_lossy(), host.nodename().to_string_lossy())
}
