//! Whether a name resolves, and to what: by the system's configuration, or by one server alone.
//!
//! A name that does not exist is an answer; a server that does not answer is none.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::fact::{Fact, Missing, failed, unknown, value};

pub async fn resolve(
    name: &str,
    record: Option<&str>,
    server: Option<&str>,
    timeout: Duration,
) -> Result<Vec<String>, Missing> {
    let Some(kind) = record_type(record) else {
        return unknown(format!("records of type {} are not known", record.unwrap_or_default()));
    };
    let looking = look_up(name, kind, server, timeout);
    match tokio::time::timeout(timeout, looking).await {
        Ok(found) => found,
        Err(_) => failed(format!("nobody answered for {name} within {} ms", timeout.as_millis())),
    }
}

/// What is found for an attribute of a name that was looked up.
pub fn fact(addresses: Option<&Result<Vec<String>, Missing>>, attribute: &str) -> Fact {
    let addresses = match addresses {
        Some(Ok(addresses)) => addresses,
        Some(Err(missing)) => return Err(missing.clone()),
        None => return unknown("the name was not looked up"),
    };
    match attribute {
        "resolvable" => value(!addresses.is_empty()),
        "addrs" => value(addresses.clone()),
        other => unknown(format!("a name has no attribute \"{other}\"")),
    }
}

/// The kind of record; addresses of both kinds are none of these.
fn record_type(record: Option<&str>) -> Option<Option<RecordType>> {
    Some(Some(match record {
        None => return Some(None),
        Some("A") => RecordType::A,
        Some("AAAA") => RecordType::AAAA,
        Some("CAA") => RecordType::CAA,
        Some("CNAME") => RecordType::CNAME,
        Some("MX") => RecordType::MX,
        Some("NS") => RecordType::NS,
        Some("PTR") => RecordType::PTR,
        Some("SRV") => RecordType::SRV,
        Some("SSHFP") => RecordType::SSHFP,
        Some("TXT") => RecordType::TXT,
        Some(_) => return None,
    }))
}

async fn look_up(
    name: &str,
    kind: Option<RecordType>,
    server: Option<&str>,
    timeout: Duration,
) -> Result<Vec<String>, Missing> {
    let resolver = resolver(server, timeout).await?;
    let Some(kind) = kind else {
        let found = resolver.lookup_ip(name).await;
        return sorted(found.map(|found| found.iter().map(|address| address.to_string()).collect()), name);
    };
    let query = match (kind, name.parse::<IpAddr>()) {
        (RecordType::PTR, Ok(address)) => Name::from(address),
        _ => match Name::from_utf8(name) {
            Ok(name) => name,
            Err(error) => return unknown(format!("\"{name}\" is no name: {error}")),
        },
    };
    let found = resolver.lookup(query, kind).await;
    let texts = |record: &hickory_resolver::proto::rr::Record| {
        if record.data.record_type() == kind { texts(&record.data) } else { Vec::new() }
    };
    sorted(found.map(|found| found.answers().iter().flat_map(texts).collect()), name)
}

fn sorted(found: Result<Vec<String>, NetError>, name: &str) -> Result<Vec<String>, Missing> {
    match found {
        Ok(mut addresses) => {
            addresses.sort();
            addresses.dedup();
            Ok(addresses)
        }
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => failed(format!("cannot look up {name}: {error}")),
    }
}

async fn resolver(server: Option<&str>, timeout: Duration) -> Result<TokioResolver, Missing> {
    let mut builder = match server {
        None => {
            Resolver::builder_tokio().map_err(|error| Missing::Unknown(format!("cannot resolve names: {error}")))?
        }
        Some(server) => {
            let address = address_of(server).await?;
            let mut udp = ConnectionConfig::udp();
            let mut tcp = ConnectionConfig::tcp();
            (udp.port, tcp.port) = (address.port(), address.port());
            let server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);
            let config = ResolverConfig::from_name_servers(vec![server]);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.timeout = timeout;
    options.attempts = 1;
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = if server.is_some() { ResolveHosts::Never } else { ResolveHosts::Auto };
    builder.build().map_err(|error| Missing::Unknown(format!("cannot resolve names: {error}")))
}

/// `1.2.3.4`, `1.2.3.4:53`, `[::1]:53` or a name of the system's.
async fn address_of(server: &str) -> Result<SocketAddr, Missing> {
    if let Ok(address) = server.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok((address, 53).into());
    }
    let with_port = if server.contains(':') { server.to_owned() } else { format!("{server}:53") };
    let found = tokio::net::lookup_host(&with_port).await.ok().and_then(|mut found| found.next());
    found.ok_or_else(|| Missing::Failed(format!("the DNS server \"{server}\" has no address")))
}

fn texts(data: &RData) -> Vec<String> {
    match data {
        RData::TXT(text) => text.txt_data.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect(),
        RData::CAA(record) => {
            let flags = u8::from(record.issuer_critical) << 7 | record.reserved_flags;
            vec![format!("{flags} {} {}", record.tag, String::from_utf8_lossy(&record.value))]
        }
        other => vec![other.to_string()],
    }
}
