//! What an instance may override of its template: it may ask for less and for other comforts, never for more power.
//!
//! Pure. Who may write instances is often not who may write templates, so what costs or opens something stays with the
//! template; a template can permit single fields.

use std::net::IpAddr;

use super::{ClusterMode, EgressRule, User, Workspace};

/// What a template permits its instances besides what all may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permit {
    /// More of `resources` and a larger `lifecycle.persist`.
    pub resources: bool,
    /// `isolation.user: root`, and another or no `isolation.runtimeClass`.
    pub isolation: bool,
    /// More destinations in `network.egress`.
    pub network: bool,
    /// A cluster where the template has none.
    pub cluster: bool,
}

impl Permit {
    /// Reads `resources, network`; words that are unknown permit nothing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let has = |word: &str| text.split(',').any(|named| named.trim() == word);
        Self {
            resources: has("resources"),
            isolation: has("isolation"),
            network: has("network"),
            cluster: has("cluster"),
        }
    }
}

/// Every field in which `wished` goes beyond the template's `defaults`, with what is allowed.
#[must_use]
pub fn refused_overrides(defaults: &Workspace, wished: &Workspace, permit: Permit) -> Vec<String> {
    let mut refused = Vec::new();
    let mut check = |is_refused: bool, field: &str, why: String| {
        if is_refused {
            refused.push(format!("{field} {why}"));
        }
    };
    if !permit.resources {
        let (most, asked) = (&defaults.resources, &wished.resources);
        for (field, most, asked) in
            [("resources.cpu", &most.cpu, &asked.cpu), ("resources.memory", &most.memory, &asked.memory)]
        {
            let why = format!("may be at most the template's {}", most.as_str());
            check(asked.thousandths() > most.thousandths(), field, why);
        }
        let (most, asked) = (&defaults.lifecycle.persist, &wished.lifecycle.persist);
        let size = |quantity: &Option<crate::domain::quantity::Quantity>| {
            quantity.as_ref().map_or(0, crate::domain::quantity::Quantity::units)
        };
        let why = most.as_ref().map_or_else(
            || "is not offered by the template".to_owned(),
            |most| format!("may be at most the template's {}", most.as_str()),
        );
        check(size(asked) > size(most), "lifecycle.persist", why);
    }
    if !permit.isolation {
        let (of, by) = (&defaults.isolation, &wished.isolation);
        let is_loosened = of.user == User::Learner && by.user == User::Root;
        check(is_loosened, "isolation.user", "may not be root where the template has learner".to_owned());
        if let Some(class) = &of.runtime_class {
            let why = format!("must stay the template's \"{class}\"");
            check(by.runtime_class.as_ref() != Some(class), "isolation.runtimeClass", why);
        }
    }
    if !permit.network {
        let why = "may not reach more than the template's".to_owned();
        check(is_widened(defaults, wished), "network.egress", why);
    }
    if !permit.cluster {
        let (of, by) = (defaults.cluster.mode, wished.cluster.mode);
        let why = "may not be raised above the template's".to_owned();
        check(by != of && by != ClusterMode::None, "cluster.mode", why);
    }
    refused
}

fn is_widened(defaults: &Workspace, wished: &Workspace) -> bool {
    match (&defaults.network.egress, &wished.network.egress) {
        (None, None) => false,
        // The internet without private ranges holds public destinations and nothing else.
        (None, Some(rules)) => rules.iter().any(|rule| !is_public(rule)),
        (Some(_), None) => true,
        (Some(of), Some(rules)) => rules.iter().any(|rule| !of.iter().any(|wide| holds(wide, rule))),
    }
}

/// Whether everything that `rule` reaches is reached by `wide` too.
fn holds(wide: &EgressRule, rule: &EgressRule) -> bool {
    let ports = wide.ports.is_empty() || (!rule.ports.is_empty() && rule.ports.iter().all(|p| wide.ports.contains(p)));
    let (Some(wide), Some(rule)) = (range(&wide.cidr), range(&rule.cidr)) else { return false };
    ports && contains(wide, rule)
}

fn is_public(rule: &EgressRule) -> bool {
    let Some(asked) = range(&rule.cidr) else { return false };
    !PRIVATE.iter().filter_map(|cidr| range(cidr)).any(|private| contains(private, asked) || contains(asked, private))
}

/// Ranges that are no part of the internet.
pub const PRIVATE: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// Address as a number, length of the prefix, and whether it is of version 4.
type Range = (u128, u8, bool);

fn range(cidr: &str) -> Option<Range> {
    let (address, prefix) = cidr.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(address) => (prefix <= 32).then(|| (u128::from(address.to_bits()) << 96, prefix, true)),
        IpAddr::V6(address) => (prefix <= 128).then(|| (address.to_bits(), prefix, false)),
    }
}

fn contains((wide, short, v4): Range, (address, long, other): Range) -> bool {
    let mask = if short == 0 { 0 } else { u128::MAX << (128 - u32::from(short)) };
    v4 == other && short <= long && wide & mask == address & mask
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::effective;
    use super::*;

    #[track_caller]
    fn check(defaults: Value, overrides: Value, expected: &[&str]) {
        let template = effective(&defaults, None).unwrap();
        let wished = effective(&defaults, Some(&overrides)).unwrap();
        let refused = refused_overrides(&template, &wished, Permit::default());
        let fields: Vec<&str> = refused.iter().filter_map(|why| why.split(' ').next()).collect();
        assert_eq!(fields, expected, "{refused:?}");
        let all = Permit::parse("resources, isolation,network , cluster");
        assert_eq!(refused_overrides(&template, &wished, all), Vec::<String>::new());
    }

    #[test]
    fn less_and_other_comforts_are_anybodys() {
        let settings = json!({"isolation": {"user": "root"}, "cluster": {"mode": "shared"}});
        let overrides = json!({
            "lifecycle": {"ttl": "90h", "mode": "persistent", "idleSuspend": false},
            "isolation": {"user": "learner", "runtimeClass": "kata"}, "cluster": {"mode": "none"},
            "resources": {"cpu": "0.5", "memory": "64Mi"}, "access": {"files": {"enabled": false}},
        });
        check(settings, overrides, &[]);
    }

    #[test]
    fn more_power_stays_with_the_template() {
        let more = json!({"resources": {"cpu": "501m", "memory": "513Mi"}, "lifecycle": {"persist": "1Gi"}});
        check(json!({}), more, &["resources.cpu", "resources.memory", "lifecycle.persist"]);
        let persist = json!({"lifecycle": {"persist": "1Gi"}});
        check(persist.clone(), json!({"lifecycle": {"persist": "1024Mi"}}), &[]);
        check(persist, json!({"lifecycle": {"persist": "2Gi"}}), &["lifecycle.persist"]);
        check(json!({}), json!({"isolation": {"user": "root"}}), &["isolation.user"]);
        let kata = json!({"isolation": {"runtimeClass": "kata"}});
        check(kata, json!({"isolation": {"runtimeClass": "runc"}}), &["isolation.runtimeClass"]);
        for mode in ["shared", "per-workspace"] {
            check(json!({}), json!({"cluster": {"mode": mode}}), &["cluster.mode"]);
        }
        check(json!({"cluster": {"mode": "shared"}}), json!({"cluster": {"mode": "per-workspace"}}), &["cluster.mode"]);
    }

    #[test]
    fn destinations_are_never_widened() {
        let egress = |rules: Value| json!({"network": {"egress": rules}});
        let one = |cidr: &str, ports: &[u16]| json!([{"cidr": cidr, "ports": ports}]);
        let wide = &["network.egress"];
        // From the default, public destinations and none at all.
        for (rules, expected) in [
            (json!([]), &[][..]),
            (one("192.0.2.0/24", &[443]), &[]),
            (one("2001:db8::/32", &[]), &[]),
            (one("10.1.0.0/16", &[]), wide),
            (one("0.0.0.0/0", &[]), wide),
            (one("fd00::/8", &[80]), wide),
            (one("169.254.169.254/32", &[80]), wide),
        ] {
            check(json!({}), egress(rules), expected);
        }
        // From rules, what lies within one of them.
        let defaults = || egress(json!([{"cidr": "10.0.0.0/8", "ports": [80, 443]}, {"cidr": "192.0.2.0/24"}]));
        for (rules, expected) in [
            (one("10.1.2.0/24", &[443]), &[][..]),
            (one("192.0.2.7/32", &[22]), &[]),
            (one("10.1.2.0/24", &[22]), wide),
            (one("10.1.2.0/24", &[]), wide),
            (one("0.0.0.0/4", &[80]), wide),
            (one("192.0.3.0/24", &[]), wide),
        ] {
            check(defaults(), egress(rules), expected);
        }
    }

    #[test]
    fn unknown_words_permit_nothing() {
        assert_eq!(Permit::parse("all, *, Resources"), Permit::default());
        assert_eq!(Permit::parse("resources"), Permit { resources: true, ..Permit::default() });
    }
}
