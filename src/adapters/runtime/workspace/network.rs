//! The network of one workspace, from outside: its loopback interface, its routes, its way to the internet.
//!
//! Everything is done on a thread that has entered the container's network namespace, so no tool is needed for it; the
//! way out itself is `slirp4netns`, which translates to ordinary sockets of this machine. (`pasta` of today's
//! distributions gives up being root first and may then not enter the namespace.)

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::domain::container::Egress;

/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
/// Where the workspace's traffic leaves it: the addresses that `slirp4netns` has by default.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Who answers questions for names there.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// What is not the internet: private, shared, link-local, benchmark and multicast ranges.
const NOT_INTERNET: [([u8; 4], u8); 7] = [
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([224, 0, 0, 0], 4),
];
/// Everything, in two halves that go before the default route.
const EVERYTHING: [([u8; 4], u8); 2] = [([0, 0, 0, 0], 1), ([128, 0, 0, 0], 1)];

/// `slirp4netns`, which carries a namespace's traffic.
#[derive(Debug, Clone)]
pub struct Carrier(pub PathBuf);

impl Carrier {
    /// The command that attaches it to the namespace of `pid` and writes one byte to its output when it is ready.
    pub fn command(&self, pid: i32) -> Command {
        let mut command = Command::new(&self.0);
        // The machine's own loopback services are not theirs; and it reads what strangers send, so it is locked up.
        command
            .args(["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"])
            .args(["--ready-fd=1", &pid.to_string(), "tap0"]);
        command
    }
}

/// Brings up the loopback interface in the network namespace of `pid`. Blocking.
pub fn bring_up_loopback(pid: i32) -> io::Result<()> {
    in_namespace(pid, || {
        // ifinfomsg: family, padding, type, index, flags (up), mask of the flags that change.
        let mut body = vec![0, 0, 0, 0];
        body.extend(LOOPBACK.to_ne_bytes());
        body.extend(1_u32.to_ne_bytes());
        body.extend(1_u32.to_ne_bytes());
        request(RTM_NEWLINK, 0, &body)
    })
}

/// Limits where the namespace of `pid`, its carrier attached, may send to. Blocking.
pub fn limit_destinations(pid: i32, egress: &Egress) -> io::Result<()> {
    let routes = routes(egress);
    in_namespace(pid, move || routes.into_iter().try_for_each(add_route))
}

/// A destination and whether it is reachable.
type Route = (Ipv4Addr, u8, bool);

fn routes(egress: &Egress) -> Vec<Route> {
    let prohibited = |ranges: &[([u8; 4], u8)]| -> Vec<Route> {
        ranges.iter().map(|(address, prefix)| (Ipv4Addr::from(*address), *prefix, false)).collect()
    };
    match egress {
        Egress::None => prohibited(&EVERYTHING),
        Egress::Internet => prohibited(&NOT_INTERNET),
        Egress::Rules(rules) => {
            let allowed: Vec<Route> = rules
                .iter()
                .filter_map(|rule| {
                    let (address, prefix) = rule.cidr.split_once('/')?;
                    Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?, true))
                })
                .collect();
            if allowed.iter().any(|(_, prefix, _)| *prefix == 0) {
                return Vec::new();
            }
            let mut routes = prohibited(&EVERYTHING);
            // One route for each destination: an allowed half of everything replaces its prohibition.
            routes.retain(|(address, prefix, _)| !allowed.iter().any(|(a, p, _)| a == address && p == prefix));
            routes.extend(allowed);
            routes
        }
    }
}

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;

fn add_route((destination, prefix, is_allowed): Route) -> io::Result<()> {
    const INET: u8 = 2;
    const MAIN_TABLE: u8 = 254;
    const BY_ADMINISTRATOR: u8 = 4;
    const UNICAST: u8 = 1;
    const PROHIBIT: u8 = 8;
    const TO: u16 = 1;
    const VIA: u16 = 5;
    let kind = if is_allowed { UNICAST } else { PROHIBIT };
    // rtmsg: family, destination bits, source bits, tos, table, protocol, scope, type, flags.
    let mut body = vec![INET, prefix, 0, 0, MAIN_TABLE, BY_ADMINISTRATOR, 0, kind, 0, 0, 0, 0];
    let mut attribute = |kind: u16, value: Ipv4Addr| {
        body.extend(8_u16.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value.octets());
    };
    attribute(TO, network(destination, prefix));
    if is_allowed {
        attribute(VIA, GATEWAY);
    }
    match request(RTM_NEWROUTE, NLM_F_CREATE, &body) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The address without the bits that the kernel refuses in a route.
fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & mask)
}

/// One request to the kernel's routing socket, and its answer.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    const HEADER: usize = 16;
    // Protocol 0 is the one of interfaces and routes.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 4096];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    let answer = &answer[..length];
    let field = |from: usize| answer.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
    let is_status = answer.get(4..6) == Some(NLMSG_ERROR.to_ne_bytes().as_slice());
    match field(HEADER).map(i32::from_ne_bytes) {
        Some(0) if is_status => Ok(()),
        Some(error) if is_status => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("the kernel's answer about a network interface cannot be read")),
    }
}

/// Does the work on a thread of its own in the network namespace of `pid`.
fn in_namespace<T: Send>(pid: i32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the work in a network namespace was interrupted")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::workspace::EgressRule;

    #[test]
    fn destinations_are_what_the_settings_allow() {
        let rule = |cidr: &str| EgressRule { cidr: cidr.into(), ports: vec![] };
        let shown = |egress: &Egress| -> Vec<String> {
            let shown =
                |(address, prefix, allowed): Route| format!("{}{address}/{prefix}", if allowed { "+" } else { "-" });
            routes(egress).into_iter().map(shown).collect()
        };
        let rows: [(Egress, &[&str]); 4] = [
            (Egress::None, &["-0.0.0.0/1", "-128.0.0.0/1"]),
            (Egress::Rules(vec![rule("192.0.2.0/24"), rule("::/0")]), &["-0.0.0.0/1", "-128.0.0.0/1", "+192.0.2.0/24"]),
            (Egress::Rules(vec![rule("128.0.0.0/1")]), &["-0.0.0.0/1", "+128.0.0.0/1"]),
            (Egress::Rules(vec![rule("0.0.0.0/0"), rule("192.0.2.0/24")]), &[]),
        ];
        for (egress, expected) in rows {
            assert_eq!(shown(&egress), expected, "{egress:?}");
        }
        assert!(shown(&Egress::Internet).contains(&"-169.254.0.0/16".to_owned()));
    }

    #[test]
    fn a_route_names_its_network() {
        for (address, prefix, expected) in
            [([192, 0, 2, 9], 24, [192, 0, 2, 0]), ([1, 2, 3, 4], 32, [1, 2, 3, 4]), ([9, 9, 9, 9], 0, [0; 4])]
        {
            assert_eq!(network(address.into(), prefix), Ipv4Addr::from(expected));
        }
    }
}
