//! Third beat: the sync that a repository asks for, made of the spec and the identities. Writes nothing anywhere.

use std::sync::Arc;

use super::dereference::Identities;
use super::validate::{Valid, approved};
use crate::adapters::registry::{Registries, RegistryOptions};
use crate::controller::Shared;
use crate::controller::outcome::Problem;
use crate::crd::WorkshopRepository;
use crate::crd::repository::Approval;
use crate::domain::source::Source;
use crate::pipeline::base::Bases;
use crate::pipeline::compile::{CommandPolicy, Compiler};
use crate::pipeline::image_end::ImageEnd;
use crate::pipeline::object_end::ObjectEnd;
use crate::pipeline::platform::host_architecture;
use crate::pipeline::source::Origin;
use crate::pipeline::sync::{Memory, Settings, Sync};

/// The sync of one repository.
pub(super) fn build(
    shared: &Shared,
    repository: &WorkshopRepository,
    namespace: &str,
    uid: &str,
    valid: &Valid,
    identities: Identities,
) -> Result<Sync, Problem> {
    let spec = &repository.spec;
    let state = &shared.options.state;
    let origin = Origin::open(&valid.source, state, identities.git, spec.ignore.as_deref())
        .map_err(|error| super::status::of_source(&error))?
        .with_timeout(valid.timeout);
    let compile = &spec.compile;
    let registries =
        Registries::new(RegistryOptions::of(identities.registry, compile.registry.as_deref(), compile.insecure));
    let bases = Bases::new(state, registries.clone(), host_architecture()).with_local_store();
    let mut commands = CommandPolicy {
        allowed: shared.options.allow_commands,
        network: spec.compile.network,
        ..CommandPolicy::default()
    };
    if let Some(timeout) = valid.command_timeout {
        commands.timeout = timeout;
    }
    Ok(Sync {
        origin,
        reference: valid.reference.clone(),
        objects: ObjectEnd::Cluster(Box::new(shared.cluster.clone())),
        compiler: Arc::new(Compiler::new(ImageEnd::Registry(registries), bases, state)),
        platform: shared.options.platform.clone(),
        store: Arc::clone(&shared.store),
        state: state.clone(),
        settings: Settings {
            owner: uid.to_owned(),
            source: valid.source.without_credentials(),
            paths: spec.paths.clone(),
            ignore: spec.ignore.clone(),
            registry: spec.compile.registry.clone(),
            pull_registry: spec.compile.pull_registry.clone(),
            pull_secret: spec
                .compile
                .secret_ref
                .as_ref()
                .map(|reference| (namespace.to_owned(), reference.name.clone())),
            target_namespace: spec.target_namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            prune: spec.prune,
            budget: valid.budget,
            manual: spec.approval == Approval::Manual,
            approved: approved(repository),
            commands,
            refresh_base: false,
            dry_run: false,
        },
        memory: tokio::sync::Mutex::new(Memory::default()),
    })
}

/// The directory of this machine that a source is, whose changes can be noticed at once.
pub(super) fn local_directory(source: &Source) -> Option<std::path::PathBuf> {
    match source {
        Source::Directory(path) => Some(path.clone()),
        Source::Git(url) => url.local_path().map(Into::into),
        Source::Artifact(_) | Source::Oci(_) => None,
    }
}
