//! The resource kinds of a goss spec: their names, attributes and gates, as goss 0.4 has them.
//!
//! A table of facts only: values are read in `spec`, machines are looked at elsewhere.

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something that listens at an address.
    Addr,
    /// A command and what it prints.
    Command,
    /// A name in the DNS.
    Dns,
    /// A file, directory, link or socket.
    File,
    /// Another spec.
    Gossfile,
    /// A group of `/etc/group`.
    Group,
    /// An answer to an HTTP request.
    Http,
    /// A network interface.
    Interface,
    /// A kernel parameter.
    KernelParam,
    /// A value that the spec itself has.
    Matching,
    /// A mount point.
    Mount,
    /// A package of the distribution.
    Package,
    /// A port that something listens at.
    Port,
    /// A running process.
    Process,
    /// A key of the Windows registry.
    Registry,
    /// A service of the service manager.
    Service,
    /// A user of `/etc/passwd`.
    User,
}

/// How the found value of an attribute is compared by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A value; a list in the spec means that the value contains all of its elements.
    Value,
    /// A text that is read line by line; a list in the spec means patterns.
    Text,
}

/// An attribute that asserts something.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// Its name in the spec.
    pub name: &'static str,
    /// Its name in goss's output.
    pub property: &'static str,
    /// How it is compared by default.
    pub shape: Shape,
}

/// The facts of one kind.
#[derive(Debug)]
pub struct KindFacts {
    /// The kind.
    pub kind: Kind,
    /// Its name in the spec.
    pub name: &'static str,
    /// Its name in goss's output.
    pub type_name: &'static str,
    /// The attribute that must be there.
    pub required: Option<&'static str>,
    /// True when the other attributes are looked at only if the required one holds and found something.
    pub gated: bool,
    /// The attributes that assert something.
    pub assertions: &'static [Attribute],
    /// The attribute that names the thing where the key does not.
    pub naming: &'static str,
    /// The attributes that say how to look.
    pub settings: &'static [&'static str],
}

/// Attributes that every resource has.
pub const COMMON: [&str; 3] = ["title", "meta", "skip"];

const fn value(name: &'static str) -> Attribute {
    Attribute { name, property: name, shape: Shape::Value }
}

const fn text(name: &'static str) -> Attribute {
    Attribute { name, property: name, shape: Shape::Text }
}

const RETRY_COUNT: &str = "retry_count";
const RETRY_DELAY: &str = "retry_delay";

/// All kinds, in the order in which the documentation names them.
pub const KINDS: [KindFacts; 17] = [
    KindFacts {
        kind: Kind::Addr,
        name: "addr",
        type_name: "Addr",
        required: Some("reachable"),
        gated: false,
        assertions: &[value("reachable")],
        naming: "address",
        settings: &["local-address", "timeout"],
    },
    KindFacts {
        kind: Kind::Command,
        name: "command",
        type_name: "Command",
        required: Some("exit-status"),
        gated: false,
        assertions: &[value("exit-status"), text("stdout"), text("stderr")],
        naming: "exec",
        settings: &["timeout", RETRY_COUNT, RETRY_DELAY],
    },
    KindFacts {
        kind: Kind::Dns,
        name: "dns",
        type_name: "DNS",
        required: Some("resolvable"),
        gated: true,
        assertions: &[
            value("resolvable"),
            Attribute { name: "resolveable", property: "resolvable", shape: Shape::Value },
            value("addrs"),
        ],
        naming: "resolve",
        settings: &["server", "timeout", RETRY_COUNT, RETRY_DELAY],
    },
    KindFacts {
        kind: Kind::File,
        name: "file",
        type_name: "File",
        required: Some("exists"),
        gated: true,
        assertions: &[
            value("exists"),
            value("mode"),
            value("size"),
            value("owner"),
            value("uid"),
            value("group"),
            value("gid"),
            value("filetype"),
            Attribute { name: "linked-to", property: "linkedto", shape: Shape::Value },
            text("contents"),
            text("contains"),
            value("md5"),
            value("sha256"),
            value("sha512"),
        ],
        naming: "path",
        settings: &[],
    },
    KindFacts {
        kind: Kind::Gossfile,
        name: "gossfile",
        type_name: "Gossfile",
        required: None,
        gated: false,
        assertions: &[],
        naming: "file",
        settings: &[],
    },
    KindFacts {
        kind: Kind::Group,
        name: "group",
        type_name: "Group",
        required: Some("exists"),
        gated: true,
        assertions: &[value("exists"), value("gid")],
        naming: "groupname",
        settings: &[],
    },
    KindFacts {
        kind: Kind::Http,
        name: "http",
        type_name: "HTTP",
        required: Some("status"),
        gated: true,
        assertions: &[
            value("status"),
            Attribute { name: "headers", property: "Headers", shape: Shape::Text },
            Attribute { name: "body", property: "Body", shape: Shape::Text },
        ],
        naming: "url",
        settings: &[
            "method",
            "request-headers",
            "request-body",
            "username",
            "password",
            "allow-insecure",
            "no-follow-redirects",
            "ca-file",
            "cert-file",
            "key-file",
            "proxy",
            "timeout",
        ],
    },
    KindFacts {
        kind: Kind::Interface,
        name: "interface",
        type_name: "Interface",
        required: Some("exists"),
        gated: true,
        assertions: &[value("exists"), value("addrs"), value("mtu")],
        naming: "name",
        settings: &[],
    },
    KindFacts {
        kind: Kind::KernelParam,
        name: "kernel-param",
        type_name: "KernelParam",
        required: Some("value"),
        gated: false,
        assertions: &[value("value")],
        naming: "name",
        settings: &["key"],
    },
    KindFacts {
        kind: Kind::Matching,
        name: "matching",
        type_name: "Matching",
        required: Some("matches"),
        gated: false,
        assertions: &[value("matches")],
        naming: "",
        settings: &["content", "as-reader"],
    },
    KindFacts {
        kind: Kind::Mount,
        name: "mount",
        type_name: "Mount",
        required: Some("exists"),
        gated: true,
        assertions: &[
            value("exists"),
            value("opts"),
            value("vfs-opts"),
            value("source"),
            value("filesystem"),
            value("usage"),
        ],
        naming: "mountpoint",
        settings: &["timeout"],
    },
    KindFacts {
        kind: Kind::Package,
        name: "package",
        type_name: "Package",
        required: Some("installed"),
        gated: true,
        assertions: &[value("installed"), value("versions")],
        naming: "name",
        settings: &[RETRY_COUNT, RETRY_DELAY],
    },
    KindFacts {
        kind: Kind::Port,
        name: "port",
        type_name: "Port",
        required: Some("listening"),
        gated: true,
        assertions: &[value("listening"), value("ip")],
        naming: "port",
        settings: &[],
    },
    KindFacts {
        kind: Kind::Process,
        name: "process",
        type_name: "Process",
        required: Some("running"),
        gated: false,
        assertions: &[value("running")],
        naming: "comm",
        settings: &[],
    },
    KindFacts {
        kind: Kind::Registry,
        name: "registry",
        type_name: "Registry",
        required: Some("exists"),
        gated: true,
        assertions: &[value("exists"), value("value")],
        naming: "path",
        settings: &[],
    },
    KindFacts {
        kind: Kind::Service,
        name: "service",
        type_name: "Service",
        required: None,
        gated: false,
        assertions: &[value("enabled"), value("running"), value("runlevels")],
        naming: "name",
        settings: &[],
    },
    KindFacts {
        kind: Kind::User,
        name: "user",
        type_name: "User",
        required: Some("exists"),
        gated: true,
        assertions: &[value("exists"), value("uid"), value("gid"), value("groups"), value("home"), value("shell")],
        naming: "username",
        settings: &[],
    },
];

impl Kind {
    /// The facts of this kind.
    #[must_use]
    pub fn facts(self) -> &'static KindFacts {
        KINDS.iter().find(|facts| facts.kind == self).expect("the table has every kind")
    }
}

impl KindFacts {
    /// Every attribute that a resource of this kind may have.
    #[must_use]
    pub fn attributes(&self) -> Vec<&'static str> {
        let naming = (!self.naming.is_empty()).then_some(self.naming);
        naming
            .into_iter()
            .chain(self.assertions.iter().map(|attribute| attribute.name))
            .chain(self.settings.iter().copied())
            .chain(COMMON)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_kind_once_and_each_required_attribute_is_an_assertion() {
        for facts in &KINDS {
            assert_eq!(facts.kind.facts().name, facts.name);
            let first = facts.assertions.first().map(|attribute| attribute.name);
            assert!(facts.required.is_none() || facts.required == first, "{}", facts.name);
        }
    }
}
