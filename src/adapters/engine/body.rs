//! What an engine is asked for: the network and the container of a workspace, and the files that are put into it.
//!
//! Pure but for reading the artifact.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, NetworkCreateRequest, PortBinding};

use super::archive::append;
use crate::domain::container::{Egress, WorkspaceSpec, place};

/// Where ports are published: this machine, by another address than the gateway's, because browsers send a host's
/// cookies to all of its ports, and a learner may serve pages on one.
pub const PUBLISHED: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// Processes and threads that a workspace may have at a time.
const PROCESSES: i64 = 1024;

/// The network of one workspace.
pub fn network(name: &str, egress: &Egress, labels: HashMap<String, String>, is_podman: bool) -> NetworkCreateRequest {
    // An internal network would have no published port either; without translation nothing comes back from outside.
    let masquerade = ("com.docker.network.bridge.enable_ip_masquerade".to_owned(), "false".to_owned());
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        options: (*egress == Egress::None && !is_podman).then(|| HashMap::from([masquerade])),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}

/// The container of a workspace.
pub fn container(
    network: &str,
    spec: &WorkspaceSpec,
    image: &str,
    arguments: Vec<String>,
    labels: HashMap<String, String>,
    is_podman: bool,
) -> ContainerCreateBody {
    let port = format!("{}/tcp", place::PORT);
    let binding = PortBinding { host_ip: Some(PUBLISHED.to_string()), host_port: Some(String::new()) };
    let mut environment: Vec<String> = Vec::new();
    if let Some(url) = &spec.management_url {
        environment.push(format!("WORKSHOP_MANAGEMENT_URL={url}"));
    }
    environment.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}")));
    let limit = |value: u64| (value > 0).then(|| i64::try_from(value).unwrap_or(i64::MAX));
    let log = HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some([("max-size", "5m"), ("max-file", "2")].map(|(key, value)| (key.into(), value.into())).into()),
    };
    ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        // The backend is root whatever the image's user is: it is the one who becomes the learner.
        user: Some("0:0".to_owned()),
        exposed_ports: Some(vec![port.clone()]),
        env: Some(environment),
        image: Some(image.to_owned()),
        entrypoint: Some(arguments),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        labels: Some(labels),
        host_config: Some(HostConfig {
            memory: limit(spec.memory_bytes),
            // Memory and swap together.
            memory_swap: limit(spec.memory_bytes),
            nano_cpus: limit(spec.cpu_millis.saturating_mul(1_000_000)),
            pids_limit: Some(PROCESSES),
            network_mode: Some(network.to_owned()),
            port_bindings: Some(HashMap::from([(port, Some(vec![binding]))])),
            extra_hosts: (!is_podman).then(|| vec!["host.docker.internal:host-gateway".to_owned()]),
            tmpfs: Some(HashMap::from([(
                place::STATE.to_owned(),
                "rw,nosuid,nodev,noexec,size=131072k,mode=0700".to_owned(),
            )])),
            binds: spec.persist.as_ref().map(|path| vec![format!("{}:{}", path.display(), place::PERSIST)]),
            log_config: (!is_podman).then_some(log),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The archive of the artifact and the token, paths from the root.
pub fn write_files(spec: &WorkspaceSpec, out: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    let token = spec.token.as_bytes();
    directory(&mut tar, "workshop/secret/", 0o700)?;
    append(&mut tar, place::TOKEN.trim_start_matches('/'), 0o400, token.len() as u64, token)?;
    let artifact = File::open(&spec.artifact)?;
    let size = artifact.metadata()?.len();
    let is_compressed = spec.artifact.extension().is_some_and(|extension| extension == "zst");
    let path = format!("{}{}", place::ARTIFACT.trim_start_matches('/'), if is_compressed { ".zst" } else { "" });
    // Root's alone: what the checks look for would be the answers.
    directory(&mut tar, "workshop/artifact/", 0o700)?;
    append(&mut tar, &path, 0o400, size, artifact)?;
    tar.into_inner()?.flush()
}

fn directory<W: Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    tar.append_data(&mut header, path, io::empty())
}
