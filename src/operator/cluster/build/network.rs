//! What a workspace may reach and who may reach it: one NetworkPolicy that denies everything it does not name.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::lab::{has_lab, way_to_lab};
use super::{NAME, Subject, Surroundings, object};
use crate::adapters::cluster::Part;
use crate::domain::container::{Egress, place};
use crate::domain::lifecycle::Start;
use crate::domain::workspace::{EgressRule, PRIVATE};

/// The label that every namespace has with its own name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Where a cluster's name service runs.
const NAMES: &str = "kube-system";
/// Where nodes answer for it, in clusters that cache names on nodes.
const NODE_NAMES: &str = "169.254.20.10/32";

/// The policy of a workspace: in from the gateway's namespace only, out as its settings say and to the management API.
#[must_use]
pub fn build_network_policy(subject: &Subject, around: &Surroundings, start: &Start) -> Value {
    let mut policy = object(Part::NetworkPolicy, NAME);
    let mut egress = egress(start);
    egress.extend(management(around));
    if has_lab(start) {
        egress.extend(way_to_lab(subject, around, start));
    }
    policy["spec"] = json!({
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [{ "namespaceSelector": { "matchLabels": { NAMESPACE_NAME: around.system } } }],
            "ports": [{ "protocol": "TCP", "port": place::PORT }],
        }],
        "egress": egress,
    });
    policy
}

/// What the workshop's settings let out.
pub(super) fn egress(start: &Start) -> Vec<Value> {
    match Egress::of(start.settings.network.egress.as_deref()) {
        Egress::None => Vec::new(),
        Egress::Internet => internet(),
        Egress::Rules(rules) => rules.iter().map(rule).collect(),
    }
}

/// Selects the namespace of this name.
pub(super) fn own_name(namespace: &str) -> Value {
    json!({ "matchLabels": { NAMESPACE_NAME: namespace } })
}

fn internet() -> Vec<Value> {
    let except = |v4: bool| PRIVATE.iter().filter(move |cidr| cidr.contains(':') != v4).collect::<Vec<_>>();
    vec![
        to_names(),
        json!({ "to": [
            { "ipBlock": { "cidr": "0.0.0.0/0", "except": except(true) } },
            { "ipBlock": { "cidr": "::/0", "except": except(false) } },
        ] }),
    ]
}

fn rule(rule: &EgressRule) -> Value {
    let mut out = json!({ "to": [{ "ipBlock": { "cidr": rule.cidr } }] });
    if !rule.ports.is_empty() {
        let ports = rule
            .ports
            .iter()
            .flat_map(|port| ["TCP", "UDP"].map(|protocol| json!({ "protocol": protocol, "port": port })));
        out["ports"] = ports.collect();
    }
    out
}

/// The ways to the API server, where its addresses are known.
pub(super) fn to_api_servers(around: &Surroundings) -> impl Iterator<Item = Value> {
    around.api_servers.iter().map(|server| {
        let bits = if server.is_ipv4() { 32 } else { 128 };
        json!({
            "to": [{ "ipBlock": { "cidr": format!("{}/{bits}", server.ip()) } }],
            "ports": [{ "protocol": "TCP", "port": server.port() }],
        })
    })
}

/// The way to where names are resolved.
pub(super) fn to_names() -> Value {
    json!({
        "to": [
            { "namespaceSelector": { "matchLabels": { NAMESPACE_NAME: NAMES } } },
            { "ipBlock": { "cidr": NODE_NAMES } },
        ],
        "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }],
    })
}

/// The way to the management API: an address is named, a name is a Service in the controller's namespace.
fn management(around: &Surroundings) -> Vec<Value> {
    let Some(url) = around.management_url.as_deref().and_then(|url| url::Url::parse(url).ok()) else {
        return Vec::new();
    };
    let port = url.port_or_known_default().unwrap_or(80);
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if let Ok(address) = host.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        return vec![json!({
            "to": [{ "ipBlock": { "cidr": format!("{address}/{bits}") } }],
            "ports": [{ "protocol": "TCP", "port": port }],
        })];
    }
    // A policy sees the pod's port, behind the Service's; and the name has to be found where names are.
    vec![json!({ "to": [{ "namespaceSelector": { "matchLabels": { NAMESPACE_NAME: around.system } } }] }), to_names()]
}
