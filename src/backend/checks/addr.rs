//! Whether something answers at an address.
//!
//! A UDP address counts as reachable when it can be sent to, as goss has it: nobody has to answer there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, UdpSocket, lookup_host};

use super::fact::{Fact, unknown, value};

pub async fn reachable(address: &str, local: Option<&str>, timeout: Duration) -> Fact {
    let (protocol, target) = address.split_once("://").unwrap_or(("tcp", address));
    if !matches!(protocol, "tcp" | "tcp4" | "tcp6" | "udp" | "udp4" | "udp6") {
        return unknown(format!("\"{address}\" is no address: write `tcp://host:port` or `udp://host:port`"));
    }
    if target.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return unknown(format!("\"{address}\" has no port"));
    }
    let local = match local.map(str::parse::<IpAddr>) {
        None => None,
        Some(Ok(local)) => Some(local),
        Some(Err(_)) => return unknown("the local address is no IP address"),
    };
    let trying = async {
        let Ok(targets) = lookup_host(target).await else { return false };
        let wanted = |target: &SocketAddr| match protocol.as_bytes().last() {
            Some(b'4') => target.is_ipv4(),
            Some(b'6') => target.is_ipv6(),
            _ => true,
        };
        for target in targets.filter(wanted).take(16) {
            let connected = if protocol.starts_with("udp") {
                connect_udp(target, local).await
            } else {
                connect_tcp(target, local).await
            };
            if connected.is_ok() {
                return true;
            }
        }
        false
    };
    value(tokio::time::timeout(timeout, trying).await.unwrap_or(false))
}

async fn connect_tcp(target: SocketAddr, local: Option<IpAddr>) -> std::io::Result<()> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local {
        socket.bind((local, 0).into())?;
    }
    socket.connect(target).await.map(drop)
}

async fn connect_udp(target: SocketAddr, local: Option<IpAddr>) -> std::io::Result<()> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((local.unwrap_or(any), 0)).await?;
    socket.connect(target).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_reachable_and_a_closed_port_is_not() {
        // An address that no other test uses: its port may be taken again at once.
        let listener = tokio::net::TcpListener::bind("127.83.1.2:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let long = Duration::from_secs(30);
        assert_eq!(reachable(&address, None, long).await, value(true));
        assert_eq!(reachable(&address, Some("127.0.0.1"), long).await, value(true));
        drop(listener);
        // What another test starts at this moment holds it open until it has become its program.
        let deadline = std::time::Instant::now() + long;
        while reachable(&address, None, long).await != value(false) {
            assert!(std::time::Instant::now() < deadline, "{address} stays open");
        }
        assert_eq!(reachable("udp://127.0.0.1:9", None, long).await, value(true));
        assert!(reachable("ftp://127.0.0.1:9", None, long).await.is_err());
        assert!(reachable("tcp://127.0.0.1", None, long).await.is_err());
        assert!(reachable("tcp://127.0.0.1:9", Some("here"), long).await.is_err());
    }
}
