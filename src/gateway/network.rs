//! A port for workspaces on a network: the same one each time, with few connections and little patience.
//!
//! Who sends what is not decided here. Whoever connects may be a hostile container, so nothing waits for it for long.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long a request's head may take, and a connection be silent between two.
const HEAD: Duration = Duration::from_secs(15);
/// How long a request may take from its head on: the longest wait for a change and a body on a slow link.
const REQUEST: Duration = Duration::from_secs(120);
/// So many connections at once; each workspace has a handful.
const CONNECTIONS: usize = 1024;
/// How long accepting rests after the system refused it, so that a lack of file descriptors is no busy loop.
const REST: Duration = Duration::from_millis(100);

/// Listens on the port that the file names, where it is free; else on another one, which the file names from then on.
///
/// What was told an address finds us there after we were killed. The address need not be there yet: engines make their
/// bridges with the first container.
pub fn listen(address: IpAddr, file: &Path) -> io::Result<TcpListener> {
    let kept = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u16>().ok());
    let listener = match kept.map(|port| bind(SocketAddr::new(address, port))) {
        Some(Ok(listener)) => return Ok(listener),
        Some(Err(error)) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            return Err(error);
        }
        _ => bind(SocketAddr::new(address, 0))?,
    };
    std::fs::write(file, format!("{}\n", listener.local_addr()?.port()))?;
    Ok(listener)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of a program that was killed may still be closing.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, 1024)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `stop`; open requests end with it.
pub async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) -> io::Result<()> {
    serve_within(listener, routes, stop, (HEAD, REQUEST, CONNECTIONS)).await
}

async fn serve_within(
    listener: TcpListener,
    routes: Router,
    stop: CancellationToken,
    (head, request, connections): (Duration, Duration, usize),
) -> io::Result<()> {
    let bounded = move |asked: Request, next: Next| async move {
        tokio::time::timeout(request, next.run(asked)).await.map_err(|_| StatusCode::REQUEST_TIMEOUT)
    };
    let routes = routes.layer(middleware::from_fn(bounded));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let places = Arc::new(Semaphore::new(connections));
    let open = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(REST).await;
            continue;
        };
        // Closed at once, not kept waiting: those that are served go on.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%peer, "too many connections of workspaces");
            continue;
        };
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
        let stop = stop.clone();
        open.spawn(async move {
            let _place = place;
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection of a workspace broke off");
            }
        });
    }
    open.close();
    open.wait().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn the_port_stays_unless_somebody_else_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("port");
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let first = listen(loopback, &file).unwrap();
        let kept = port(&first);
        let second = listen(loopback, &file).unwrap();
        assert_ne!(port(&second), kept, "it is taken");
        let kept = port(&second);
        drop((first, second));
        assert_eq!(port(&listen(loopback, &file).unwrap()), kept);
        std::fs::write(&file, "nonsense").unwrap();
        assert!(listen(loopback, &file).is_ok());
        // The documentation's network: on no machine.
        assert!(listen("192.0.2.1".parse().unwrap(), &file).is_ok());
    }

    async fn start(limits: (Duration, Duration, usize)) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let routes = Router::new().route("/", get(async || "here")).route("/slow", get(std::future::pending::<()>));
        tokio::spawn(serve_within(listener, routes, stop.clone(), limits));
        (address, stop)
    }

    /// All that comes after `text` was sent, until the other side closes.
    async fn answer(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection is closed");
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn nobody_holds_a_connection_by_saying_little() {
        let (address, stop) = start((Duration::from_millis(200), Duration::from_millis(400), 8)).await;
        let ask = "GET / HTTP/1.1\r\nHost: x\r\n";
        assert!(answer(address, &format!("{ask}Connection: close\r\n\r\n")).await.ends_with("here"));
        // A head that does not end, and silence after a request.
        assert!(!answer(address, ask).await.contains("here"));
        assert!(answer(address, &format!("{ask}\r\n")).await.ends_with("here"));
        let slow = "GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert!(answer(address, slow).await.starts_with("HTTP/1.1 408"));
        stop.cancel();
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_is_turned_away() {
        let (address, stop) = start((Duration::from_secs(60), Duration::from_secs(60), 2)).await;
        let ask = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut piece = [0; 12];
            stream.read_exact(&mut piece).await.unwrap();
            held.push(stream);
        }
        assert_eq!(answer(address, ask).await, "");
        drop(held);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !answer(address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ends_with("here") {
            assert!(tokio::time::Instant::now() < deadline, "the places are free again");
        }
        stop.cancel();
    }
}
