//! The way from a verb to the workspaces: the control socket while `workshop up` runs, else the store itself, or a
//! cluster.
//!
//! All ways give the JSON of the control API, so that what a verb prints does not depend on the way.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::{Method, Request, header};
use serde_json::{Value, json};

use super::OpenFlags;
use super::in_cluster::InCluster;
use crate::adapters::store::Store;
use crate::cli::{Context, Exit, Failure, Printer};
use crate::domain::container::Address;
use crate::pipeline::upstream::{UpstreamError, control_socket, fetch, send};
use crate::pipeline::workspace::{Class, Error, InstanceView, Workspaces};

/// How long an answer of the control socket may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The way to the workspaces.
pub enum Way {
    /// Through the program that runs them.
    Running(Address),
    /// To their objects.
    Objects(Objects),
}

/// Where the objects of workspaces are.
pub enum Objects {
    /// In the store of this machine; nothing runs.
    Store(Workspaces),
    /// In a cluster, with the user's own rights there.
    Cluster(Box<InCluster>),
}

impl Objects {
    fn workspaces(&self) -> &Workspaces {
        match self {
            Self::Store(workspaces) => workspaces,
            Self::Cluster(cluster) => cluster.workspaces(),
        }
    }

    /// What operations take for a name.
    fn reference(&self, name: &str) -> Result<String, Failure> {
        match self {
            Self::Store(_) => Ok(name.to_owned()),
            Self::Cluster(cluster) => cluster.reference(name),
        }
    }

    /// A view with its address only where that leads somewhere.
    fn show(&self, view: &InstanceView) -> Value {
        let mut value = json!(view);
        if matches!(self, Self::Store(_)) || view.url.is_empty() {
            value["url"] = Value::Null;
        }
        value
    }
}

impl Way {
    /// To the cluster where that is asked for; else the control socket where something answers it, else the store.
    pub async fn find(is_cluster: bool, context: &Context) -> Result<Self, Failure> {
        if is_cluster {
            return Ok(Self::Objects(Objects::Cluster(Box::new(InCluster::connect(context).await?))));
        }
        let socket = control_socket(&context.state);
        let is_there = std::fs::symlink_metadata(&socket).is_ok();
        // A program that was killed leaves its socket behind, and nobody listens.
        if is_there && tokio::net::UnixStream::connect(&socket).await.is_ok() {
            return Ok(Self::Running(Address::Unix(socket)));
        }
        let store = Store::open(&context.state).map_err(|error| Failure::from_error(Exit::Outside, error))?;
        let workspaces = Workspaces::open(Arc::new(store), &context.state).map_err(failure)?;
        Ok(Self::Objects(Objects::Store(workspaces)))
    }

    /// Whether what is asked is carried out now.
    pub fn is_running(&self) -> bool {
        !matches!(self, Self::Objects(Objects::Store(_)))
    }

    /// Says when what was asked is carried out, unless it is now.
    pub fn say_when(&self, printer: &Printer) {
        if !self.is_running() {
            printer.talk("written down; it is carried out when `workshop up` runs");
        }
    }

    /// All workspaces; in a cluster those of the namespace, or of all.
    pub async fn list(&self, all_namespaces: bool) -> Result<Vec<Value>, Failure> {
        let (objects, views) = match self {
            Self::Running(address) => {
                return Ok(array(call(address, Method::GET, "instances", None).await?, "instances"));
            }
            Self::Objects(objects @ Objects::Store(workspaces)) => (objects, workspaces.list().await.map_err(failure)?),
            Self::Objects(objects @ Objects::Cluster(cluster)) => (objects, cluster.list(all_namespaces).await?),
        };
        Ok(views.iter().map(|view| objects.show(view)).collect())
    }

    /// Makes workspaces.
    pub async fn create(&self, body: Value) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Running(address) => {
                Ok(array(call(address, Method::POST, "instances", Some(body)).await?, "instances"))
            }
            Self::Objects(objects) => {
                let request = serde_json::from_value(body)
                    .map_err(|error| Failure::outside("failed to read what is asked for", error))?;
                let made = objects.workspaces().create(&request).await.map_err(failure)?;
                Ok(made.iter().map(|view| objects.show(view)).collect())
            }
        }
    }

    /// Takes a workspace away.
    pub async fn delete(&self, name: &str) -> Result<(), Failure> {
        match self {
            Self::Running(address) => {
                call(address, Method::DELETE, &format!("instances/{}", path_part(name)?), None).await.map(drop)
            }
            Self::Objects(objects) => objects.workspaces().delete(&objects.reference(name)?).await.map_err(failure),
        }
    }

    /// Asks something of a workspace.
    pub async fn change(&self, name: &str, verb: &'static str, body: Value) -> Result<Value, Failure> {
        match self {
            Self::Running(address) => {
                call(address, Method::POST, &format!("instances/{}/{verb}", path_part(name)?), Some(body)).await
            }
            Self::Objects(objects) => {
                let (workspaces, reference) = (objects.workspaces(), objects.reference(name)?);
                let changed = match verb {
                    "goto" => workspaces.goto(&reference, body["step"].as_str().unwrap_or_default()).await,
                    "reset" => workspaces.reset(&reference).await,
                    "suspend" => workspaces.suspend(&reference).await,
                    "resume" => workspaces.resume(&reference).await,
                    _ => workspaces.update(&reference).await,
                };
                changed.map(|view| objects.show(&view)).map_err(failure)
            }
        }
    }

    /// Gives a workspace more time; the new end.
    pub async fn extend(&self, name: &str, by: Option<Duration>) -> Result<String, Failure> {
        match self {
            Self::Running(address) => {
                let body = json!({ "seconds": by.map(|by| by.as_secs()) });
                let path = format!("instances/{}/extend", path_part(name)?);
                let answer = call(address, Method::POST, &path, Some(body)).await?;
                Ok(answer["expiresAt"].as_str().unwrap_or_default().to_owned())
            }
            Self::Objects(objects) => objects.workspaces().extend(&objects.reference(name)?, by).await.map_err(failure),
        }
    }

    /// The address that opens a workspace.
    pub async fn open(&self, name: &str, asked: &OpenFlags, printer: &Printer) -> Result<String, Failure> {
        match self {
            Self::Running(address) => {
                let path = format!("instances/{}/open", path_part(name)?);
                let body = json!({ "member": asked.member });
                let answer = call(address, Method::POST, &path, Some(body)).await?;
                Ok(answer["url"].as_str().unwrap_or_default().to_owned())
            }
            Self::Objects(Objects::Cluster(cluster)) => cluster.open(&cluster.reference(name)?, asked, printer).await,
            Self::Objects(Objects::Store(_)) => Err(not_running("a workspace can be opened only while it runs")),
        }
    }

    /// The address that opens all workspaces of a cluster.
    pub async fn open_all(&self, asked: &OpenFlags) -> Result<String, Failure> {
        match self {
            Self::Objects(Objects::Cluster(cluster)) => cluster.open_all(asked).await,
            Self::Running(_) | Self::Objects(Objects::Store(_)) => {
                Err(Failure::new(Exit::Usage, "it is not said which workspace is to be opened")
                    .help("`workshop workspace list` shows those there are; `workshop up` prints the address of all"))
            }
        }
    }

    /// Prints the log as it comes.
    pub async fn logs(&self, name: &str, follow: bool, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Running(address) => logs_of(address, name, follow, printer).await,
            Self::Objects(Objects::Cluster(cluster)) => cluster.logs(&cluster.reference(name)?, follow, printer).await,
            Self::Objects(Objects::Store(_)) => Err(not_running("there are logs only while workspaces run")),
        }
    }
}

async fn logs_of(address: &Address, name: &str, follow: bool, printer: &Printer) -> Result<(), Failure> {
    let path = format!("instances/{}/logs?follow={follow}", path_part(name)?);
    let response = send(address, request(Method::GET, &path, None)?, PATIENCE).await.map_err(outside)?;
    let status = response.status();
    let mut body = response.into_body();
    let mut refused = Vec::new();
    while let Some(frame) = body.frame().await {
        // The program that runs it may end at any time, and the log with it.
        let Ok(frame) = frame else { break };
        let bytes = frame.data_ref().map_or(&[][..], |data| &data[..]);
        if status.is_success() {
            printer.raw(bytes);
        } else if refused.len() < 64 << 10 {
            refused.extend_from_slice(bytes);
        }
    }
    if status.is_success() { Ok(()) } else { Err(refusal(status.as_u16(), &refused)) }
}

fn not_running(why: &str) -> Failure {
    Failure::new(Exit::Outside, format!("`workshop up` is not running here: {why}"))
        .help("start `workshop up`, or name its state directory by --state DIR")
}

/// A name becomes part of a path: what is none is not sent.
fn path_part(name: &str) -> Result<&str, Failure> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_name { Ok(name) } else { Err(no_workspace(name)) }
}

pub(super) fn no_workspace(name: &str) -> Failure {
    failure_of(Class::NotFound, format!("there is no workspace \"{name}\""), None)
}

fn array(mut value: Value, field: &str) -> Vec<Value> {
    match value[field].take() {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn request(method: Method, path: &str, body: Option<Value>) -> Result<Request<Body>, Failure> {
    Request::builder()
        .method(method)
        .uri(format!("/control/v1/{path}"))
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
        .map_err(|error| Failure::outside("failed to build a request", error))
}

async fn call(address: &Address, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
    let (status, bytes) = fetch(address, request(method, path, body)?, PATIENCE).await.map_err(outside)?;
    if !status.is_success() {
        return Err(refusal(status.as_u16(), &bytes));
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::outside("failed to read an answer of `workshop up`", error))
}

fn outside(error: UpstreamError) -> Failure {
    Failure::from_error(Exit::Outside, error).help("`workshop up` may have just ended: try again")
}

/// A refusal of the control API with the exit code that the same refusal has without it.
fn refusal(status: u16, body: &[u8]) -> Failure {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &answer["error"];
    let message = error["message"].as_str().unwrap_or("`workshop up` refused without a word").to_owned();
    let class = match status {
        404 => Class::NotFound,
        400 | 422 => Class::Invalid,
        403 | 409 => Class::Refused,
        _ => Class::Outside,
    };
    failure_of(class, message, error["help"].as_str())
}

/// An operation's error with its exit code.
pub fn failure(error: Error) -> Failure {
    let (class, help) = (error.class(), error.help().map(str::to_owned));
    let failure = Failure::from_error(exit_of(class), error);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

fn failure_of(class: Class, message: String, help: Option<&str>) -> Failure {
    let failure = Failure::new(exit_of(class), message);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

fn exit_of(class: Class) -> Exit {
    match class {
        Class::NotFound => Exit::No,
        Class::Invalid => Exit::Usage,
        Class::Refused => Exit::Refused,
        Class::Outside | Class::Unavailable => Exit::Outside,
    }
}
