//! First beat: the Secrets that a repository names, read one by one and kept no longer than the work needs them.

use std::collections::BTreeMap;

use crate::adapters::cluster;
use crate::adapters::registry;
use crate::controller::Shared;
use crate::controller::outcome::Problem;
use crate::crd::WorkshopRepository;
use crate::crd::conditions::Reason;
use crate::pipeline::source::Credentials;

/// The key in a Secret of type kubernetes.io/dockerconfigjson.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// Who we are elsewhere.
#[derive(Default)]
pub(super) struct Identities {
    pub(super) git: Credentials,
    pub(super) registry: registry::Credentials,
}

/// Reads the Secrets of `spec.secretRef` and `spec.compile.secretRef`.
pub(super) async fn read_identities(
    shared: &Shared,
    repository: &WorkshopRepository,
    namespace: &str,
) -> Result<Identities, Problem> {
    let spec = &repository.spec;
    let git = match &spec.secret_ref {
        None => Credentials::default(),
        Some(reference) => {
            let entries = read(shared, namespace, &reference.name, "spec.secretRef").await?;
            if entries.contains_key("ca.crt") {
                // The Secret may be mended any time, and Secrets are not watched.
                return Err(Problem::person(
                    Reason::Unsupported,
                    format!("the Secret \"{namespace}/{}\" has ca.crt, which this version cannot use", reference.name),
                ));
            }
            let credentials = Credentials::from_secret(|name| text(&entries, name));
            if credentials == Credentials::default() {
                return Err(unusable(
                    namespace,
                    &reference.name,
                    "has none of username, password, bearerToken, identity and known_hosts",
                ));
            }
            credentials
        }
    };
    let own = if shared.options.docker_credentials {
        registry::Credentials::docker()
    } else {
        registry::Credentials::anonymous()
    };
    let registry = match &spec.compile.secret_ref {
        None => own,
        Some(reference) => {
            let entries = read(shared, namespace, &reference.name, "spec.compile.secretRef").await?;
            let config = entries
                .get(DOCKER_CONFIG)
                .ok_or_else(|| unusable(namespace, &reference.name, "has no .dockerconfigjson"))?;
            own.with_pull_secret(config).map_err(|error| unusable(namespace, &reference.name, &error.to_string()))?
        }
    };
    Ok(Identities { git, registry })
}

async fn read(shared: &Shared, namespace: &str, name: &str, field: &str) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
    match shared.cluster.read_secret(namespace, name).await {
        Ok(Some(entries)) => Ok(entries),
        Ok(None) => Err(unusable(namespace, name, &format!("does not exist, but {field} names it"))),
        Err(error @ cluster::Error::Forbidden { .. }) => Err(Problem::outside(
            Reason::Forbidden,
            format!(
                "{error}; an administrator lets the controller read Secrets there by binding the ClusterRole workshop-repository-manager in the namespace \"{namespace}\""
            ),
        )),
        Err(error) => Err(super::status::of_cluster(&error)),
    }
}

fn unusable(namespace: &str, name: &str, what: &str) -> Problem {
    // Somebody may make or mend it any time, and Secrets are not watched.
    Problem::outside(Reason::SecretUnusable, format!("the Secret \"{namespace}/{name}\" {what}"))
}

fn text(entries: &BTreeMap<String, Vec<u8>>, name: &str) -> Option<String> {
    entries.get(name).and_then(|bytes| String::from_utf8(bytes.clone()).ok())
}
