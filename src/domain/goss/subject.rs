//! What each kind of resource looks at, and how: the typed settings of a spec.
//!
//! Only read here; looking is the backend's part.

use std::time::Duration;

use serde_json::Value as Json;

use super::kinds::Kind;
use super::spec::{Fields, Reader};
use crate::domain::yaml::{self, Value, join};

/// What is looked at, and how.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A connection.
    Addr {
        /// `tcp://host:port`; udp as well.
        address: String,
        /// The own address that the connection comes from.
        local_address: Option<String>,
        /// For the connection.
        timeout: Duration,
    },
    /// A command.
    Command {
        /// What is run.
        exec: Exec,
        /// For the whole command.
        timeout: Duration,
        /// Until it passes.
        retry: Retry,
    },
    /// A name.
    Dns {
        /// The name, or the address of a PTR record.
        name: String,
        /// The kind of record, in capital letters; none for addresses.
        record: Option<String>,
        /// The server that is asked, with or without a port; none for the system's way.
        server: Option<String>,
        /// For the answer.
        timeout: Duration,
        /// Until it passes.
        retry: Retry,
    },
    /// A file.
    File {
        /// Its path; `~` and `~name` stand for home directories.
        path: String,
    },
    /// A group.
    Group {
        /// Its name.
        name: String,
    },
    /// A request.
    Http(Box<Request>),
    /// A network interface.
    Interface {
        /// Its name.
        name: String,
    },
    /// A kernel parameter.
    KernelParam {
        /// With dots.
        name: String,
    },
    /// A value of the spec.
    Matching {
        /// The value.
        content: Json,
        /// True when it is taken for a text that is read line by line.
        as_reader: bool,
    },
    /// A mount point.
    Mount {
        /// Its path.
        path: String,
        /// For reading how full it is.
        timeout: Duration,
    },
    /// A package.
    Package {
        /// Its name.
        name: String,
        /// Until it passes.
        retry: Retry,
    },
    /// A port.
    Port {
        /// `tcp`, `tcp6`, `udp` or `udp6`.
        protocol: String,
        /// The number.
        port: u16,
    },
    /// A process.
    Process {
        /// The name of its program.
        name: String,
    },
    /// The Windows registry, which no workspace has.
    Registry,
    /// A service.
    Service {
        /// Its name.
        name: String,
    },
    /// A user.
    User {
        /// The name.
        name: String,
    },
}

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exec {
    /// A line for the shell.
    Shell(String),
    /// A program with its arguments.
    Program(Vec<String>),
}

/// How often a failed check is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// After the first time.
    pub count: u64,
    /// Between two tries.
    pub delay: Duration,
}

/// An HTTP request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Where to.
    pub url: String,
    /// `GET` where the spec says none.
    pub method: String,
    /// `Name: value` each.
    pub headers: Vec<String>,
    /// What is sent.
    pub body: Option<String>,
    /// For basic authentication.
    pub username: Option<String>,
    /// For basic authentication.
    pub password: Option<String>,
    /// True when certificates are not verified.
    pub allow_insecure: bool,
    /// True when a redirect is the answer.
    pub no_follow_redirects: bool,
    /// Certificates to trust, PEM.
    pub ca_file: Option<String>,
    /// The own certificate, PEM.
    pub cert_file: Option<String>,
    /// Its key, PEM.
    pub key_file: Option<String>,
    /// The address of a proxy.
    pub proxy: Option<String>,
    /// For the whole request.
    pub timeout: Duration,
}

impl Subject {
    /// Reads the settings; `key` names the thing unless an attribute does.
    pub(super) fn read(reader: &mut Reader<'_, '_>, fields: &Fields<'_>, key: &str) -> Option<Self> {
        let facts = reader.facts;
        let milliseconds = Duration::from_millis;
        if facts.kind == Kind::Command {
            return Some(Self::Command {
                exec: exec(reader, fields, key),
                timeout: reader.time(fields, "timeout", milliseconds(10_000)),
                retry: retry(reader, fields),
            });
        }
        let named = if facts.naming.is_empty() { None } else { reader.text(fields, facts.naming) };
        let name = named.filter(|name| !name.is_empty()).unwrap_or_else(|| key.to_owned());
        Some(match facts.kind {
            Kind::Addr => Self::Addr {
                address: name,
                local_address: reader.text(fields, "local-address"),
                timeout: reader.time(fields, "timeout", milliseconds(500)),
            },
            Kind::Dns => {
                let (record, name) = record_of(&name);
                Self::Dns {
                    name,
                    record,
                    server: reader.text(fields, "server"),
                    timeout: reader.time(fields, "timeout", milliseconds(500)),
                    retry: retry(reader, fields),
                }
            }
            Kind::File => Self::File { path: name },
            Kind::Group => Self::Group { name },
            Kind::Http => Self::Http(Box::new(request(reader, fields, name))),
            Kind::Interface => Self::Interface { name },
            Kind::KernelParam => Self::KernelParam { name: reader.text(fields, "key").unwrap_or(name) },
            Kind::Matching => Self::Matching {
                content: fields.get("content").map_or(Json::Null, yaml::Node::to_json),
                as_reader: reader.boolean(fields, "as-reader"),
            },
            Kind::Mount => Self::Mount { path: name, timeout: reader.time(fields, "timeout", milliseconds(1_000)) },
            Kind::Package => Self::Package { name, retry: retry(reader, fields) },
            Kind::Port => port(reader, fields, &name)?,
            Kind::Process => Self::Process { name },
            Kind::Registry => Self::Registry,
            Kind::Service => Self::Service { name },
            Kind::User => Self::User { name },
            Kind::Command | Kind::Gossfile => return None,
        })
    }
}

fn exec(reader: &mut Reader<'_, '_>, fields: &Fields<'_>, key: &str) -> Exec {
    if fields.get("exec").is_some_and(|node| matches!(node.value, Value::Sequence(_))) {
        let words = reader.texts(fields, "exec");
        return if words.is_empty() { Exec::Shell(key.to_owned()) } else { Exec::Program(words) };
    }
    let line = reader.text(fields, "exec").filter(|line| !line.is_empty());
    Exec::Shell(line.unwrap_or_else(|| key.to_owned()))
}

fn retry(reader: &mut Reader<'_, '_>, fields: &Fields<'_>) -> Retry {
    Retry {
        count: reader.count(fields, "retry_count", 1_000).unwrap_or_default(),
        delay: reader.time(fields, "retry_delay", Duration::from_secs(1)),
    }
}

/// `CNAME:name` apart; other texts before a colon belong to the name.
fn record_of(name: &str) -> (Option<String>, String) {
    match name.split_once(':') {
        Some((record, rest)) if !record.is_empty() && record.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            (Some(record.to_owned()), rest.to_owned())
        }
        _ => (None, name.to_owned()),
    }
}

fn port(reader: &mut Reader<'_, '_>, fields: &Fields<'_>, name: &str) -> Option<Subject> {
    let (protocol, number) = name.split_once(':').unwrap_or(("tcp", name));
    let known = ["tcp", "tcp6", "udp", "udp6"].contains(&protocol);
    if let (true, Ok(port)) = (known, number.parse()) {
        return Some(Subject::Port { protocol: protocol.to_owned(), port });
    }
    let place = fields.get("port").map(|node| node.place).or_else(|| Some(fields.entries.first()?.key_place));
    let place = place.unwrap_or(crate::domain::diagnostic::Place { line: 1, column: 1 });
    let message = format!("\"{}\" is no port", yaml::shorten(name));
    let help = "write `tcp:80`, `tcp6:80`, `udp:53` or `udp6:53`";
    reader.problems.error("port", place, fields.field, message, help);
    None
}

fn request(reader: &mut Reader<'_, '_>, fields: &Fields<'_>, url: String) -> Request {
    let headers = reader.texts(fields, "request-headers");
    for (index, header) in headers.iter().enumerate() {
        if !header.contains(':')
            && let Some(node) = fields.get("request-headers")
        {
            let field = format!("{}[{index}]", join(fields.field, "request-headers"));
            let message = format!("\"{}\" is no header", yaml::shorten(header));
            reader.problems.error("header", node.place, &field, message, "write `Name: value`");
        }
    }
    Request {
        url,
        method: reader.text(fields, "method").unwrap_or_else(|| "GET".to_owned()),
        headers,
        body: reader.text(fields, "request-body"),
        username: reader.text(fields, "username").filter(|text| !text.is_empty()),
        password: reader.text(fields, "password").filter(|text| !text.is_empty()),
        allow_insecure: reader.boolean(fields, "allow-insecure"),
        no_follow_redirects: reader.boolean(fields, "no-follow-redirects"),
        ca_file: reader.text(fields, "ca-file").filter(|text| !text.is_empty()),
        cert_file: reader.text(fields, "cert-file").filter(|text| !text.is_empty()),
        key_file: reader.text(fields, "key-file").filter(|text| !text.is_empty()),
        proxy: reader.text(fields, "proxy").filter(|text| !text.is_empty()),
        timeout: reader.time(fields, "timeout", Duration::from_millis(5_000)),
    }
}
