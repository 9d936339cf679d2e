//! Workspaces in a container engine, Docker or Podman, by its API.
//!
//! Everything of ours there carries labels with the hash of the state directory, by which it is found again; containers
//! and networks without that label are never touched. When a workspace runs is the caller's to decide.

mod archive;
mod body;
mod find;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, TryStreamExt as _};
use tokio_util::bytes::Bytes;

pub use archive::ImageSource;
pub use find::Surroundings;

use crate::domain::container::{
    Address, Capabilities, Found, FoundState, ManagementReach, RuntimeChoice, WorkspaceSpec, place,
};
use crate::domain::digest::Digest;

/// How long an answer may take, in seconds; images are handed over within it.
const TIMEOUT: u64 = 600;
/// How long it may take until somebody answers at all.
const CONNECT: Duration = Duration::from_secs(3);
/// The label of the state directory's hash.
const STATE: &str = "workshop.platform/state";
const UID: &str = "workshop.platform/uid";
const NAME: &str = "workshop.platform/name";
const STEP: &str = "workshop.platform/step";
const FINGERPRINT: &str = "workshop.platform/fingerprint";

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers there.
    #[error("{choice} at {address}: {reason}")]
    Unreachable {
        /// Which engine was looked for.
        choice: RuntimeChoice,
        /// Where.
        address: String,
        /// What is wrong with that.
        reason: String,
    },
    /// The engine refused.
    #[error("the engine could not {doing}")]
    Api {
        /// What it was asked for, as an infinitive.
        doing: &'static str,
        /// Its reason.
        source: Box<Error>,
    },
    /// A container of this instance runs already.
    #[error("the workspace \"{0}\" runs already")]
    AlreadyRuns(String),
    /// There is none of this instance.
    #[error("there is no container of the instance {0}")]
    Unknown(String),
    /// The container runs, and nobody can tell where its port is.
    #[error("the engine does not tell the address of the workspace \"{0}\"")]
    NoAddress(String),
}

fn api(doing: &'static str) -> impl FnOnce(Error) -> EngineError {
    move |source| EngineError::Api { doing, source: Box::new(source) }
}

/// An engine and the workspaces of one state directory in it.
pub struct Engine {
    docker: Docker,
    capabilities: Capabilities,
    is_podman: bool,
    /// Stands for the state directory.
    state: String,
    /// Workspaces that are being started; a look passes over what is half made of them.
    starting: Mutex<HashSet<String>>,
}

impl Engine {
    /// The first engine of this kind that answers; all reasons where none does.
    pub async fn find(
        choice: RuntimeChoice,
        surroundings: &Surroundings,
        state: &Path,
    ) -> Result<Self, Vec<EngineError>> {
        let mut errors = Vec::new();
        for address in surroundings.addresses(choice) {
            let connected =
                tokio::time::timeout(CONNECT, Self::connect(choice, &address, state, surroundings.listen)).await;
            match connected.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
                Ok(engine) => return Ok(engine),
                Err(reason) => errors.push(EngineError::Unreachable { choice, address, reason }),
            }
        }
        Err(errors)
    }

    async fn connect(
        choice: RuntimeChoice,
        address: &str,
        state: &Path,
        named: Option<IpAddr>,
    ) -> Result<Self, String> {
        let docker = open(address)?.negotiate_version().await.map_err(|error| error.to_string())?;
        let version = docker.version().await.map_err(|error| error.to_string())?;
        let info = docker.info().await.map_err(|error| error.to_string())?;
        let is_podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
        let name = if is_podman { "podman" } else { "docker" };
        let rootless = info.security_options.iter().flatten().any(|option| option.contains("rootless"));
        let network = if is_podman { "podman" } else { "bridge" };
        let gateway = gateway(&docker, network).await;
        let listen = choose_listen(named, rootless, gateway, network)?;
        let host = if is_podman { "host.containers.internal" } else { "host.docker.internal" };
        let capabilities = Capabilities {
            name,
            description: format!("{choice} {} at {address}", version.version.as_deref().unwrap_or("?")),
            rootless,
            egress: true,
            egress_note: "the internet through the engine; destinations of network.egress are not enforced, and \
                          an empty list only leaves out address translation"
                .to_owned(),
            egress_rules: false,
            persist: true,
            management: ManagementReach::Network { listen, host: host.to_owned() },
        };
        let path = std::path::absolute(state).map_err(|error| error.to_string())?.display().to_string();
        let state = Digest::of(path.as_bytes()).short();
        Ok(Self { docker, capabilities, is_podman, state, starting: Mutex::default() })
    }

    /// What it can do.
    pub fn describe(&self) -> Capabilities {
        self.capabilities.clone()
    }

    /// Hands an image over unless the engine has it, and gives the engine's id of it.
    pub async fn load(&self, image: ImageSource) -> Result<String, EngineError> {
        let tag = image.tag();
        if let Some(id) = self.image_id(&tag).await? {
            return Ok(id);
        }
        let options = query::ImportImageOptionsBuilder::default().quiet(true).build();
        let loaded = self.docker.import_image_stream(options, image.stream(), None);
        loaded.try_for_each(|_| async { Ok(()) }).await.map_err(api("load an image"))?;
        self.image_id(&tag).await?.ok_or_else(|| EngineError::Api {
            doing: "find the image that it loaded",
            source: Box::new(Error::DockerResponseServerError { status_code: 404, message: tag }),
        })
    }

    async fn image_id(&self, tag: &str) -> Result<Option<String>, EngineError> {
        Ok(found(self.docker.inspect_image(tag).await).map_err(api("look for an image"))?.and_then(|image| image.id))
    }

    /// Starts a workspace from an image of the engine; returns once its first process runs.
    pub async fn start(
        &self,
        spec: &WorkspaceSpec,
        fingerprint: &str,
        image: &str,
        arguments: Vec<String>,
    ) -> Result<Found, EngineError> {
        let name = self.name_of(&spec.uid);
        if let Some(had) = self.inspect(&name).await?
            && had.state.as_ref().and_then(|state| state.running) == Some(true)
        {
            return Err(EngineError::AlreadyRuns(spec.name.clone()));
        }
        self.remove(&name).await?;
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let started = self.start_as(&name, spec, fingerprint, image, arguments).await;
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        if started.is_err() {
            // The error of the start is the one to tell.
            let _ = self.remove(&name).await;
        }
        started
    }

    async fn start_as(
        &self,
        name: &str,
        spec: &WorkspaceSpec,
        fingerprint: &str,
        image: &str,
        arguments: Vec<String>,
    ) -> Result<Found, EngineError> {
        let labels: HashMap<String, String> = [
            (STATE, self.state.as_str()),
            (UID, &spec.uid),
            (NAME, &spec.name),
            (STEP, &spec.step),
            (FINGERPRINT, fingerprint),
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into();
        let network = body::network(name, &spec.egress, labels.clone(), self.is_podman);
        self.docker.create_network(network).await.map_err(api("make a network"))?;
        let container = body::container(name, spec, image, arguments, labels, self.is_podman);
        let options = query::CreateContainerOptionsBuilder::default().name(name).build();
        self.docker.create_container(Some(options), container).await.map_err(api("make a container"))?;
        let files = archive::stream({
            let spec = spec.clone();
            move |out| body::write_files(&spec, out)
        });
        let options = query::UploadToContainerOptionsBuilder::default().path("/").build();
        let upload = self.docker.upload_to_container(name, Some(options), bollard::body_try_stream(files));
        upload.await.map_err(api("put the artifact into a container"))?;
        self.start_made(name).await?;
        let started = self.inspect(name).await?.and_then(|container| read(&container));
        match started {
            Some(started) if started.address.is_none() && started.state == FoundState::Running => {
                Err(EngineError::NoAddress(spec.name.clone()))
            }
            started => started.ok_or_else(|| EngineError::Unknown(spec.uid.clone())),
        }
    }

    /// Starts a container that was made. The daemon may still be unmounting its root after the upload, and then
    /// says that its program is not there; the container can be started again.
    async fn start_made(&self, name: &str) -> Result<(), EngineError> {
        let mut waits = [50, 200, 1000].into_iter().map(Duration::from_millis);
        loop {
            let options = None::<query::StartContainerOptions>;
            match self.docker.start_container(name, options).await {
                Ok(()) => return Ok(()),
                Err(error) => match waits.next() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(api("start a container")(error)),
                },
            }
        }
    }

    /// Stops and removes the workspace of this instance with its network; nothing happens where there is none.
    pub async fn stop(&self, uid: &str, grace: Duration) -> Result<(), EngineError> {
        let name = self.name_of(uid);
        let seconds = i32::try_from(grace.as_secs().max(u64::from(!grace.is_zero()))).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
        found(self.docker.stop_container(&name, Some(options)).await).map_err(api("stop a container"))?;
        self.remove(&name).await
    }

    /// All workspaces of the state directory; remains of unfinished starts are removed.
    pub async fn list(&self) -> Result<Vec<Found>, EngineError> {
        let filters = || HashMap::from([("label".to_owned(), vec![format!("{STATE}={}", self.state)])]);
        let options = query::ListContainersOptionsBuilder::default().all(true).filters(&filters()).build();
        let containers = self.docker.list_containers(Some(options)).await.map_err(api("list containers"))?;
        let mut workspaces = Vec::new();
        let mut names = HashSet::new();
        for id in containers.into_iter().filter_map(|container| container.id) {
            // It may be gone since.
            let Some(container) = self.inspect(&id).await? else { continue };
            let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned();
            match read(&container) {
                Some(found) if found.state == FoundState::Created && self.is_starting(&name) => {}
                Some(found) if found.state == FoundState::Created => self.remove(&name).await?,
                Some(found) => workspaces.push(found),
                None => {}
            }
            names.insert(name);
        }
        let options = query::ListNetworksOptionsBuilder::default().filters(&filters()).build();
        let networks = self.docker.list_networks(Some(options)).await.map_err(api("list networks"))?;
        for name in networks.into_iter().filter_map(|network| network.name) {
            if !names.contains(&name) && !self.is_starting(&name) {
                found(self.docker.remove_network(&name).await).map_err(api("remove a network"))?;
            }
        }
        Ok(workspaces)
    }

    /// What the workspace's first process printed.
    pub async fn logs(
        &self,
        uid: &str,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, EngineError>> + Send + 'static, EngineError> {
        let name = self.name_of(uid);
        if self.inspect(&name).await?.is_none() {
            return Err(EngineError::Unknown(uid.to_owned()));
        }
        let options = query::LogsOptionsBuilder::default().follow(follow).stdout(true).stderr(true).build();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let docker = self.docker.clone();
        tokio::spawn(async move {
            let mut lines = std::pin::pin!(docker.logs(&name, Some(options)));
            loop {
                let piece = tokio::select! {
                    piece = lines.try_next() => piece.transpose(),
                    () = sender.closed() => None,
                };
                let Some(piece) = piece else { break };
                let piece = piece.map(bollard::container::LogOutput::into_bytes).map_err(api("read the output"));
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver))
    }

    fn name_of(&self, uid: &str) -> String {
        format!("workshop-{}-{}", self.state, Digest::of(uid.as_bytes()).short())
    }

    fn is_starting(&self, name: &str) -> bool {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let options = None::<query::InspectContainerOptions>;
        found(self.docker.inspect_container(name, options).await).map_err(api("look at a container"))
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        found(self.docker.remove_container(name, Some(options)).await).map_err(api("remove a container"))?;
        found(self.docker.remove_network(name).await).map_err(api("remove a network")).map(drop)
    }
}

/// A client for this address; what it names must be on this machine, whose loopback the ports are on.
fn open(address: &str) -> Result<Docker, String> {
    let text = |error: Error| error.to_string();
    if let Some(path) = address.strip_prefix("unix://") {
        return match Path::new(path).exists() {
            true => Docker::connect_with_unix(path, TIMEOUT, API_DEFAULT_VERSION).map_err(text),
            false => Err("there is no such socket".to_owned()),
        };
    }
    let Some(host) = address.strip_prefix("tcp://").or_else(|| address.strip_prefix("http://")) else {
        return Err("only unix:// and tcp:// addresses are supported".to_owned());
    };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    if name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return Err("it is on another machine, whose workspaces could not be reached from here".to_owned());
    }
    Docker::connect_with_http(address, TIMEOUT, API_DEFAULT_VERSION).map_err(text)
}

/// The address that this machine has in an engine's network.
/// Where the management API listens so that workspaces reach it: on what the user names, else on the engine's own
/// bridge. Never on all networks of the machine unasked.
fn choose_listen(
    named: Option<IpAddr>,
    rootless: bool,
    gateway: Option<IpAddr>,
    network: &str,
) -> Result<IpAddr, String> {
    let help = "set WORKSHOP_MANAGEMENT_LISTEN to an address of this machine that its containers reach";
    match (named, gateway) {
        (Some(named), _) => Ok(named),
        (None, _) if rootless => Err(format!(
            "it is rootless, so its networks are not this machine's and workspaces find no way back: {help}"
        )),
        (None, Some(gateway)) => Ok(gateway),
        (None, None) => {
            Err(format!("it tells no gateway of its network \"{network}\", so workspaces find no way back: {help}"))
        }
    }
}

async fn gateway(docker: &Docker, network: &str) -> Option<IpAddr> {
    let network = docker.inspect_network(network, None::<query::InspectNetworkOptions>).await.ok()?;
    network.ipam?.config?.into_iter().find_map(|config| {
        let told = config.gateway.and_then(|gateway| gateway.parse().ok()).filter(IpAddr::is_ipv4);
        // A daemon that has just made its bridge names the subnet only, of which it takes the first address.
        told.or_else(|| first_address(&config.subnet?))
    })
}

/// The first address of an IPv4 subnet such as `172.17.0.0/16`.
fn first_address(subnet: &str) -> Option<IpAddr> {
    let (address, length) = subnet.split_once('/')?;
    let (address, length) = (address.parse::<Ipv4Addr>().ok()?, length.parse::<u32>().ok().filter(|it| *it <= 30)?);
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    Some(Ipv4Addr::from_bits((address.to_bits() & mask) + 1).into())
}

/// None where the engine says that there is no such thing, or that it is so already.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an engine tells of one of our containers; none where it is not one.
fn read(container: &ContainerInspectResponse) -> Option<Found> {
    let labels = container.config.as_ref()?.labels.as_ref()?;
    let label = |name: &str| labels.get(name).cloned();
    let state = container.state.as_ref()?;
    let stands = match state.status? {
        ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY => FoundState::Created,
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED | ContainerStateStatusEnum::RESTARTING => {
            FoundState::Running
        }
        _ => FoundState::Exited { code: state.exit_code.and_then(|code| i32::try_from(code).ok()) },
    };
    let port = || {
        let ports = container.network_settings.as_ref()?.ports.as_ref()?;
        let bindings = ports.get(&format!("{}/tcp", place::PORT))?.as_ref()?;
        bindings.iter().find_map(|binding| {
            let port: u16 = binding.host_port.as_ref()?.parse().ok()?;
            let ip = binding.host_ip.as_ref().and_then(|ip| ip.parse().ok()).filter(IpAddr::is_loopback);
            Some(Address::Tcp(SocketAddr::from((ip.unwrap_or(body::PUBLISHED.into()), port))))
        })
    };
    Some(Found {
        uid: label(UID)?,
        step: label(STEP)?,
        generation_label: label(FINGERPRINT)?,
        state: stands,
        address: (stands == FoundState::Running).then(port).flatten(),
        started_at: state.started_at.as_ref().and_then(|moment| moment.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_subnet_is_behind_its_own() {
        for (subnet, expected) in [
            ("172.17.0.0/16", Some("172.17.0.1")),
            ("192.168.9.128/25", Some("192.168.9.129")),
            ("10.1.2.3/8", Some("10.0.0.1")),
            ("10.0.0.0/31", None),
            ("10.0.0.0/99", None),
            ("fd00::/64", None),
            ("10.0.0.0", None),
        ] {
            assert_eq!(first_address(subnet).map(|it| it.to_string()).as_deref(), expected, "{subnet}");
        }
    }

    #[test]
    fn workspaces_are_never_listened_for_on_all_networks_unasked() {
        let bridge: IpAddr = "172.17.0.1".parse().unwrap();
        let named: IpAddr = "10.1.2.3".parse().unwrap();
        for (wish, rootless, gateway, expected) in [
            (None, false, Some(bridge), Some(bridge)),
            (None, false, None, None),
            (None, true, Some(bridge), None),
            (None, true, None, None),
            (Some(named), true, None, Some(named)),
            (Some(named), false, Some(bridge), Some(named)),
        ] {
            let chosen = choose_listen(wish, rootless, gateway, "bridge");
            assert_eq!(chosen.as_ref().ok(), expected.as_ref(), "{wish:?} {rootless} {gateway:?}");
            assert!(chosen.is_ok() || chosen.unwrap_err().contains("WORKSHOP_MANAGEMENT_LISTEN"));
        }
    }

    #[test]
    fn engines_of_other_machines_are_refused() {
        for (address, reason) in [
            ("tcp://192.0.2.1:2375", Some("another machine")),
            ("ssh://host", Some("only unix:// and tcp://")),
            ("unix:///nonexistent.sock", Some("no such socket")),
            ("tcp://127.0.0.1:2375", None),
        ] {
            let error = open(address).err();
            assert_eq!(error.is_some(), reason.is_some(), "{address}: {error:?}");
            assert!(error.unwrap_or_default().contains(reason.unwrap_or_default()), "{address}");
        }
    }

    #[test]
    fn a_container_tells_its_port_while_it_runs() {
        let inspect = |status: &str| -> ContainerInspectResponse {
            serde_json::from_value(serde_json::json!({
                "State": { "Status": status, "ExitCode": 137, "StartedAt": "2026-01-02T03:04:05.6Z" },
                "Config": { "Labels": { (UID): "u", (STEP): "one", (FINGERPRINT): "f" } },
                "NetworkSettings": { "Ports": { "7681/tcp": [{ "HostIp": "127.77.0.1", "HostPort": "49153" }] } },
            }))
            .unwrap()
        };
        let running = read(&inspect("running")).unwrap();
        assert_eq!(running.address, Some(Address::Tcp("127.77.0.1:49153".parse().unwrap())));
        assert!(running.started_at.is_some());
        let exited = read(&inspect("exited")).unwrap();
        assert_eq!((exited.state, exited.address), (FoundState::Exited { code: Some(137) }, None));
        assert_eq!(read(&inspect("created")).unwrap().state, FoundState::Created);
    }
}
