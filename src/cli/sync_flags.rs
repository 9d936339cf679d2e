//! The flags that `sync` and `up` share, and how they become a [`Sync`].

use std::path::PathBuf;
use std::sync::Arc;

use super::{Context, Exit, Failure};
use crate::adapters::layout::Layout;
use crate::adapters::registry::{Credentials, Registries, RegistryOptions};
use crate::adapters::store::Store;
use crate::crd::labels;
use crate::domain::plan::Budget;
use crate::domain::revision::RefSpec;
use crate::domain::source::Source;
use crate::pipeline::base::Bases;
use crate::pipeline::compile::{CommandPolicy, Compiler};
use crate::pipeline::image_end::ImageEnd;
use crate::pipeline::object_end::ObjectEnd;
use crate::pipeline::platform::{Platform, PlatformError, host_architecture};
use crate::pipeline::source::Origin;
use crate::pipeline::sync::{Memory, Settings, Sync};

/// How workshops are found, built and written.
#[derive(Debug, Clone, clap::Args)]
pub struct SyncFlags {
    /// Only workshops below this directory of the source
    #[arg(long = "path", value_name = "DIR")]
    pub paths: Vec<String>,
    /// Push images there instead of keeping them in the state directory
    #[arg(long, value_name = "HOST[/PREFIX]")]
    pub registry: Option<String>,
    /// Speak plain HTTP or accept any certificate at the registry
    #[arg(long)]
    pub insecure: bool,
    /// Directory with the backend and tini that go into every image [default: beside this program]
    #[arg(long, value_name = "DIR", env = "WORKSHOP_PLATFORM")]
    pub platform: Option<PathBuf>,
    /// Look up the digest of every base image again
    #[arg(long)]
    pub refresh_base: bool,
    /// Run the commands of recipes without a network
    #[arg(long)]
    pub no_network: bool,
    /// Keep the objects of workshops that the source no longer has
    #[arg(long)]
    pub no_prune: bool,
    /// How many workshops one sync may remove [default: the greater of 1 and half]
    #[arg(long, value_name = "N|N%", value_parser = parse_budget)]
    pub prune_budget: Option<Budget>,
    /// Carry out the plan of this hash, whatever it deletes
    #[arg(long, value_name = "HASH")]
    pub approve: Option<String>,
}

fn parse_budget(text: &str) -> Result<Budget, String> {
    let invalid = || format!("\"{text}\" is neither a number nor a percentage such as 50%");
    match text.strip_suffix('%') {
        Some(percent) => {
            percent.parse().ok().filter(|percent| *percent <= 100).map(Budget::Percent).ok_or_else(invalid)
        }
        None => text.parse().map(Budget::Count).map_err(|_| invalid()),
    }
}

impl SyncFlags {
    /// The sync of one source with these flags.
    pub async fn build(
        &self,
        text: &str,
        reference: RefSpec,
        dry_run: bool,
        objects: ObjectEnd,
        store: Arc<Store>,
        context: &Context,
    ) -> Result<Sync, Failure> {
        let source = Source::parse(text).map_err(|error| Failure::from_error(Exit::Usage, error))?;
        // One directory is one source, however it was named; one that is missing is told of when it is opened.
        let source = match source {
            Source::Directory(path) => Source::Directory(path.canonicalize().unwrap_or(path)),
            other => other,
        };
        let shown = source.without_credentials();
        let origin = Origin::open(&source, &context.state, Default::default(), None)
            .map_err(|error| Failure::from_error(Exit::Outside, error))?;
        let target_namespace = match &objects {
            ObjectEnd::Cluster(cluster) => cluster.namespace().to_owned(),
            ObjectEnd::Embedded(_) => context.namespace.clone().unwrap_or_else(|| "default".into()),
        };
        Ok(Sync {
            origin,
            reference,
            objects,
            compiler: Arc::new(self.compiler(context)?),
            platform: self.platform()?,
            store,
            state: context.state.clone(),
            settings: Settings {
                owner: labels::build_source_owner(&shown),
                source: shown,
                paths: self.paths.clone(),
                ignore: None,
                registry: self.registry.clone(),
                pull_registry: None,
                pull_secret: None,
                target_namespace,
                prune: !self.no_prune,
                budget: self.prune_budget.unwrap_or(Budget::Half),
                manual: false,
                approved: self.approve.clone(),
                commands: CommandPolicy { network: !self.no_network, ..CommandPolicy::default() },
                refresh_base: self.refresh_base,
                dry_run,
            },
            memory: tokio::sync::Mutex::new(Memory::default()),
        })
    }

    /// The image builder: into the registry where one is named, else into the layout of the state directory.
    fn compiler(&self, context: &Context) -> Result<Compiler, Failure> {
        let registries =
            Registries::new(RegistryOptions::of(Credentials::docker(), self.registry.as_deref(), self.insecure));
        let bases = Bases::new(&context.state, registries.clone(), host_architecture()).with_local_store();
        let images = match &self.registry {
            Some(_) => ImageEnd::Registry(registries),
            None => ImageEnd::Layout(Layout::new(context.state.join("layout"))),
        };
        Ok(Compiler::new(images, bases, &context.state))
    }

    /// The platform; without one only workshops without a recipe can be brought in.
    fn platform(&self) -> Result<Option<Arc<Platform>>, Failure> {
        match Platform::find(self.platform.as_deref()) {
            Ok(platform) => Ok(Some(Arc::new(platform))),
            Err(PlatformError::Missing { .. }) if self.platform.is_none() => Ok(None),
            Err(error) => Err(Failure::from_error(Exit::Usage, error)
                .help("`make build` puts the platform beside the program; --platform DIR names another place")),
        }
    }
}
