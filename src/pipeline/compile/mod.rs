//! Recipe, local sources and base image become one image per step.
//!
//! The repository that images go to is the cache: what a key names there is never built again, on any machine. Content
//! is pushed by key as soon as it is built; the tags that people and clusters use move together, after the last step.
//! Reading a recipe and writing the artifact are the neighbours' matter.

mod content;
mod error;
mod files;
mod plan;
mod publish;
mod record;
mod session;
mod status;
mod step;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::base::Bases;
use super::image_end::ImageEnd;
use super::platform::Platform;
use crate::adapters::layout::Blobs;
use crate::adapters::registry::Registries;
use crate::adapters::runtime::Runtime;
use crate::domain::digest::Digest;
use crate::domain::image::Manifest;
use crate::domain::key::{BuildOptions, files_digest, key_tag};
use crate::domain::names::StepId;
use crate::domain::recipe::{
    Content as RecipeContent, FileSource, ImageFile, Owner, Recipe, RecipeFile, resolve_files,
};
use crate::domain::tree::FileTree;

pub use error::{CommandFailure, CompileError, FailureClass, Place};
pub use plan::FINISH;
pub use publish::KEY_ANNOTATION;
pub use record::BaseRecord;
pub use session::{Phase, Progress};
pub use status::StepStatus;

use content::Content;
use plan::{PlannedStep, plan_steps};
use record::{Record, RecordKey};
use session::Session;

/// Where the assets of a workshop are in its tree, and in its images.
const ASSETS: &str = "export/assets";
const ASSETS_TARGET: &str = "/workshop/assets";
/// Look-ups under way at a time.
const PARALLEL: usize = 8;

/// What commands may do and use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandPolicy {
    /// Whether commands run at all.
    pub allowed: bool,
    /// Whether they see the network.
    pub network: bool,
    /// Time of one command.
    pub timeout: Duration,
    /// Memory of one command, in bytes.
    pub memory: u64,
    /// Processes of one command.
    pub processes: u32,
    /// Output of one command, in bytes.
    pub output: u64,
}

impl Default for CommandPolicy {
    fn default() -> Self {
        Self {
            allowed: true,
            network: true,
            timeout: Duration::from_secs(30 * 60),
            memory: 2 << 30,
            processes: 4096,
            output: 256 << 20,
        }
    }
}

/// What is compiled, and how.
pub struct CompileInput<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The workshop's directory.
    pub tree: &'a FileTree,
    /// The registry (host with or without a path) put before an image that names none.
    pub registry: Option<&'a str>,
    /// The base's digest of an earlier compile, which is kept.
    pub recorded_base: Option<Digest>,
    /// Keeps all steps before this one as published.
    pub from_step: Option<&'a StepId>,
    /// What goes on top of every published image.
    pub platform: &'a Platform,
    /// The files of `export/assets`, as [`assets_of`] gives them.
    pub assets: Vec<ImageFile>,
    /// What commands may do.
    pub commands: CommandPolicy,
    /// Ends the compile early; what was pushed by key stays.
    pub cancel: &'a CancellationToken,
}

/// A workshop whose images are all published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The manifest digest of the base, to be recorded.
    pub base: Digest,
    /// The images in order; the state after the last step is the last one, with the id `finish`.
    pub steps: Vec<CompiledStep>,
}

/// One published image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledStep {
    /// The step's id, or `finish`.
    pub id: String,
    /// The key of its content.
    pub key: Digest,
    /// The manifest digest of the published image.
    pub digest: Digest,
    /// The full reference without the digest.
    pub image_tag: String,
    /// Whether its content had to be built.
    pub result: StepResult,
}

/// Whether a step's content had to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepResult {
    /// It was built.
    Built,
    /// It was there already.
    Reused,
}

/// Compiles workshops into one image end, with one state directory; several at a time.
pub struct Compiler {
    images: ImageEnd,
    bases: Bases,
    state: PathBuf,
    blobs: Blobs,
    epoch: u64,
    runtime: OnceCell<Arc<Runtime>>,
}

/// The files of a workshop's `export/assets` as they are put into its images.
pub fn assets_of(recipe: &Recipe, tree: &FileTree) -> Result<Vec<ImageFile>, CompileError> {
    if tree.below(ASSETS).next().is_none() {
        return Ok(Vec::new());
    }
    let file = RecipeFile {
        path: ASSETS_TARGET.to_owned(),
        source: FileSource::Tree(ASSETS.to_owned()),
        mode: None,
        owner: Owner::default(),
        place: crate::domain::diagnostic::Place { line: 1, column: 1 },
    };
    let content = RecipeContent { files: vec![file], ..RecipeContent::default() };
    resolve_files(&content, tree).map_err(|source| CompileError::Files {
        place: Place { workshop: recipe.id.to_string(), step: ASSETS.to_owned(), line: None },
        source: Box::new(source),
    })
}

impl Compiler {
    /// The registries that images are published to, where it is those.
    #[must_use]
    pub fn registries(&self) -> Option<&Registries> {
        match &self.images {
            ImageEnd::Registry(registries) => Some(registries),
            ImageEnd::Layout(_) => None,
        }
    }

    /// A compiler that pushes to `images` and builds on `bases`; `state` is the state directory. Time stamps in images
    /// are those of `SOURCE_DATE_EPOCH`, else 1970.
    #[must_use]
    pub fn new(images: ImageEnd, bases: Bases, state: &Path) -> Self {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self {
            images,
            bases,
            state: state.to_owned(),
            blobs: Blobs::new(state.join("blobs")),
            epoch,
            runtime: OnceCell::new(),
        }
    }

    /// Builds what is missing and publishes what changed; nothing is written where nothing changed.
    pub async fn compile(
        &self,
        input: &CompileInput<'_>,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<Compiled, CompileError> {
        if self.bases.architecture() != input.platform.architecture() {
            return Err(CompileError::Architecture {
                base: self.bases.architecture().to_owned(),
                platform: input.platform.architecture().to_owned(),
            });
        }
        Session::new(self, input, progress).run().await
    }

    /// The log of a step's commands.
    #[must_use]
    pub fn log_path(&self, workshop: &str, step: &str) -> PathBuf {
        self.state.join("logs").join(workshop).join(format!("{step}.log"))
    }

    /// Where a layer that the target repository has is put on this machine.
    fn fetched(&self, digest: &Digest) -> PathBuf {
        self.blobs.path(digest)
    }

    fn options(&self) -> BuildOptions {
        BuildOptions { architecture: self.bases.architecture().to_owned(), epoch: self.epoch, compression: "gzip" }
    }
}

/// An image that waits for its tag until the whole workshop is built.
struct Waiting {
    position: usize,
    content: Digest,
    image: crate::domain::image::EncodedImage,
}

/// The step before the one that is looked at.
enum Before {
    Nothing,
    /// Named by its manifest.
    Digest(Digest),
    /// Read or built.
    Content(Box<Content>),
}

impl Session<'_> {
    /// The base's digest without asking anybody where it is recorded, and the steps with their keys.
    async fn planned(&self) -> Result<(Digest, Vec<PlannedStep<'_>>), CompileError> {
        let base = match self.input.recorded_base {
            Some(digest) => digest,
            None => self.base().await?.digest,
        };
        let steps = plan_steps(self.input.recipe, self.input.tree, base, &self.compiler.options())?;
        Ok((base, steps))
    }

    fn record_key(&self, key: Digest, assets: Digest) -> RecordKey<'_> {
        RecordKey { repository: &self.repository, key, platform: self.input.platform.digest(), assets }
    }

    /// What the repository has under the steps' ids now.
    async fn published(&self, steps: &[PlannedStep<'_>]) -> Result<Vec<Option<Digest>>, CompileError> {
        let repository = &self.repository;
        stream::iter(steps)
            .map(|step| async move {
                let reference = format!("{repository}:{}", step.id);
                let resolve = self.compiler.images.resolve(&reference);
                self.images(|| format!("look up \"{reference}\""), resolve).await
            })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    async fn run(&self) -> Result<Compiled, CompileError> {
        let (base, steps) = self.planned().await?;
        let assets = files_digest(&self.input.assets);
        let published = self.published(&steps).await?;
        let first = self.first_step(&steps, &published).await?;

        let mut compiled: Vec<CompiledStep> = Vec::with_capacity(steps.len());
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut before = Before::Nothing;
        for (step, &published) in steps.iter().zip(&published) {
            let record = self.record_key(step.key, assets).read(&self.compiler.state);
            let is_current = record.is_some_and(|record| Some(record.published) == published);
            let (digest, result) = match published {
                Some(digest) if step.position < first => {
                    before = Before::Nothing;
                    (digest, StepResult::Reused)
                }
                Some(digest) if is_current => {
                    before = record.map_or(Before::Nothing, |record| Before::Digest(record.content));
                    (digest, StepResult::Reused)
                }
                _ => {
                    let (mut content, content_digest, result) = self.look_up_or_build(&steps, step, before).await?;
                    let image = self.dress(step, &mut content).await?;
                    before = Before::Content(Box::new(content));
                    let digest = image.digest;
                    waiting.push(Waiting { position: step.position, content: content_digest, image });
                    (digest, result)
                }
            };
            if result == StepResult::Reused {
                self.tell(step, Phase::Reused);
            }
            let image_tag = format!("{}:{}", self.repository, step.id);
            compiled.push(CompiledStep { id: step.id.to_owned(), key: step.key, digest, image_tag, result });
        }
        self.move_tags(&steps, &published, assets, waiting).await?;
        Ok(Compiled { base, steps: compiled })
    }

    /// The content of a step: what its key names in the repository, else built on the step before.
    async fn look_up_or_build(
        &self,
        steps: &[PlannedStep<'_>],
        step: &PlannedStep<'_>,
        before: Before,
    ) -> Result<(Content, Digest, StepResult), CompileError> {
        if let Some((digest, content)) = self.find_content(step, &key_tag(step.key)).await? {
            return Ok((content, digest, StepResult::Reused));
        }
        let parent = match before {
            Before::Content(content) => *content,
            Before::Digest(digest) => match self.find_content(&steps[step.position - 1], &digest.to_string()).await? {
                Some((_, content)) => content,
                None => self.rebuilt(&steps[..step.position]).await?,
            },
            Before::Nothing if step.position == 0 => self.base_content().await?,
            Before::Nothing => {
                let kept = &steps[step.position - 1];
                self.kept_content(kept, &key_tag(kept.key)).await?
            }
        };
        let content = self.build(step, parent).await?;
        let digest = self.push_content(step, &content).await?;
        self.tell(step, Phase::Built);
        Ok((content, digest, StepResult::Built))
    }

    /// The content of the last of `steps`, which are published but whose contents somebody has removed: built again
    /// from the last one that is still there.
    async fn rebuilt(&self, steps: &[PlannedStep<'_>]) -> Result<Content, CompileError> {
        let mut kept = None;
        for step in steps.iter().rev() {
            kept = self.find_content(step, &key_tag(step.key)).await?.map(|(_, content)| (step.position + 1, content));
            if kept.is_some() {
                break;
            }
        }
        let (next, mut content) = match kept {
            Some(kept) => kept,
            None => (0, self.base_content().await?),
        };
        for step in &steps[next..] {
            content = self.build(step, content).await?;
            self.push_content(step, &content).await?;
        }
        Ok(content)
    }

    /// The content of a step that `--from-step` keeps.
    async fn kept_content(&self, step: &PlannedStep<'_>, reference: &str) -> Result<Content, CompileError> {
        match self.find_content(step, reference).await? {
            Some((_, content)) => Ok(content),
            None => {
                let place = self.place(step);
                let reason = format!("is not in \"{}\" any more", self.repository);
                Err(CompileError::FromStep { place, reason })
            }
        }
    }

    async fn find_content(
        &self,
        step: &PlannedStep<'_>,
        reference: &str,
    ) -> Result<Option<(Digest, Content)>, CompileError> {
        let place = self.place(step);
        let read = self.compiler.images.read_manifest(&self.repository, reference);
        let found = self.images(|| format!("look up \"{}:{reference}\"", self.repository), read).await?;
        let Some((digest, manifest)) = found else { return Ok(None) };
        let content = self.read_content(&place, &manifest).await?;
        // The repository took the manifest, so it has what the manifest names.
        self.are_present(content.image.manifest.layers.iter().map(|layer| layer.digest));
        Ok(Some((digest, content)))
    }

    /// The position of the first step that may be touched, once all before it are known to be fit to be kept.
    async fn first_step(&self, steps: &[PlannedStep<'_>], published: &[Option<Digest>]) -> Result<usize, CompileError> {
        let Some(wanted) = self.input.from_step else { return Ok(0) };
        let first = steps.iter().position(|step| step.id == wanted.as_str()).ok_or_else(|| {
            CompileError::NoSuchStep { workshop: self.input.recipe.id.to_string(), step: wanted.to_string() }
        })?;
        let refused =
            |step: &PlannedStep<'_>, reason: String| Err(CompileError::FromStep { place: self.place(step), reason });
        for (step, published) in steps[..first].iter().zip(published) {
            if published.is_none() {
                return refused(step, format!("is not published as \"{}:{}\"", self.repository, step.id));
            }
        }
        let Some(last) = first.checked_sub(1).map(|index| &steps[index]) else { return Ok(0) };
        let read = self.compiler.images.read_manifest(&self.repository, last.id);
        let found = self.images(|| format!("look up \"{}:{}\"", self.repository, last.id), read).await?;
        let key =
            found.and_then(|(_, manifest)| Manifest::parse(&manifest).ok()?.annotations.get(KEY_ANNOTATION).cloned());
        if key.as_deref() != Some(last.key.to_string().as_str()) {
            return refused(last, "was published from other content than it has now".to_owned());
        }
        Ok(first)
    }

    /// Publishes the images that changed, all after everything was built.
    async fn move_tags(
        &self,
        steps: &[PlannedStep<'_>],
        published: &[Option<Digest>],
        assets: Digest,
        waiting: Vec<Waiting>,
    ) -> Result<(), CompileError> {
        for Waiting { position, content, image } in waiting {
            let step = &steps[position];
            if published[position] != Some(image.digest) {
                self.push_image(&self.place(step), &image, &[step.id.to_owned()]).await?;
                self.tell(step, Phase::Published);
            }
            let record = Record { content, published: image.digest };
            if let Err(error) = self.record_key(step.key, assets).write(&self.compiler.state, record) {
                // It would only have saved a little time.
                tracing::debug!(%error, "cannot remember what was published");
            }
        }
        Ok(())
    }
}
