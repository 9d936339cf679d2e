//! What a controller serves besides itself: the management API for workspaces' pods and the gateway for browsers, on
//! every replica.
//!
//! It reads flags and starts both over the cluster; what they answer is their own matter.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Exit, Failure};
use crate::adapters::cluster::{Cluster, Mirror};
use crate::crd::labels;
use crate::domain::token::SigningKey;
use crate::gateway::server::Lines;
use crate::gateway::{Gateway, OwnerKey, Place, PublicUrl, Settings, management, server};
use crate::pipeline::workspace::Workspaces;

/// The port of the management API that is tried first.
const MANAGEMENT_PORT: u16 = 8081;
/// The port of the gateway that is tried first.
const GATEWAY_PORT: u16 = 8082;
/// Whose workspaces are those that the owner's page makes.
const PERSON: &str = "owner";
/// How long the servers may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// What is served where.
#[derive(Debug, Clone, clap::Args)]
pub struct FrontFlags {
    /// URL at which workspaces' pods reach the management API; without it they run alone and keep no progress
    #[arg(long, value_name = "URL", value_parser = parse_management_url)]
    management_url: Option<String>,
    /// Address of the management API [default: 127.0.0.1:8081, in a pod 0.0.0.0:8081, another port when that is busy]
    #[arg(long, value_name = "ADDRESS:PORT")]
    management_listen: Option<SocketAddr>,
    /// URL at which browsers reach the gateway, e.g. that of an Ingress [default: the address it listens on]
    #[arg(long, value_name = "URL")]
    gateway_url: Option<PublicUrl>,
    /// Address of the gateway [default: 127.0.0.1:8082, in a pod 0.0.0.0:8082, another port when that is busy]
    #[arg(long, value_name = "ADDRESS:PORT")]
    gateway_listen: Option<SocketAddr>,
}

/// The running fronts, and what the operator shares with them.
pub struct Fronts {
    /// The gateway.
    pub gateway: Gateway,
    /// The instances of the cluster.
    pub workspaces: Workspaces,
    /// The copy of them that all parts of this program read.
    pub mirror: Mirror,
    /// The key that signs tokens.
    pub key: SigningKey,
    /// What pods are told of the management API, without a slash at the end.
    pub management_url: Option<String>,
    /// Where the management API listens.
    pub management: SocketAddr,
    tasks: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Fronts {
    /// Serves the instances of the cluster until `stop`. Its keys are made where there are none.
    pub async fn start(
        cluster: &Cluster,
        flags: &FrontFlags,
        state: &Path,
        is_in_pod: bool,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        super::serving::raise_open_files();
        let namespace = cluster.namespace();
        let keys = cluster.read_or_make_keys(namespace).await.map_err(|error| {
            Failure::from_error(Exit::Outside, error).help(format!(
                "the controller keeps its keys in namespace \"{namespace}\": name another by -n, or see manifests/rights.yaml for the rights it needs there"
            ))
        })?;
        let owner = OwnerKey::from_text(&keys.owner).map_err(|error| Failure::from_error(Exit::Outside, error))?;
        let mirror = cluster.mirror(stop.clone());
        let key = keys.signing;
        let workspaces = Workspaces::open_cluster(cluster.clone(), Some(mirror.clone()), Some(key.clone()), state);

        let anyone = if is_in_pod { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let (listener, listening) = listen(flags.gateway_listen, anyone.into(), GATEWAY_PORT).await?;
        let settings = Settings {
            workspaces: workspaces.clone(),
            logs: Some(logs_of(cluster, &mirror)),
            owner,
            person: PERSON.to_owned(),
            stop: stop.clone(),
        };
        let gateway = Gateway::new(settings, Place::new(listening, flags.gateway_url.clone()));
        let mut tasks = vec![tokio::spawn(server::serve(gateway.clone(), listener))];

        let (listener, management) = listen(flags.management_listen, anyone.into(), MANAGEMENT_PORT).await?;
        let routes = management::routes(workspaces.clone());
        let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        tasks.push(tokio::spawn(serving.into_future()));
        let management_url = flags.management_url.clone();
        Ok(Self { gateway, workspaces, mirror, key, management_url, management, tasks })
    }

    /// Waits for the servers to end after `stop`.
    pub async fn end(self) {
        let _ = tokio::time::timeout(GRACE, futures_util::future::join_all(self.tasks)).await;
    }
}

/// Listens on `wish`, else on the usual port or, when that is busy, on a free one.
async fn listen(wish: Option<SocketAddr>, ip: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = match wish {
        Some(address) => TcpListener::bind(address).await,
        None => match TcpListener::bind((ip, port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind((ip, 0)).await,
        },
    };
    let listener = bound.map_err(|error| {
        Failure::outside(format!("failed to listen on {}", wish.unwrap_or((ip, port).into())), error)
    })?;
    let address = listener.local_addr().map_err(|error| Failure::outside("failed to read the port", error))?;
    Ok((listener, address))
}

/// Reads the logs of workspaces from their pods.
fn logs_of(cluster: &Cluster, mirror: &Mirror) -> server::Logs {
    let (cluster, mirror) = (cluster.clone(), mirror.clone());
    Arc::new(move |uid, follow| {
        let (cluster, instance) = (cluster.clone(), mirror.instance_by_uid(&uid));
        async move {
            let instance = instance.ok_or("the instance is gone")?;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (namespace, name) = (text(&instance.metadata.namespace), text(&instance.metadata.name));
            let log = cluster.workspace_log(&labels::workspace_namespace(&namespace, &name), follow).await?;
            let lines: Lines = log.ok_or("there is no pod, so there is no log")?.map_err(axum::BoxError::from).boxed();
            Ok(lines)
        }
        .boxed()
    })
}

fn parse_management_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it is not of the form http://HOST:PORT".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("it has more than a scheme, a host and a port".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_given_a_plain_http_address() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(parse_management_url(text).ok().as_deref(), expected, "{text}");
        }
        check(
            "http://workshop-controller.workshop-system.svc:8081",
            Some("http://workshop-controller.workshop-system.svc:8081"),
        );
        check("https://10.0.0.1:8081/", Some("https://10.0.0.1:8081"));
        check("http://10.0.0.1/below", None);
        check("unix:/run/x.sock", None);
        check("10.0.0.1:8081", None);
        check("", None);
    }

    #[tokio::test]
    async fn a_busy_usual_port_is_no_hindrance_and_a_busy_wish_is_one() {
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        let (_held, taken) = listen(None, ip, 0).await.unwrap();
        let (_other, another) = listen(None, ip, taken.port()).await.unwrap();
        assert_ne!(another.port(), taken.port());
        assert_eq!(listen(Some(taken), ip, 0).await.unwrap_err().exit(), Exit::Outside);
    }
}
