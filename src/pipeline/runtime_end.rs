//! Where workspaces run: the native runtime or a container engine. The pair of ends for running containers.
//!
//! It finds the runtime, brings images out of the state directory to it, and asks it; what runs when is the operator's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use tokio_util::bytes::Bytes;

pub use crate::domain::container::{
    Address, Capabilities, Egress, Found, FoundState, ManagementReach, RuntimeChoice, WorkspaceSpec,
};

use crate::adapters::engine::{Engine, EngineError, ImageSource, Surroundings};
use crate::adapters::layout::{Layout, LayoutError};
use crate::adapters::runtime::RuntimeError;
use crate::adapters::runtime::workspace::{ContainerError, Containers, ImageParts};
use crate::domain::digest::Digest;
use crate::domain::image::{Image, ImageError, MAX_MANIFEST, Manifest, ManifestKind, manifest_kind, select_platform};
use crate::pipeline::base::local_store;
use crate::pipeline::platform::host_architecture;

/// Why there is no runtime, or why it did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeEndError {
    /// Nothing on this machine can run workspaces.
    #[error("nothing here can run workspaces: {}", reasons.join("; "))]
    NoRuntime {
        /// What was looked at and what was wrong with it.
        reasons: Vec<String>,
    },
    /// The image is not on this machine.
    #[error(
        "the image \"{0}\" is not in the state directory: compile its workshop, or load it by `workshop image load`"
    )]
    NoImage(String),
    /// A blob of the image is not on this machine.
    #[error("the image \"{image}\" lacks its blob {digest}")]
    MissingBlob {
        /// The image.
        image: String,
        /// The blob.
        digest: Digest,
    },
    /// The image cannot be used.
    #[error("the image \"{image}\" cannot be used")]
    Image {
        /// The image.
        image: String,
        /// The reason.
        source: ImageError,
    },
    /// The state directory's images cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The native runtime refused.
    #[error(transparent)]
    Native(#[from] ContainerError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Output cannot be read.
    #[error("cannot read the output of a workspace")]
    Logs(#[source] io::Error),
    /// Work on the disk did not end.
    #[error("the work on the image \"{0}\" was interrupted")]
    Interrupted(String),
}

impl From<RuntimeError> for RuntimeEndError {
    fn from(error: RuntimeError) -> Self {
        Self::Native(error.into())
    }
}

/// Where workspaces run; a cheap clone.
#[derive(Clone)]
pub enum RuntimeEnd {
    /// `runc` on this machine.
    Native(Arc<Native>),
    /// Docker or Podman.
    Engine(Arc<InEngine>),
}

/// A container engine and the images that it is given.
pub struct InEngine {
    engine: Engine,
    images: Images,
}

/// The native runtime and the images that it runs.
pub struct Native {
    containers: Arc<Containers>,
    images: Images,
}

impl RuntimeEnd {
    /// The runtime that the user names, else the first that is there: Docker, Podman, native.
    pub async fn detect(choice: Option<RuntimeChoice>, state: &Path) -> Result<Self, RuntimeEndError> {
        Self::detect_in(choice, state, &Surroundings::read()).await
    }

    /// As [`Self::detect`], with the variables that name engines as values.
    pub async fn detect_in(
        choice: Option<RuntimeChoice>,
        state: &Path,
        surroundings: &Surroundings,
    ) -> Result<Self, RuntimeEndError> {
        let mut reasons = Vec::new();
        for candidate in
            RuntimeChoice::ALL.into_iter().filter(|candidate| choice.is_none_or(|named| named == *candidate))
        {
            match candidate {
                RuntimeChoice::Docker | RuntimeChoice::Podman => {
                    match Engine::find(candidate, surroundings, state).await {
                        Ok(engine) => {
                            return Ok(Self::Engine(Arc::new(InEngine { engine, images: Images::of(state) })));
                        }
                        Err(errors) => reasons.extend(errors.iter().map(ToString::to_string)),
                    }
                }
                RuntimeChoice::Native => {
                    let opened = {
                        let state = state.to_owned();
                        let handle = tokio::runtime::Handle::current();
                        tokio::task::spawn_blocking(move || {
                            let _within = handle.enter();
                            Containers::open(&state)
                        })
                        .await
                        .map_err(|_| RuntimeEndError::Interrupted("native".to_owned()))?
                    };
                    match opened {
                        Ok(containers) => {
                            return Ok(Self::Native(Arc::new(Native { containers, images: Images::of(state) })));
                        }
                        Err(error) => reasons.push(format!("native: {error}")),
                    }
                }
            }
        }
        Err(RuntimeEndError::NoRuntime { reasons })
    }

    /// What it can do.
    #[must_use]
    pub fn describe(&self) -> Capabilities {
        match self {
            Self::Native(native) => native.containers.describe(),
            Self::Engine(engine) => engine.engine.describe(),
        }
    }

    /// Brings an image to where containers are started from, so that a start need not.
    pub async fn prepare(&self, image: &str) -> Result<(), RuntimeEndError> {
        match self {
            Self::Native(native) => native.unpack(image).await.map(drop),
            Self::Engine(engine) => engine.load(image).await.map(drop),
        }
    }

    /// Starts a workspace; returns once its first process runs. Whether it answers is asked at its address.
    pub async fn start(&self, spec: &WorkspaceSpec, fingerprint: &str) -> Result<Found, RuntimeEndError> {
        match self {
            Self::Native(native) => {
                let parts = native.unpack(&spec.image).await?;
                Ok(native.containers.start(spec, fingerprint, parts).await?)
            }
            Self::Engine(engine) => {
                let (id, arguments) = engine.load(&spec.image).await?;
                Ok(engine.engine.start(spec, fingerprint, &id, arguments).await?)
            }
        }
    }

    /// Ends the workspace of an instance and removes all of it; nothing happens where there is none.
    pub async fn stop(&self, uid: &str, grace: Duration) -> Result<(), RuntimeEndError> {
        match self {
            Self::Native(native) => Ok(native.containers.stop(uid, grace).await?),
            Self::Engine(engine) => Ok(engine.engine.stop(uid, grace).await?),
        }
    }

    /// All workspaces of this state directory, as the runtime itself knows them; remains of unfinished starts go.
    pub async fn list(&self) -> Result<Vec<Found>, RuntimeEndError> {
        match self {
            Self::Native(native) => Ok(native.containers.list().await?),
            Self::Engine(engine) => Ok(engine.engine.list().await?),
        }
    }

    /// What the workspace's first process printed, and prints until it ends where `follow` is asked for.
    pub async fn logs(
        &self,
        uid: &str,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeEndError>>, RuntimeEndError> {
        match self {
            Self::Native(native) => Ok(native.containers.logs(uid, follow)?.map_err(RuntimeEndError::Logs).boxed()),
            Self::Engine(engine) => Ok(engine.engine.logs(uid, follow).await?.map_err(RuntimeEndError::Engine).boxed()),
        }
    }
}

impl Native {
    async fn unpack(&self, image: &str) -> Result<ImageParts, RuntimeEndError> {
        let (containers, images, name) = (Arc::clone(&self.containers), self.images.clone(), image.to_owned());
        let unpacked = tokio::task::spawn_blocking(move || {
            let (image, layout) = images.find(&name)?;
            let mut layers: Vec<PathBuf> = Vec::new();
            let diff_ids = &image.config.rootfs.diff_ids;
            for (count, (descriptor, diff_id)) in image.manifest.layers.iter().zip(diff_ids).enumerate() {
                let Some(chain) = image.chain_id(count + 1) else { continue };
                let layer = match containers.layers().unpacked(chain) {
                    Some(layer) => layer,
                    None => {
                        let missing =
                            |_| RuntimeEndError::MissingBlob { image: name.clone(), digest: descriptor.digest };
                        let blob = std::fs::File::open(layout.blobs().path(&descriptor.digest)).map_err(missing)?;
                        containers.layers().unpack(chain, *diff_id, blob, &layers)?
                    }
                };
                layers.push(layer);
            }
            let run = image.config.config;
            let arguments = run.entrypoint.into_iter().chain(run.cmd).flatten().collect();
            Ok(ImageParts { layers, environment: run.env, arguments })
        });
        unpacked.await.map_err(|_| RuntimeEndError::Interrupted(image.to_owned()))?
    }
}

impl InEngine {
    /// Hands the image over where the engine lacks it; gives the engine's id of it and its first process.
    async fn load(&self, name: &str) -> Result<(String, Vec<String>), RuntimeEndError> {
        let (images, wanted) = (self.images.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let (image, layout) = images.find(&wanted)?;
            let missing = |digest| RuntimeEndError::MissingBlob { image: wanted.clone(), digest };
            let config_digest = image.manifest.config.digest;
            let config = layout.blobs().read(&config_digest, MAX_MANIFEST)?.ok_or_else(|| missing(config_digest))?;
            let layers = image.manifest.layers.iter().map(|layer| (layer.digest, layout.blobs().path(&layer.digest)));
            let layers: Vec<_> = layers.collect();
            if let Some((digest, _)) = layers.iter().find(|(_, path)| !path.is_file()) {
                return Err(missing(*digest));
            }
            let source = ImageSource { digest: image.encode().digest, config_digest, config, layers };
            let run = image.config.config;
            Ok((source, run.entrypoint.into_iter().chain(run.cmd).flatten().collect()))
        });
        let (source, arguments) = read.await.map_err(|_| RuntimeEndError::Interrupted(name.to_owned()))??;
        Ok((self.engine.load(source).await?, arguments))
    }
}

/// The images of a state directory: those that were compiled into its layout, and those of the local store.
#[derive(Clone)]
struct Images {
    layouts: [Layout; 2],
}

impl Images {
    fn of(state: &Path) -> Self {
        Self { layouts: [Layout::new(state.join("layout")), local_store(state)] }
    }

    /// The image for this machine and where its blobs are. Blocking.
    fn find(&self, name: &str) -> Result<(Image, &Layout), RuntimeEndError> {
        let digest = name.rsplit_once('@').map_or(name, |(_, digest)| digest).parse::<Digest>().ok();
        for layout in &self.layouts {
            let found = match digest {
                Some(digest) => layout.blobs().has(&digest).then_some(digest),
                None => layout.find(name)?.map(|found| found.digest),
            };
            if let Some(digest) = found {
                return Ok((read_image(name, layout, digest)?, layout));
            }
        }
        Err(RuntimeEndError::NoImage(name.to_owned()))
    }
}

fn read_image(name: &str, layout: &Layout, digest: Digest) -> Result<Image, RuntimeEndError> {
    let bad = |source| RuntimeEndError::Image { image: name.to_owned(), source };
    let read = |digest: Digest| {
        let missing = || RuntimeEndError::MissingBlob { image: name.to_owned(), digest };
        layout.blobs().read(&digest, MAX_MANIFEST)?.ok_or_else(missing)
    };
    let mut manifest = read(digest)?;
    if manifest_kind(&manifest).map_err(bad)? == ManifestKind::Index {
        manifest = read(select_platform(&manifest, host_architecture()).map_err(bad)?.digest)?;
    }
    let config = read(Manifest::parse(&manifest).map_err(bad)?.config.digest)?;
    let image = Image::parse(&manifest, &config).map_err(bad)?;
    image.check_platform(host_architecture()).map_err(bad)?;
    Ok(image)
}
