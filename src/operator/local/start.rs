//! What a container is started from: the container contract's variables, files and limits for one decision.

use std::path::PathBuf;
use std::time::Duration;

use super::{Containers, Settings};
use crate::adapters::store;
use crate::domain::container::{Egress, WorkspaceSpec};
use crate::domain::lifecycle::Start;
use crate::domain::object::ObjectKey;
use crate::domain::token::Role;

/// How long a workspace's own token is valid; each start has a new one.
const TOKEN_SPAN: Duration = Duration::from_secs(366 * 24 * 3600);

/// The base path of an instance's pages, with slashes at both ends.
pub fn base_path(name: &str) -> String {
    format!("/w/{name}/")
}

/// What the container of `start` is started from.
pub fn build_spec<R: Containers>(
    settings: &Settings<R>,
    key: &ObjectKey,
    uid: &str,
    start: &Start,
) -> Result<WorkspaceSpec, String> {
    let workspaces = &settings.workspaces;
    let artifact = workspaces
        .artifact_path(&start.artifact)
        .filter(|path| path.is_file())
        .ok_or_else(|| format!("its artifact {} is not in the state directory", start.artifact))?;
    let wanted = serde_json::to_string(&start.settings).map_err(|error| error.to_string())?;
    let environment = [
        ("WORKSHOP_INSTANCE", uid.to_owned()),
        ("WORKSHOP_STEP", start.step.clone()),
        ("WORKSHOP_VERIFY_KEY", workspaces.verify_key().map_err(|error| error.to_string())?.to_string()),
        ("WORKSHOP_TOKEN_GENERATION", "0".to_owned()),
        ("WORKSHOP_BASE_PATH", base_path(&key.name)),
        ("WORKSHOP_SETTINGS", wanted),
    ];
    let resources = &start.settings.resources;
    let persist = start.settings.lifecycle.persist.as_ref().map(|_| persist_directory(settings, uid));
    if let Some(directory) = &persist {
        // Who is root in a workspace can leave a set-user-id program there: nobody else of the machine gets at it.
        store::make_private(directory.parent().unwrap_or(directory))
            .and_then(|()| std::fs::create_dir_all(directory))
            .map_err(|error| format!("failed to create \"{}\": {error}", directory.display()))?;
    }
    Ok(WorkspaceSpec {
        uid: uid.to_owned(),
        namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
        step: start.step.clone(),
        image: start.image.clone(),
        environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        artifact,
        token: workspaces.sign(uid, "workspace", Role::Workspace, TOKEN_SPAN).map_err(|error| error.to_string())?,
        persist,
        cpu_millis: u64::try_from(resources.cpu.thousandths()).unwrap_or(u64::MAX),
        memory_bytes: u64::try_from(resources.memory.units()).unwrap_or(u64::MAX),
        hostname: key.name.clone(),
        egress: Egress::of(start.settings.network.egress.as_deref()),
        management_socket: settings.management_socket.clone(),
        management_url: settings.management_url.clone(),
    })
}

/// What of an instance outlives its containers.
pub fn persist_directory<R>(settings: &Settings<R>, uid: &str) -> PathBuf {
    settings.workspaces.state().join("persist").join(uid)
}
