//! HTTP to what listens on this machine for us alone: a workspace's backend, or the control socket of `workshop up`.
//!
//! One connection per request, bodies streamed both ways. What may be asked and what of an answer is believed is the
//! caller's matter; the other side may be hostile.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use tokio::net::{TcpStream, UnixStream};

use crate::domain::container::Address;

/// How long the other side may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long after a try to connect the next one begins, also where the first goes on.
const AGAIN: Duration = Duration::from_millis(100);
/// The most bytes of an answer's status line and headers.
const MAX_HEAD: usize = 64 << 10;
/// How long a backend may take to take in an artifact.
const PUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that is read whole.
const MAX_TEXT: usize = 8 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nobody listens, or nobody accepts in time.
    #[error("failed to connect to {address}")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The other side was too slow.
    #[error("{address} did not answer within {patience:?}")]
    TimedOut {
        /// The address.
        address: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// What came is no HTTP, or it ended early.
    #[error("failed to speak HTTP with {address}")]
    Http {
        /// The address.
        address: String,
        /// Why.
        source: hyper::Error,
    },
    /// The answer was another than the one hoped for.
    #[error("{address} answered {status}: {text}")]
    Refused {
        /// The address.
        address: String,
        /// The status.
        status: StatusCode,
        /// The answer's text, cut.
        text: String,
    },
    /// The answer is larger than what is read.
    #[error("the answer of {address} is larger than {} MiB", MAX_TEXT >> 20)]
    TooLarge {
        /// The address.
        address: String,
    },
    /// The request cannot be built.
    #[error("failed to build a request")]
    Request(#[from] hyper::http::Error),
}

/// Sends one request and gives the answer as soon as its head is there, which must be within `patience`; the body
/// follows as it comes, and dropping it closes the connection. The path is sent as it is.
pub async fn send(
    address: &Address,
    request: Request<Body>,
    patience: Duration,
) -> Result<Response<Incoming>, UpstreamError> {
    send_by_any(std::slice::from_ref(address), request, Duration::ZERO, patience).await
}

/// As [`send`], by whichever of the ways to the same place is open first; where none is, all are tried again until
/// `connecting` is over.
///
/// In a cluster a workspace that is ready is reached a moment later only. What was sent meanwhile may be on its way to an
/// address that nobody has any more, and would not be answered for seconds: so each try has its own connection, and a
/// later one may win.
pub async fn send_by_any(
    ways: &[Address],
    request: Request<Body>,
    connecting: Duration,
    patience: Duration,
) -> Result<Response<Incoming>, UpstreamError> {
    let (address, mut sender) = open_any(ways, connecting).await?;
    let answer = tokio::time::timeout(patience, sender.send_request(request)).await;
    let answer = answer.map_err(|_| UpstreamError::TimedOut { address: show(address), patience })?;
    answer.map_err(|source| UpstreamError::Http { address: show(address), source })
}

/// The first connection that comes about. Ways are tried in turn, each once at least.
async fn open_any(
    ways: &[Address],
    connecting: Duration,
) -> Result<(&Address, http1::SendRequest<Body>), UpstreamError> {
    let until = tokio::time::Instant::now() + connecting;
    let mut pace = tokio::time::interval(AGAIN);
    let mut turns = ways.iter().cycle();
    let mut begun = 0;
    let mut tries = FuturesUnordered::new();
    let mut failure = None;
    loop {
        let may_begin = begun < ways.len() || tokio::time::Instant::now() < until;
        tokio::select! {
            biased;
            Some((address, opened)) = tries.next(), if !tries.is_empty() => match opened {
                Ok(sender) => return Ok((address, sender)),
                Err(error @ UpstreamError::Connect { .. }) => failure = Some(error),
                Err(error) => return Err(error),
            },
            _ = pace.tick(), if may_begin => {
                begun += 1;
                tries.extend(turns.next().map(|address| async move { (address, open(address).await) }));
            }
            else => return Err(failure.unwrap_or_else(|| UpstreamError::Connect {
                address: "no address".to_owned(),
                source: std::io::ErrorKind::AddrNotAvailable.into(),
            })),
        }
    }
}

/// A connection to the address, which nothing was sent on yet.
async fn open(address: &Address) -> Result<http1::SendRequest<Body>, UpstreamError> {
    let connected = |source| UpstreamError::Connect { address: show(address), source };
    let timed_out = |_| connected(std::io::ErrorKind::TimedOut.into());
    let sender = match address {
        Address::Unix(path) => {
            let stream = tokio::time::timeout(CONNECT, connect(path)).await;
            start(stream.map_err(timed_out)?.map_err(connected)?).await
        }
        Address::Tcp(address) => {
            let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
            let stream = stream.map_err(timed_out)?.map_err(connected)?;
            // A key press is one small segment; it must not wait for the next.
            let _ = stream.set_nodelay(true);
            start(stream).await
        }
    };
    sender.map_err(|source| UpstreamError::Http { address: show(address), source })
}

/// Connects to the socket at `path`, which must be one itself: who is root in a workspace can put a link there instead,
/// and a link would lead to any socket of the machine.
async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, place | OFlags::DIRECTORY, Mode::empty())?;
    let socket = openat(&directory, name, place | OFlags::NOFOLLOW, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no socket"));
    }
    // What was looked at is what is connected to, whatever has its name by now.
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

async fn start<S>(stream: S) -> Result<http1::SendRequest<Body>, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new().max_header_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    // It ends by itself when request and answer are done or dropped.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// Sends one request and reads the whole answer.
pub async fn fetch(
    address: &Address,
    request: Request<Body>,
    patience: Duration,
) -> Result<(StatusCode, Vec<u8>), UpstreamError> {
    let reading = async {
        let response = send(address, request, patience).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| UpstreamError::Http { address: show(address), source })?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            if bytes.len() > MAX_TEXT {
                return Err(UpstreamError::TooLarge { address: show(address) });
            }
        }
        Ok((status, bytes))
    };
    let timed_out = |_| UpstreamError::TimedOut { address: show(address), patience };
    tokio::time::timeout(patience, reading).await.map_err(timed_out)?
}

/// Whether the backend at `address` says within this time that it is ready.
pub async fn is_ready(address: &Address, within: Duration) -> bool {
    let request = Request::builder().method(Method::GET).uri("/readyz").header(header::HOST, "workspace");
    let Ok(request) = request.body(Body::empty()) else { return false };
    let answer = fetch(address, request, within).await;
    answer.is_ok_and(|(status, _)| status.is_success())
}

/// Hands a running backend a newer artifact of its workshop: new texts show at once, nothing is restarted. `base_path`
/// has slashes at both ends; `token` is one of an instructor of that instance.
pub async fn put_artifact(
    address: &Address,
    base_path: &str,
    token: &str,
    artifact: Vec<u8>,
) -> Result<(), UpstreamError> {
    let request = Request::builder()
        .method(Method::PUT)
        .uri(format!("{base_path}api/v1/artifact"))
        .header(header::HOST, "workspace")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/vnd.sqlite3")
        .body(Body::from(artifact))?;
    let (status, text) = fetch(address, request, PUT).await?;
    if status.is_success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text).chars().take(500).collect();
    Err(UpstreamError::Refused { address: show(address), status, text })
}

/// The address for people.
#[must_use]
pub fn show(address: &Address) -> String {
    match address {
        Address::Unix(path) => format!("\"{}\"", path.display()),
        Address::Tcp(address) => address.to_string(),
    }
}

/// The control socket of a state directory.
#[must_use]
pub fn control_socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_listens_a_moment_later_is_reached_by_who_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("late.sock");
        let address = Address::Unix(path.clone());
        let ask = || Request::builder().uri("/").header(header::HOST, "x").body(Body::empty()).unwrap();
        let error = send(&address, ask(), CONNECT).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Connect { .. }), "{error}");
        let ways = [address];
        let waiting = send_by_any(&ways, ask(), 50 * CONNECT, CONNECT);
        tokio::pin!(waiting);
        // It was tried and refused before anybody listens.
        assert!(tokio::time::timeout(AGAIN / 2, &mut waiting).await.is_err());
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        tokio::spawn(axum::serve(listener, axum::Router::new().fallback(async || "here")).into_future());
        assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    }

    /// Which of the ways opens: `up` answers, `down` refuses, and to `deaf` a connection does not come about.
    async fn check(ways: &[&str], connecting: Duration, expected: Option<usize>) {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let listener = tokio::net::UnixListener::bind(at("up")).unwrap();
        tokio::spawn(axum::serve(listener, axum::Router::new().fallback(async || "here")).into_future());
        let deaf = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&deaf, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&deaf, 0).unwrap();
        let deaf_at = std::net::SocketAddr::try_from(getsockname(&deaf).unwrap()).unwrap();
        // Nobody accepts, and the one place to wait in is taken.
        let _waits = std::net::TcpStream::connect(deaf_at).unwrap();
        let address = |name: &&str| if *name == "deaf" { Address::Tcp(deaf_at) } else { Address::Unix(at(name)) };
        let addresses: Vec<Address> = ways.iter().map(address).collect();
        let opened = open_any(&addresses, connecting).await.ok();
        let found = opened.and_then(|(opened, _)| addresses.iter().position(|address| address == opened));
        assert_eq!(found, expected, "{ways:?}");
    }

    #[tokio::test]
    async fn the_first_way_that_opens_is_taken() {
        check(&["up"], Duration::ZERO, Some(0)).await;
        check(&["down", "up"], Duration::ZERO, Some(1)).await;
        check(&["deaf", "up"], Duration::ZERO, Some(1)).await;
        check(&["deaf", "down", "up"], Duration::ZERO, Some(2)).await;
        check(&["down"], Duration::ZERO, None).await;
        check(&["down", "down"], AGAIN * 3, None).await;
        check(&["deaf"], Duration::ZERO, None).await;
        check(&[], Duration::ZERO, None).await;
    }

    #[tokio::test]
    async fn only_a_socket_itself_is_connected_to() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let _listener = tokio::net::UnixListener::bind(at("backend.sock")).unwrap();
        std::os::unix::fs::symlink(at("backend.sock"), at("link.sock")).unwrap();
        std::os::unix::fs::symlink(directory.path(), at("folder")).unwrap();
        std::fs::write(at("file.sock"), "").unwrap();
        for (name, expected) in
            [("backend.sock", true), ("link.sock", false), ("file.sock", false), ("folder", false), ("none", false)]
        {
            assert_eq!(connect(&at(name)).await.is_ok(), expected, "{name}");
        }
    }
}
