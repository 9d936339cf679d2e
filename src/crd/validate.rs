//! The rules of the definitions as Rust functions, so that a plan is checked before anything is sent.
//!
//! A test holds them against a real API server: what one refuses, the other refuses at the same field.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::settings::WorkspaceSettings;
use super::{Kind, WorkshopRepository, WorkspaceInstance, WorkspaceTemplate};
use crate::domain::names::WorkshopId;
use crate::domain::quantity::Quantity;

/// A rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, as the API server writes it: `spec.steps[0].id`.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Every rule that `manifest` breaks as an object of its kind; `old` is the object it replaces.
#[must_use]
pub fn validate(manifest: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Found::default();
    let kind = manifest.get("kind").and_then(Value::as_str).and_then(Kind::parse);
    match kind {
        None => found.add("kind", "is none of ours"),
        Some(Kind::WorkshopRepository) => {
            if let Some(repository) = read::<WorkshopRepository>(manifest, &mut found) {
                check_repository(&repository, &mut found);
            }
        }
        Some(Kind::WorkspaceTemplate) => {
            if let Some(template) = read::<WorkspaceTemplate>(manifest, &mut found) {
                check_template(&template, &mut found);
            }
        }
        Some(Kind::WorkspaceInstance) => {
            if let Some(instance) = read::<WorkspaceInstance>(manifest, &mut found) {
                check_instance(&instance, old, &mut found);
            }
        }
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { field: field.into(), message: message.into() });
    }

    fn require(&mut self, holds: bool, field: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.add(field, message);
        }
    }

    fn length(&mut self, text: &str, least: usize, most: usize, field: impl Into<String>) {
        let length = text.chars().count();
        self.require((least..=most).contains(&length), field, format!("must have {least} to {most} characters"));
    }
}

fn read<T: DeserializeOwned>(manifest: &Value, found: &mut Found) -> Option<T> {
    serde_json::from_value(manifest.clone()).map_err(|error| found.add("spec", error.to_string())).ok()
}

fn check_repository(repository: &WorkshopRepository, found: &mut Found) {
    let spec = &repository.spec;
    found.length(&spec.url, 1, 2048, "spec.url");
    found.require(
        is_source_url(&spec.url),
        "spec.url",
        "must be an https://, http://, ssh:// or file:// URL or git@host:path",
    );
    found.require(
        !has_password(&spec.url),
        "spec.url",
        "must not hold a password: put it into a Secret and name that in secretRef",
    );
    let least = Duration::from_secs(1);
    check_duration(&spec.interval, least, "spec.interval", found);
    check_duration(&spec.timeout, least, "spec.timeout", found);
    for (text, field) in [(&spec.retry_interval, "spec.retryInterval"), (&spec.compile.timeout, "spec.compile.timeout")]
    {
        if let Some(text) = text {
            check_duration(text, least, field, found);
        }
    }
    if let Some(reference) = &spec.reference {
        let names = [&reference.branch, &reference.tag, &reference.semver, &reference.name];
        let named = names.iter().filter(|name| name.is_some()).count();
        found.require(named <= 1, "spec.ref", "names more than one of branch, tag, semver and name: keep one");
        let alone = reference.tag.is_none() && reference.semver.is_none() && reference.name.is_none();
        found.require(
            reference.commit.is_none() || alone,
            "spec.ref",
            "a commit stands alone or with the branch that holds it",
        );
        for (name, field) in names.into_iter().zip(["branch", "tag", "semver", "name"]) {
            if let Some(name) = name {
                found.length(name, 1, 255, format!("spec.ref.{field}"));
            }
        }
        if let Some(name) = &reference.name {
            found.require(name.starts_with("refs/"), "spec.ref.name", "must begin with refs/");
        }
        if let Some(commit) = &reference.commit {
            let is_hash = commit.len() == 40 && commit.bytes().all(is_lower_hex);
            found.require(is_hash, "spec.ref.commit", "must be 40 hex digits");
        }
    }
    found.require(spec.paths.len() <= 100, "spec.paths", "must have at most 100 entries");
    let inside = |path: &String| !path.starts_with('/') && !path.split('/').any(|part| part == "..");
    found.require(spec.paths.iter().all(inside), "spec.paths", "must be relative to the repository's root, without ..");
    for (index, path) in spec.paths.iter().enumerate() {
        found.length(path, 1, 1024, format!("spec.paths[{index}]"));
    }
    if let Some(budget) = &spec.prune_budget {
        let is_budget = match budget {
            IntOrString::Int(count) => *count >= 0,
            IntOrString::String(text) => is_percentage(text),
        };
        found.require(is_budget, "spec.pruneBudget", "must be a number of at least 0 or a percentage from 0% to 100%");
    }
    for (registry, field) in
        [(&spec.compile.registry, "spec.compile.registry"), (&spec.compile.pull_registry, "spec.compile.pullRegistry")]
    {
        if let Some(registry) = registry {
            found.length(registry, 1, 255, field);
            found.require(
                is_registry(registry),
                field,
                "must be a host, an optional port and an optional path, without a scheme",
            );
        }
    }
}

fn check_template(template: &WorkspaceTemplate, found: &mut Found) {
    let name = template.metadata.name.as_deref().unwrap_or_default();
    found.require(
        WorkshopId::parse(name).is_ok(),
        "metadata.name",
        "a template is named by its workshop's id: at most 40 of a-z, 0-9 and -, no hyphen at either end",
    );
    let spec = &template.spec;
    check_settings(&spec.defaults, "spec.defaults", found);
    found.require((1..=200).contains(&spec.steps.len()), "spec.steps", "must have 1 to 200 entries");
    let ids: BTreeSet<_> = spec.steps.iter().map(|step| &step.id).collect();
    found.require(ids.len() == spec.steps.len(), "spec.steps", "two steps have one id");
    for (index, step) in spec.steps.iter().enumerate() {
        let field = |name: &str| format!("spec.steps[{index}].{name}");
        found.require(WorkshopId::parse(&step.id).is_ok(), field("id"), "must be at most 40 of a-z, 0-9 and -");
        found.length(&step.title, 1, 1024, field("title"));
        found.length(&step.image_tag, 1, 512, field("imageTag"));
        found.require(!step.image_tag.contains(is_space), field("imageTag"), "must not contain spaces");
        if let Some(digest) = &step.image_digest {
            found.require(is_digest(digest), field("imageDigest"), "must be sha256: and 64 hex digits");
        }
    }
    if let Some(secret) = &spec.image_pull_secret {
        found.length(&secret.namespace, 1, 63, "spec.imagePullSecret.namespace");
        found.length(&secret.name, 1, 253, "spec.imagePullSecret.name");
    }
    found.require(is_digest(&spec.artifact.digest), "spec.artifact.digest", "must be sha256: and 64 hex digits");
    found.require(
        (1..=33_554_432).contains(&spec.artifact.size),
        "spec.artifact.size",
        "must be from 1 byte to 32 MiB",
    );
}

fn check_instance(instance: &WorkspaceInstance, old: Option<&Value>, found: &mut Found) {
    let spec = &instance.spec;
    found.length(&spec.template_ref.name, 1, 40, "spec.templateRef.name");
    if let Some(old) = old.and_then(|old| old.pointer("/spec/templateRef/name")).and_then(Value::as_str) {
        found.require(old == spec.template_ref.name, "spec.templateRef", "cannot be changed: make a new instance");
    }
    found.length(&spec.owner, 1, 253, "spec.owner");
    if let Some(step) = &spec.current_step {
        found.require(WorkshopId::parse(step).is_ok(), "spec.currentStep", "must be at most 40 of a-z, 0-9 and -");
    }
    found.require(spec.members.len() <= 100, "spec.members", "must have at most 100 entries");
    for (index, member) in spec.members.iter().enumerate() {
        found.length(member, 1, 253, format!("spec.members[{index}]"));
    }
    if let Some(moment) = &spec.expires_at {
        let is_moment = moment.parse::<jiff::Timestamp>().is_ok();
        found.require(is_moment, "spec.expiresAt", "must be a moment such as 2027-01-31T12:00:00Z");
    }
    if let Some(overrides) = &spec.overrides {
        check_settings(overrides, "spec.overrides", found);
    }
}

fn check_settings(settings: &WorkspaceSettings, at: &str, found: &mut Found) {
    let check_quantity = |text: &Option<String>, field: &str, found: &mut Found| {
        if let Some(text) = text {
            let field = format!("{at}.{field}");
            found.require(
                text.len() <= 32 && text.parse::<Quantity>().is_ok(),
                field,
                "must be a quantity above zero, e.g. 500m or 512Mi",
            );
        }
    };
    if let Some(lifecycle) = &settings.lifecycle {
        for (text, field) in [(&lifecycle.ttl, "ttl"), (&lifecycle.idle_timeout, "idleTimeout")] {
            if let Some(text) = text {
                check_duration(text, Duration::ZERO, &format!("{at}.lifecycle.{field}"), found);
            }
        }
        check_quantity(&lifecycle.persist, "lifecycle.persist", found);
    }
    if let Some(class) = settings.isolation.as_ref().and_then(|isolation| isolation.runtime_class.as_ref()) {
        found.length(class, 1, 253, format!("{at}.isolation.runtimeClass"));
    }
    if let Some(rules) = settings.network.as_ref().and_then(|network| network.egress.as_ref()) {
        found.require(rules.len() <= 64, format!("{at}.network.egress"), "must have at most 64 entries");
        for (index, rule) in rules.iter().enumerate() {
            let field = |name: &str| format!("{at}.network.egress[{index}].{name}");
            found.require(is_cidr(&rule.cidr), field("cidr"), "must be a range of addresses such as 10.1.0.0/16");
            found.require(rule.ports.len() <= 64, field("ports"), "must have at most 64 entries");
            for (index, port) in rule.ports.iter().enumerate() {
                let field = format!("{}[{index}]", field("ports"));
                found.require((1..=65_535).contains(port), field, "must be from 1 to 65535");
            }
        }
    }
    if let Some(version) = settings.cluster.as_ref().and_then(|cluster| cluster.version.as_ref()) {
        found.length(version, 1, 64, format!("{at}.cluster.version"));
    }
    if let Some(resources) = &settings.resources {
        check_quantity(&resources.cpu, "resources.cpu", found);
        check_quantity(&resources.memory, "resources.memory", found);
    }
    let terminal = settings.access.as_ref().and_then(|access| access.web_terminal.as_ref());
    if let Some(shell) = terminal.and_then(|terminal| terminal.shell.as_ref()) {
        found.length(shell, 1, 4096, format!("{at}.access.webTerminal.shell"));
    }
}

fn check_duration(text: &str, least: Duration, field: &str, found: &mut Found) {
    match text.parse::<crate::domain::duration::Duration>() {
        Err(error) => found.add(field, error.to_string()),
        Ok(_) if text.len() > 32 => found.add(field, "must have at most 32 characters"),
        Ok(duration) => found.require(duration.get() >= least, field, "must be at least 1s"),
    }
}

/// What the `\s` of the API server's expressions means.
const fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

const fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_source_url(url: &str) -> bool {
    let is_word = |text: &str| !text.is_empty() && !text.contains(is_space);
    if let Some((scheme, rest)) = url.split_once("://")
        && ["https", "http", "ssh", "file"].contains(&scheme)
    {
        return is_word(rest);
    }
    let Some((user, rest)) = url.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    user.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && user.bytes().all(|byte| is_plain(byte) || byte == b'_')
        && !host.is_empty()
        && host.bytes().all(is_plain)
        && is_word(path)
}

fn has_password(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    scheme.bytes().all(|byte| byte.is_ascii_lowercase())
        && host.split_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn is_percentage(text: &str) -> bool {
    let Some(digits) = text.strip_suffix('%') else { return false };
    (1..=3).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() < 3 || digits == "100")
}

fn is_registry(text: &str) -> bool {
    let mut parts = text.split('/');
    let host = parts.next().unwrap_or_default();
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_host =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    let is_port =
        port.is_none_or(|port| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_word = |word: &str| {
        let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = word.as_bytes();
        bytes.first().is_some_and(&is_plain)
            && bytes.last().is_some_and(&is_plain)
            && bytes.iter().all(|byte| is_plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
    };
    is_host && is_port && parts.all(is_word)
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(is_lower_hex))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let is_number = (1..=3).contains(&prefix.len())
        && prefix.bytes().all(|byte| byte.is_ascii_digit())
        && (prefix == "0" || !prefix.starts_with('0'));
    is_number && prefix.parse::<u8>().is_ok_and(|bits| bits <= if address.is_ipv4() { 32 } else { 128 })
}
