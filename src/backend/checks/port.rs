//! Facts of local ports, from `/proc/net/{tcp,tcp6,udp,udp6}`.
//!
//! TCP counts when it listens, UDP when it is bound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fact::{Fact, failed, read_text, reason, unknown, value};

const LISTEN: &str = "0A";
const MAX_SIZE: u64 = 64 << 20;

pub fn fact(protocol: &str, port: u16, attribute: &str) -> Fact {
    let path = format!("/proc/self/net/{protocol}");
    let table = match read_table(&path) {
        // A kernel without IPv6 has no such table.
        Ok(table) => table.unwrap_or_default(),
        Err(error) => return failed(format!("cannot read {path}: {}", reason(&error))),
    };
    let addresses = parse(&table, port, protocol.starts_with("tcp"));
    match attribute {
        "listening" => value(!addresses.is_empty()),
        "ip" => value(addresses),
        other => unknown(format!("a port has no attribute \"{other}\"")),
    }
}

fn read_table(path: &str) -> std::io::Result<Option<String>> {
    read_text(path, MAX_SIZE)
}

/// The local addresses of `port`, each once.
fn parse(table: &str, port: u16, listening_only: bool) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for line in table.lines().skip(1) {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Some((address, number)) = local.split_once(':') else { continue };
        if u16::from_str_radix(number, 16) != Ok(port) || (listening_only && state != LISTEN) {
            continue;
        }
        if let Some(address) = parse_address(address).map(|address| address.to_string())
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// Words of 32 bits in the machine's order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |text: &str| Some(u32::from_str_radix(text, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(text)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(text.get(index * 8..index * 8 + 8)?)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use serde_json::json;

    use super::*;
    use crate::domain::goss::Found;

    #[test]
    fn a_port_is_open_while_something_listens() {
        // An address that no other test uses: its port may be taken again at once.
        let listener = TcpListener::bind("127.83.1.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_there = || {
            let Ok(Found::Value(addresses)) = fact("tcp", port, "ip") else { panic!("the table can be read") };
            addresses.as_array().is_some_and(|addresses| addresses.contains(&json!("127.83.1.1")))
        };
        assert_eq!(fact("tcp", port, "listening"), value(true));
        assert!(is_there());
        drop(listener);
        // What another test starts at this moment holds it open until it has become its program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while is_there() {
            assert!(std::time::Instant::now() < deadline, "port {port} stays open");
        }

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(fact("udp", socket.local_addr().unwrap().port(), "listening"), value(true));
        if let Ok(listener) = TcpListener::bind("[::1]:0") {
            let port = listener.local_addr().unwrap().port();
            assert_eq!(fact("tcp6", port, "ip"), value(json!(["::1"])));
            assert_eq!(fact("tcp6", port, "listening"), value(true));
        }
    }
}
