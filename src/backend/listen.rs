//! Where the backend listens: port 7681, or the Unix socket that `WORKSHOP_LISTEN` names.
//!
//! Knows addresses and sockets; what is served on them comes from outside.

use std::fmt::{self, Display};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// The port of the container contract.
const PORT: u16 = 7681;
const VARIABLE: &str = "WORKSHOP_LISTEN";

/// Why there is nothing to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The value is neither empty nor `unix:` and an absolute path.
    #[error("WORKSHOP_LISTEN is \"{0}\", which is not \"unix:\" and an absolute path")]
    Address(String),
    /// The address cannot be bound.
    #[error("failed to listen on {address}")]
    Bind {
        /// The address.
        address: Listen,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP, all addresses.
    Port(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(formatter, "port {port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// What `WORKSHOP_LISTEN` says, or the port of the container contract.
    pub fn from_environment() -> Result<Self, ListenError> {
        match std::env::var_os(VARIABLE) {
            None => Ok(Self::Port(PORT)),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    /// Parses a value of `WORKSHOP_LISTEN`; empty means the default.
    pub fn parse(value: &str) -> Result<Self, ListenError> {
        if value.is_empty() {
            return Ok(Self::Port(PORT));
        }
        match value.strip_prefix("unix:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Self::Unix(path.into())),
            _ => Err(ListenError::Address(value.to_owned())),
        }
    }

    /// Binds the address.
    pub async fn bind(self) -> Result<Listener, ListenError> {
        let sockets = match &self {
            Self::Port(port) => bind_port(*port).await.map(Sockets::Tcp),
            Self::Unix(path) => bind_unix(path).map(Sockets::Unix),
        };
        match sockets {
            Ok(sockets) => Ok(Listener { address: self, sockets }),
            Err(source) => Err(ListenError::Bind { address: self, source }),
        }
    }
}

/// Both families in one socket where the system has IPv6, else IPv4 alone.
async fn bind_port(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

/// A socket file of an earlier process is taken away; anything else at the path stays and is an error.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // The other side of the mount is another user; who may reach the socket is decided by its directory.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    address: Listen,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}

impl Listener {
    /// Serves the routes until `stopping` turns true, then lets open requests end.
    pub fn serve(self, routes: Router, stopping: watch::Receiver<bool>) -> impl Future<Output = io::Result<()>> + Send {
        let stop = async move {
            let mut stopping = stopping;
            // An error means that the sender is gone, which is an end as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        async move {
            match self.sockets {
                Sockets::Tcp(listener) => axum::serve(listener, routes).with_graceful_shutdown(stop).await,
                Sockets::Unix(listener) => axum::serve(listener, routes).with_graceful_shutdown(stop).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<Listen>) {
        assert_eq!(Listen::parse(value).ok(), expected, "{value:?}");
    }

    #[test]
    fn a_listen_address_is_a_unix_socket_or_the_port() {
        check("", Some(Listen::Port(7681)));
        check("unix:/run/workshop.sock", Some(Listen::Unix("/run/workshop.sock".into())));
        check("unix:workshop.sock", None);
        check("unix:", None);
        check("127.0.0.1:80", None);
    }
}
