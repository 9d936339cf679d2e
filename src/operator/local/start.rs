//! What a container is started from: the container contract's variables, files and limits for one decision.

use std::path::PathBuf;
use std::time::Duration;

use super::{Containers, Settings};
use crate::adapters::store;
use crate::domain::container::{Egress, WorkspaceSpec};
use crate::domain::lifecycle::Start;
use crate::domain::object::ObjectKey;
use crate::domain::token::Role;
use crate::domain::workspace::{ClusterMode, Workspace};

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
    if let Some(why) = refusal(&start.settings) {
        return Err(why);
    }
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

/// What a workshop asks for that one machine does not have, if anything: nothing of it is dropped in silence.
fn refusal(settings: &Workspace) -> Option<String> {
    let class = settings.isolation.runtime_class.as_deref();
    let wanted = match (settings.cluster.mode, class) {
        (ClusterMode::None, None) => return None,
        (ClusterMode::None, Some(class)) => {
            format!("the runtime class \"{class}\" of a cluster (isolation.runtimeClass)")
        }
        (_, _) => "a Kubernetes cluster for its learner (cluster.mode)".to_owned(),
    };
    Some(format!("its workshop wants {wanted}, which local mode does not have: run it with `workshop controller`"))
}

/// What of an instance outlives its containers.
pub fn persist_directory<R>(settings: &Settings<R>, uid: &str) -> PathBuf {
    settings.workspaces.state().join("persist").join(uid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::workspace::effective;

    #[test]
    fn what_one_machine_does_not_have_is_refused_by_name() {
        let check = |settings: serde_json::Value, expected: Option<&str>| {
            let refused = refusal(&effective(&settings, None).unwrap());
            let is_so = match (&refused, expected) {
                (Some(text), Some(part)) => text.contains(part) && text.contains("workshop controller"),
                (None, None) => true,
                _ => false,
            };
            assert!(is_so, "{settings}: {refused:?}");
        };
        check(json!({}), None);
        check(json!({"isolation": {"user": "root"}, "cluster": {"mode": "none"}}), None);
        check(json!({"cluster": {"mode": "shared"}}), Some("cluster.mode"));
        check(json!({"cluster": {"mode": "per-workspace"}}), Some("cluster.mode"));
        check(json!({"isolation": {"runtimeClass": "kata"}}), Some("\"kata\""));
    }
}
