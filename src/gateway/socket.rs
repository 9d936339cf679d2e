//! The control socket of a state directory: a Unix socket that answers its own user only.
//!
//! It decides who is heard; what is said is the control API.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

use super::server::{Gateway, serve_until};

/// How long accepting rests after the system refused it, so that a lack of file descriptors is no busy loop.
const REST: Duration = Duration::from_millis(100);

/// A listening Unix socket that hears only processes of this user and of root.
pub struct OwnSocket(UnixListener);

impl OwnSocket {
    /// Binds the path; the socket of a program that ended is replaced, anything else there is an error.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path);
        if found.is_ok_and(|found| found.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }
}

impl Listener for OwnSocket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    let uid = stream.peer_cred().map(|peer| peer.uid());
                    if uid.is_ok_and(|uid| uid == rustix::process::geteuid().as_raw() || uid == 0) {
                        return (stream, address);
                    }
                    tracing::warn!("another user tried the control socket");
                }
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Serves the control API until the gateway is stopped.
pub async fn serve(gateway: Gateway, socket: OwnSocket) -> io::Result<()> {
    serve_until(socket, gateway.control_routes(), gateway.settings().stop.clone()).await
}
