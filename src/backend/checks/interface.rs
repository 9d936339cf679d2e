//! Facts of network interfaces, from `/sys/class/net` and `/proc/net`.
//!
//! Addresses come with the length of their prefix, as goss shows them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::fact::{Fact, failed, read_text, reason, unknown, value};

const MAX_SIZE: u64 = 16 << 20;

pub fn fact(name: &str, attribute: &str) -> Fact {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return unknown(format!("\"{name}\" is no name of a network interface"));
    }
    let directory = PathBuf::from("/sys/class/net").join(name);
    let exists = if Path::new("/sys/class/net").exists() { directory.exists() } else { in_table(name)? };
    if attribute == "exists" {
        return value(exists);
    }
    if !exists {
        return failed(format!("there is no network interface \"{name}\""));
    }
    match attribute {
        "mtu" => match read_text(directory.join("mtu"), 64) {
            Ok(Some(text)) => text.trim().parse::<u32>().map_or_else(|_| unknown("the mtu is no number"), value),
            Ok(None) => unknown("the system does not tell the mtu"),
            Err(error) => unknown(format!("cannot read the mtu: {}", reason(&error))),
        },
        "addrs" => match addresses(name) {
            Ok(addresses) => value(addresses),
            Err(error) => unknown(format!("cannot read the addresses: {}", reason(&error))),
        },
        other => unknown(format!("a network interface has no attribute \"{other}\"")),
    }
}

fn in_table(name: &str) -> Result<bool, super::fact::Missing> {
    let table =
        read_text("/proc/self/net/dev", MAX_SIZE).map_err(|error| super::fact::Missing::Unknown(reason(&error)))?;
    Ok(table.unwrap_or_default().lines().filter_map(|line| line.split_once(':')).any(|(known, _)| known.trim() == name))
}

fn addresses(name: &str) -> std::io::Result<Vec<String>> {
    let table = |name: &str| {
        Ok::<_, std::io::Error>(read_text(format!("/proc/self/net/{name}"), MAX_SIZE)?.unwrap_or_default())
    };
    let mut addresses = ipv4(name, &table("fib_trie")?, &table("route")?);
    addresses.extend(ipv6(name, &table("if_inet6")?));
    Ok(addresses)
}

/// The local addresses of the routing tree whose network is routed through the interface.
///
/// The tree alone does not name interfaces, so each address is given to the interface of the narrowest route that
/// covers it; the loopback has no routes there.
fn ipv4(name: &str, tree: &str, routes: &str) -> Vec<String> {
    let routes: Vec<(&str, u32, u32)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let word = |index: usize| Some(u32::from_be(u32::from_str_radix(fields.get(index)?, 16).ok()?));
            // The table has the bytes in network order, read as a number of the machine.
            let mask = word(7)?;
            (mask != 0).then_some((*fields.first()?, word(1)?, mask))
        })
        .collect();
    let mut found: Vec<String> = Vec::new();
    for address in local_addresses(tree) {
        let bits = u32::from(address);
        let covering = routes.iter().filter(|(_, network, mask)| bits & mask == *network);
        let narrowest = covering.max_by_key(|(_, _, mask)| *mask);
        let (interface, prefix) = match narrowest {
            Some((interface, _, mask)) => (*interface, mask.count_ones()),
            None if address.is_loopback() => ("lo", 8),
            None => continue,
        };
        let text = format!("{address}/{prefix}");
        if interface == name && !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

/// The leaves of the tree that are `/32 host LOCAL`.
fn local_addresses(tree: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut leaf = None;
    for line in tree.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

fn ipv6(name: &str, table: &str) -> Vec<String> {
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let addresses = lines.filter_map(|fields| match fields[..] {
        [address, _, prefix, _, _, interface] if interface == name => {
            let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
            Some(format!("{address}/{}", u8::from_str_radix(prefix, 16).ok()?))
        }
        _ => None,
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::goss::Found;

    #[test]
    fn the_loopback_has_its_address_and_mtu() {
        assert_eq!(fact("lo", "exists"), value(true));
        assert_eq!(fact("nothing0", "exists"), value(false));
        assert!(fact("../lo", "exists").is_err());
        let Ok(Found::Value(addresses)) = fact("lo", "addrs") else { panic!("lo has addresses") };
        assert!(addresses.as_array().is_some_and(|all| all.contains(&"127.0.0.1/8".into())), "{addresses}");
        let Ok(Found::Value(mtu)) = fact("lo", "mtu") else { panic!("lo has an mtu") };
        assert!(mtu.as_u64().is_some_and(|mtu| mtu >= 1280));
    }

    #[test]
    fn addresses_belong_to_the_interface_of_their_narrowest_route() {
        let tree = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 172.17.0.2\n        /32 host LOCAL\n     |-- 172.17.255.255\n        /32 link BROADCAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n";
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\neth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(ipv4("eth0", tree, routes), ["172.17.0.2/16"]);
            assert_eq!(ipv4("eth1", tree, routes), ["10.0.0.5/24"]);
        }
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(ipv6("lo", table), ["::1/128"]);
    }
}
