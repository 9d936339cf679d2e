//! New instances: their names, what is checked before, and all of them or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::cluster_end::ClusterEnd;
use super::end::{End, Held, blocking, identity, read_value};
use super::record::revision_of;
use super::{Error, InstanceView, NAMESPACE, Workspaces};
use crate::adapters::store::Store;
use crate::crd::{API_VERSION, WorkspaceTemplate, labels, validate};
use crate::domain::object::Kind;
use crate::domain::roster::owner_part;
use crate::domain::workspace::{IsolationMode, effective};

/// The most instances of one request.
const MAX_COUNT: u32 = 500;
/// The longest name, in characters: it is a host name's part too.
const MAX_NAME: usize = 63;
/// So many are made at the same time in a cluster.
const AT_ONCE: usize = 8;

/// Which instances are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRequest {
    /// The workshop's id.
    pub template: String,
    /// Its name; absent: `<prefix or template>-<owner>`.
    #[serde(default)]
    pub name: Option<String>,
    /// Whose it is; absent with `count`: each one's name.
    #[serde(default)]
    pub owner: String,
    /// Who shares it with its owner, where the workshop is for teams.
    #[serde(default)]
    pub members: Vec<String>,
    /// The step to begin with; absent: the first.
    #[serde(default)]
    pub step: Option<String>,
    /// How many; they are numbered from 1.
    #[serde(default)]
    pub count: Option<u32>,
    /// What the names begin with, in place of the template.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The namespace in a cluster; absent: the default one. Local mode has only `default`.
    #[serde(default)]
    pub namespace: Option<String>,
}

impl Workspaces {
    /// Makes instances, all of them or none.
    pub async fn create(&self, request: &CreateRequest) -> Result<Vec<InstanceView>, Error> {
        let namespace = self.namespace_of(request)?;
        let template = self.template(&request.template).await?.ok_or_else(|| Error::NotFound {
            what: "workshop",
            name: request.template.clone(),
            help: Some("`workshop get templates` shows those there are".to_owned()),
        })?;
        if let Some(problem) = self.problem(&template) {
            let message = format!("no workspace can be made of \"{}\": {problem}", request.template);
            return Err(Error::refused("TemplateUnusable", message, "`workshop sync` brings it in again"));
        }
        let steps: Vec<String> = template.spec.steps.iter().map(|step| step.id.clone()).collect();
        if let Some(step) = request.step.as_ref().filter(|step| !steps.contains(step)) {
            return Err(Error::no_step(step, &steps));
        }
        refuse_members(request, &template)?;
        let wanted = names(request)?;
        let manifests: Vec<Value> =
            wanted.iter().map(|(name, owner)| manifest(request, &namespace, name, owner)).collect();
        for manifest in &manifests {
            let violations = validate(manifest, None);
            if !violations.is_empty() {
                let message = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                return Err(Error::Invalid { message, help: None });
            }
        }
        self.refuse_taken(&namespace, &wanted).await?;
        let made = match &self.inner.end {
            End::Store(store) => blocking(store, move |store| make_stored(store, &manifests)).await?,
            End::Cluster(cluster) => make_in_cluster(cluster, &manifests).await?,
        };
        let mut views = Vec::new();
        for instance in &made {
            views.push(self.view(instance).await?);
        }
        Ok(views)
    }

    fn namespace_of(&self, request: &CreateRequest) -> Result<String, Error> {
        let asked = request.namespace.as_deref();
        match &self.inner.end {
            End::Cluster(cluster) => Ok(asked.unwrap_or(cluster.cluster.namespace()).to_owned()),
            End::Store(_) => match asked.filter(|asked| *asked != NAMESPACE) {
                None => Ok(NAMESPACE.to_owned()),
                Some(asked) => {
                    let message = format!("there is no namespace \"{asked}\" without a cluster");
                    Err(Error::invalid(message, format!("leave it out, or name \"{NAMESPACE}\"")))
                }
            },
        }
    }

    /// Names all that are taken at once, before anything is made.
    async fn refuse_taken(&self, namespace: &str, wanted: &[(String, String)]) -> Result<(), Error> {
        let known: BTreeSet<String> = match &self.inner.end {
            End::Store(store) => {
                blocking(store, |store| {
                    let objects = store.list_objects(None)?.into_iter().map(|live| live.key);
                    let instances = objects.filter(|key| key.kind == Kind::WorkspaceInstance);
                    Ok(instances
                        .filter(|key| key.namespace.as_deref() == Some(NAMESPACE))
                        .map(|key| key.name)
                        .collect())
                })
                .await?
            }
            End::Cluster(cluster) => {
                let instances = cluster.instances(Some(namespace)).await?;
                instances.iter().filter_map(|instance| instance.metadata.name.clone()).collect()
            }
        };
        let clashes: Vec<&str> =
            wanted.iter().map(|(name, _)| name.as_str()).filter(|name| known.contains(*name)).collect();
        if clashes.is_empty() { Ok(()) } else { Err(taken(&clashes)) }
    }
}

fn make_stored(store: &Store, manifests: &[Value]) -> Result<Vec<Held>, Error> {
    let mut made = Vec::new();
    for manifest in manifests {
        match store.create_object(manifest, labels::OWNER) {
            Ok(Some(live)) => made.push(live),
            other => {
                // All or none: another program took a name in this moment, or the disk is full.
                for live in &made {
                    store.delete_object(&live.key, &live.uid)?;
                }
                other?;
                return Err(taken(&[name_in(manifest)]));
            }
        }
    }
    made.into_iter().map(|live| read_value(live.manifest, &live.key.name).map(Arc::new)).collect()
}

async fn make_in_cluster(cluster: &ClusterEnd, manifests: &[Value]) -> Result<Vec<Held>, Error> {
    let (mut made, mut failure) = (Vec::new(), None);
    for part in manifests.chunks(AT_ONCE) {
        let answers = join_all(part.iter().map(|manifest| cluster.create(manifest))).await;
        for (manifest, answer) in part.iter().zip(answers) {
            match answer {
                Ok(Some(instance)) => made.push(instance),
                Ok(None) => failure = failure.or_else(|| Some(taken(&[name_in(manifest)]))),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if failure.is_some() {
            break;
        }
    }
    let Some(failure) = failure else { return Ok(made) };
    for instance in &made {
        let (key, uid) = identity(instance);
        if let Err(error) = cluster.cluster.delete(&key, &uid).await {
            tracing::warn!(instance = %key, %error, "failed to take back an instance that was made with others");
        }
    }
    Err(failure)
}

fn name_in(manifest: &Value) -> &str {
    manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

fn taken(names: &[&str]) -> Error {
    let shown = names.iter().take(5).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(5);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    let help = "open what is there, or give another name, owner or prefix";
    Error::refused("NameTaken", format!("there is a workspace {shown}{rest} already"), help)
}

/// The names and owners of the wanted instances.
fn names(request: &CreateRequest) -> Result<Vec<(String, String)>, Error> {
    let prefix = request.prefix.as_deref().unwrap_or(&request.template);
    let joined = |rest: &str| format!("{}-{rest}", prefix.trim_end_matches('-'));
    let owner = request.owner.trim();
    let wanted = match request.count {
        Some(count) if count != 1 || owner.is_empty() => {
            if count == 0 || count > MAX_COUNT {
                let message = format!("{count} workspaces cannot be made at once");
                return Err(Error::invalid(message, format!("ask for 1 to {MAX_COUNT}")));
            }
            if request.name.is_some() {
                let help = "give a prefix: the names are the prefix and a number";
                return Err(Error::invalid("several workspaces cannot have one name", help));
            }
            // As many digits for all, so that names sort as numbers do.
            let width = count.to_string().len();
            let stem =
                if owner.is_empty() || request.prefix.is_some() { String::new() } else { owner_part(owner) + "-" };
            (1..=count)
                .map(|number| {
                    let name = joined(&format!("{stem}{number:0width$}"));
                    (name.clone(), if owner.is_empty() { name } else { owner.to_owned() })
                })
                .collect()
        }
        _ if owner.is_empty() => {
            return Err(Error::invalid("a workspace needs an owner", "give the learner's user name or mail address"));
        }
        _ => {
            let name = request.name.clone().unwrap_or_else(|| joined(owner_part(owner).trim_matches('-')));
            vec![(name, owner.to_owned())]
        }
    };
    for (name, _) in &wanted {
        check_name(name)?;
    }
    Ok(wanted)
}

/// Members are for workshops whose workspaces are shared, and for one workspace.
fn refuse_members(request: &CreateRequest, template: &WorkspaceTemplate) -> Result<(), Error> {
    if request.members.is_empty() {
        return Ok(());
    }
    let settings = effective(&revision_of(template).defaults, None).unwrap_or_default();
    if settings.isolation.mode != IsolationMode::Team {
        let message = format!("workspaces of \"{}\" are not shared, so they have no members", request.template);
        return Err(Error::invalid(
            message,
            "leave them out; isolation.mode: team in workspace.yaml makes it a team's",
        ));
    }
    if request.count.is_some_and(|count| count > 1) {
        return Err(Error::invalid("several workspaces cannot have the same members", "make one for each team"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| plain(byte) || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_name {
        return Ok(());
    }
    let help = format!("a name has at most {MAX_NAME} of a-z, 0-9 and -, and no hyphen at either end");
    Err(Error::invalid(format!("\"{name}\" cannot be the name of a workspace"), help))
}

fn manifest(request: &CreateRequest, namespace: &str, name: &str, owner: &str) -> Value {
    let mut spec = json!({ "templateRef": { "name": request.template }, "owner": owner });
    if let (Some(step), Some(spec)) = (&request.step, spec.as_object_mut()) {
        spec.insert("currentStep".into(), step.clone().into());
    }
    if !request.members.is_empty() {
        spec["members"] = json!(request.members);
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "WorkspaceInstance",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { (labels::WORKSHOP): request.template },
            "finalizers": [labels::INSTANCE_FINALIZER],
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: CreateRequest, expected: Result<&[(&str, &str)], &str>) {
        let request = CreateRequest { template: "first".into(), ..request };
        let found = names(&request).map_err(|error| error.to_string());
        let expected = expected.map_err(str::to_owned).map(|names| {
            names.iter().map(|(name, owner)| ((*name).to_owned(), (*owner).to_owned())).collect::<Vec<_>>()
        });
        assert_eq!(found, expected, "{request:?}");
    }

    #[test]
    fn names_come_from_prefix_and_owner_and_numbers_sort() {
        let of = |owner: &str| CreateRequest { owner: owner.into(), ..CreateRequest::default() };
        check(of("ada"), Ok(&[("first-ada", "ada")]));
        check(of("Ada@Example.org"), Ok(&[("first-ada-example-org", "Ada@Example.org")]));
        check(CreateRequest { name: Some("mine".into()), ..of("ada") }, Ok(&[("mine", "ada")]));
        check(CreateRequest { prefix: Some("student-".into()), ..of("ada") }, Ok(&[("student-ada", "ada")]));
        let class = CreateRequest { count: Some(10), prefix: Some("student-".into()), ..CreateRequest::default() };
        let made = names(&CreateRequest { template: "first".into(), ..class }).unwrap();
        assert_eq!(made.len(), 10);
        assert_eq!((made[0].0.as_str(), made[9].0.as_str()), ("student-01", "student-10"));
        assert_eq!(made[0].0, made[0].1);
        check(CreateRequest { count: Some(1), ..of("ada") }, Ok(&[("first-ada", "ada")]));
        check(of(" "), Err("a workspace needs an owner"));
        check(of("é"), Err("\"first-\" cannot be the name of a workspace"));
        check(CreateRequest { name: Some("No".into()), ..of("ada") }, Err("\"No\" cannot be the name of a workspace"));
        check(CreateRequest { count: Some(0), ..of("ada") }, Err("0 workspaces cannot be made at once"));
        let both = CreateRequest { count: Some(2), name: Some("x".into()), ..of("ada") };
        check(both, Err("several workspaces cannot have one name"));
    }
}
