//! Workspaces of a cluster, with the rights that the user's kubeconfig gives there; no controller is asked.
//!
//! It knows namespaces, keys and pods; what is changed in an instance is decided by `pipeline::workspace`.

use std::path::PathBuf;
use std::pin::pin;

use futures_util::StreamExt as _;

use super::OpenFlags;
use super::way::{failure, no_workspace};
use crate::adapters::cluster::{self, Cluster, KEYS, Keys};
use crate::cli::{Context, Exit, Failure, Printer};
use crate::crd::labels;
use crate::domain::token::Role;
use crate::gateway::{PublicUrl, TOKEN_TIME};
use crate::pipeline::workspace::{InstanceView, Workspaces};

/// The workspaces of a cluster.
pub struct InCluster {
    cluster: Cluster,
    workspaces: Workspaces,
    state: PathBuf,
}

impl InCluster {
    /// The cluster that the kubeconfig names; nothing is sent yet.
    pub async fn connect(context: &Context) -> Result<Self, Failure> {
        let (kubeconfig, name) = (context.kubeconfig.as_deref(), context.kube_context.as_deref());
        let cluster = Cluster::connect(kubeconfig, name, context.namespace.as_deref()).await.map_err(outside)?;
        let workspaces = Workspaces::open_cluster(cluster.clone(), None, None, &context.state);
        Ok(Self { cluster, workspaces, state: context.state.clone() })
    }

    /// The operations on them.
    pub fn workspaces(&self) -> &Workspaces {
        &self.workspaces
    }

    /// What operations take for an instance of the namespace.
    pub fn reference(&self, name: &str) -> Result<String, Failure> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        let is_name = (1..=253).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.');
        if is_name { Ok(labels::instance_reference(self.cluster.namespace(), name)) } else { Err(no_workspace(name)) }
    }

    /// Those of the namespace, or of all.
    pub async fn list(&self, all_namespaces: bool) -> Result<Vec<InstanceView>, Failure> {
        let namespace = (!all_namespaces).then(|| self.cluster.namespace());
        self.workspaces.list_in(namespace).await.map_err(failure)
    }

    /// The address that opens a workspace; without its token where the key that signs one may not be read.
    pub async fn open(&self, reference: &str, asked: &OpenFlags, printer: &Printer) -> Result<String, Failure> {
        let view = self.find(reference).await?;
        let person = view.person(asked.member.as_deref()).map_err(failure)?;
        let address = match &asked.gateway_url {
            Some(url) => format!("{url}w/{reference}/"),
            None if view.url.is_empty() => return Err(unknown_gateway("it is not known yet where it is reached")),
            None => view.url.clone(),
        };
        let namespace = &asked.system_namespace;
        let why = match self.cluster.read_keys(namespace).await {
            Ok(Some(keys)) => {
                let key = Some(keys.signing);
                let signing = Workspaces::open_cluster(self.cluster.clone(), None, key, &self.state);
                let token = signing.sign(&view.uid, person, Role::Learner, TOKEN_TIME).map_err(failure)?;
                return Ok(format!("{address}#token={token}"));
            }
            Ok(None) => {
                format!("there is no Secret \"{namespace}/{KEYS}\"; --system-namespace says where the controller is")
            }
            Err(error @ cluster::Error::Forbidden { .. }) => error.to_string(),
            Err(error) => return Err(outside(error)),
        };
        printer.talk_always(&format!("the address is without a token, so it asks for one: {why}"));
        Ok(address)
    }

    /// The address that opens all workspaces of the cluster.
    pub async fn open_all(&self, asked: &OpenFlags) -> Result<String, Failure> {
        let namespace = &asked.system_namespace;
        let keys: Option<Keys> = self.cluster.read_keys(namespace).await.map_err(outside)?;
        let keys = keys.ok_or_else(|| {
            Failure::new(Exit::Outside, format!("there is no Secret \"{namespace}/{KEYS}\""))
                .help("`workshop controller` makes it in its namespace, which --system-namespace names")
        })?;
        let url = match &asked.gateway_url {
            Some(url) => url.clone(),
            None => self.gateway().await?,
        };
        Ok(format!("{url}#key={}", keys.owner))
    }

    /// Where the gateway is, as any instance says it.
    async fn gateway(&self) -> Result<PublicUrl, Failure> {
        let views = self.workspaces.list_in(None).await.map_err(failure)?;
        let found = views.iter().find_map(|view| {
            let (origin, _) = view.url.split_once("/w/")?;
            origin.parse().ok()
        });
        found.ok_or_else(|| unknown_gateway("no workspace says where the gateway is"))
    }

    /// Prints what the workspace's program printed.
    pub async fn logs(&self, reference: &str, follow: bool, printer: &Printer) -> Result<(), Failure> {
        let view = self.find(reference).await?;
        let namespace = labels::workspace_namespace(&view.namespace, &view.name);
        let log = self.cluster.workspace_log(&namespace, follow).await.map_err(outside)?;
        let log = log.ok_or_else(|| {
            Failure::new(Exit::Outside, format!("there is no pod of \"{}\", so there is no log", view.name))
                .help("a workspace that sleeps has none: `workshop workspace resume --cluster` wakes it")
        })?;
        let mut log = pin!(log);
        while let Some(bytes) = log.next().await {
            printer.raw(&bytes.map_err(|error| Failure::outside("failed to read the log to its end", error))?);
        }
        Ok(())
    }

    async fn find(&self, reference: &str) -> Result<InstanceView, Failure> {
        let found = self.workspaces.get(reference).await.map_err(failure)?;
        found.ok_or_else(|| no_workspace(reference.split_once('.').map_or(reference, |(_, name)| name)))
    }
}

fn outside(error: cluster::Error) -> Failure {
    Failure::from_error(Exit::Outside, error)
}

fn unknown_gateway(why: &str) -> Failure {
    Failure::new(Exit::Outside, why).help("give the gateway's address by --gateway-url URL")
}
