//! Work on one workshop: read its tree, check it, compile it, write its artifact, build its wished objects.
//!
//! What is wrong with the workshop ends in its record, never in an error: an error here stops the whole sync.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::wished::{Around, build_objects};
use super::{Error, Event, StepOutcome, StepReport, Sync, Turn};
use crate::adapters::artifact;
use crate::adapters::store::{UnitRecord, UnitState};
use crate::crd::labels;
use crate::domain::chain;
use crate::domain::diagnostic::{Checked, Diagnostic};
use crate::domain::digest::Digest;
use crate::domain::names::work_digest;
use crate::domain::object::{Kind, Live};
use crate::domain::tree::FileTree;
use crate::domain::workshop::{Workshop, peek_id, read_workshop};
use crate::failpoint;
use crate::pipeline::compile::{
    CompileError, CompileInput, FINISH, FailureClass, Phase, Progress, StepResult, assets_of,
};
use crate::pipeline::object_end::ObjectEnd;
use crate::pipeline::share_artifact::push_shared;
use crate::pipeline::source::{ReadError, Snapshot, Unit};

/// The recipe's file in a workshop's directory.
pub(super) const RECIPE: &str = "step-spec.yaml";

/// The artifacts' directory in the state directory.
const ARTIFACTS: &str = "artifacts";

/// Problems shown in a record's message; the command line shows all.
const SHOWN_PROBLEMS: usize = 5;

impl Sync {
    /// The workshop's new record.
    pub(super) async fn work_on(
        &self,
        turn: Turn<'_>,
        snapshot: &Arc<Snapshot>,
        unit: &Unit,
        known: Option<&UnitRecord>,
        owned: &[Live],
    ) -> Result<UnitRecord, Error> {
        let mut record = self.blank(unit, known);
        let (tree, checked) = match self.read(snapshot, unit).await? {
            Ok(read) => read,
            Err(problems) => return Ok(invalid(record, &problems)),
        };
        record.recipe = tree.file(RECIPE).map(Digest::of);
        record.base = recorded_base(&record, known, owned);
        let workshop = match checked.into_result() {
            Ok((workshop, _warnings)) => Arc::new(workshop),
            Err(problems) => {
                // What claims an id keeps that id's objects, even if nothing else can be read.
                record.id = peek_id(&tree).map(|id| id.to_string()).or(record.id);
                return Ok(invalid(self.with_work(record, unit), &problems));
            }
        };
        record.id = Some(workshop.id.to_string());
        record.image = workshop.recipe.as_ref().map(|recipe| recipe.image.full(self.settings.registry.as_deref()));

        let images = match self.compile(turn, &workshop, &tree, record.base).await {
            Ok(images) => images,
            Err(error) => return Ok(self.with_work(not_compiled(record, &error, known_tries(known, unit)), unit)),
        };
        failpoint::reached("after-compile");
        record.base = images.base;
        let mut record = self.with_work(record, unit);
        if let Some(message) = self.finish(&workshop, unit, images, &mut record).await? {
            return Ok(UnitRecord { state: UnitState::Failed, message, objects: Vec::new(), ..record });
        }
        Ok(record)
    }

    /// A workshop's files and what they say, read on a thread that may block: several at once use all cores.
    async fn read(
        &self,
        snapshot: &Arc<Snapshot>,
        unit: &Unit,
    ) -> Result<Result<(FileTree, Checked<Workshop>), Vec<Diagnostic>>, Error> {
        let (snapshot, unit, registry) = (Arc::clone(snapshot), unit.clone(), self.settings.registry.clone());
        let read = move || {
            let tree = snapshot.read(&unit)?;
            let checked = read_workshop(&unit.path, &tree, unit.key.tag.as_deref(), registry.as_deref());
            Ok((tree, checked))
        };
        match tokio::task::spawn_blocking(read).await.map_err(|_| Error::CutOff)? {
            Ok(read) => Ok(Ok(read)),
            Err(ReadError::Content { diagnostics, .. }) => Ok(Err(diagnostics)),
            Err(error) => Err(Error::Read(error)),
        }
    }

    fn blank(&self, unit: &Unit, known: Option<&UnitRecord>) -> UnitRecord {
        let record = UnitRecord {
            path: unit.path.clone(),
            // An unreadable workshop is still the one that stood here.
            id: known.and_then(|record| record.id.clone()),
            image: None,
            unit: unit.key.to_string(),
            work: Digest::of(b""),
            recipe: None,
            base: None,
            state: UnitState::Ready,
            message: String::new(),
            tries: 0,
            artifact: None,
            objects: Vec::new(),
            steps: serde_json::Value::Null,
            placement: String::new(),
        };
        self.with_work(record, unit)
    }

    fn with_work(&self, record: UnitRecord, unit: &Unit) -> UnitRecord {
        let platform = record.recipe.and(self.platform.as_ref()).map(|platform| platform.digest());
        let work = work_digest(&unit.key, self.settings.registry.as_deref(), record.base.as_ref(), platform.as_ref());
        UnitRecord { work, ..record }
    }

    /// Builds and publishes the workshop's images; a dry run only asks what is there.
    async fn compile(
        &self,
        turn: Turn<'_>,
        workshop: &Workshop,
        tree: &FileTree,
        base: Option<Digest>,
    ) -> Result<Images, NotCompiled> {
        // What an export carries of digests is taken as it is: a sync never looks images up.
        let mut images = Images { base: None, digests: workshop.definition.image_digests(), steps: Vec::new() };
        let Some(recipe) = &workshop.recipe else { return Ok(images) };
        let platform = self.platform.as_deref().ok_or(NotCompiled::NoPlatform)?;
        let input = CompileInput {
            recipe,
            tree,
            registry: self.settings.registry.as_deref(),
            recorded_base: base.filter(|_| !self.settings.refresh_base),
            from_step: None,
            platform,
            assets: assets_of(recipe, tree).map_err(NotCompiled::Failed)?,
            commands: self.settings.commands,
            cancel: turn.cancel,
        };
        if self.settings.dry_run {
            let steps = self.compiler.status(&input).await.map_err(NotCompiled::Failed)?;
            images.base = base;
            images.digests.extend(
                steps.iter().filter(|step| step.is_current).filter_map(|step| Some((step.id.clone(), step.digest?))),
            );
            images.steps.extend(steps.into_iter().map(|step| StepReport {
                result: if step.is_built { StepOutcome::Reused } else { StepOutcome::Built },
                key: Some(step.key),
                digest: step.digest.filter(|_| step.is_current),
                id: step.id,
            }));
            return Ok(images);
        }
        let progress = |progress: Progress<'_>| {
            if matches!(progress.phase, Phase::Built) {
                failpoint::reached("after-step");
            }
            (turn.listener)(Event::Compile { workshop: workshop.id.as_str(), progress: &progress });
        };
        let compiled = self.compiler.compile(&input, &progress).await.map_err(NotCompiled::Failed)?;
        images.base = Some(compiled.base);
        images.digests.extend(compiled.steps.iter().map(|step| (step.id.clone(), step.digest)));
        images.steps.extend(compiled.steps.into_iter().map(|step| StepReport {
            id: step.id,
            key: Some(step.key),
            digest: Some(step.digest),
            result: match step.result {
                StepResult::Built => StepOutcome::Built,
                StepResult::Reused => StepOutcome::Reused,
            },
        }));
        Ok(images)
    }

    /// Writes the artifact and the wished objects into the record; says why where others could not be given the artifact.
    async fn finish(
        &self,
        workshop: &Arc<Workshop>,
        unit: &Unit,
        images: Images,
        record: &mut UnitRecord,
    ) -> Result<Option<String>, Error> {
        // The state after the last step is an image but no step of the artifact.
        let mut digests = images.digests;
        digests.remove(FINISH);
        let digests = Arc::new(digests);
        let (artifact, size) = self.write_artifact(workshop, &digests).await?;
        record.artifact = (!self.settings.dry_run).then_some(artifact);
        if let Some(repository) = record.image.as_deref().filter(|_| !self.settings.dry_run)
            && let (ObjectEnd::Cluster(_), Some(registries)) = (&self.objects, self.compiler.registries())
            && let Err(error) =
                push_shared(registries, repository, artifact, &artifact_path(&self.state, artifact)).await
        {
            return Ok(Some(format!("its artifact could not be put beside its images: {}", chain::line(&error))));
        }
        record.objects = build_objects(
            workshop,
            &Around {
                owner: &self.settings.owner,
                unit: &unit.key,
                work: record.work,
                base: record.base,
                recipe: record.recipe,
                artifact: (artifact, size),
                images: &digests,
                pull_registry: self.settings.pull_registry.as_deref(),
                pull_secret: self.settings.pull_secret.as_ref().map(|(space, name)| (space.as_str(), name.as_str())),
                target_namespace: &self.settings.target_namespace,
            },
        );
        record.placement = self.settings.placement().to_string();
        record.steps = serde_json::to_value(images.steps).unwrap_or_default();
        Ok(None)
    }

    /// The artifact under its own digest in the state directory.
    async fn write_artifact(
        &self,
        workshop: &Arc<Workshop>,
        images: &Arc<BTreeMap<String, Digest>>,
    ) -> Result<(Digest, u64), Error> {
        let (workshop, images) = (Arc::clone(workshop), Arc::clone(images));
        let directory = self.state.join(ARTIFACTS);
        let keep = !self.settings.dry_run;
        let write = move || {
            let failed = |source| Error::WriteArtifact { path: directory.clone(), source };
            crate::adapters::store::make_private(&directory).map_err(failed)?;
            let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(&directory).map_err(failed)?;
            let path = temporary.path().join("workshop.db");
            let digest = artifact::write(&workshop.definition, &images, &path)?;
            let size = std::fs::metadata(&path).map_err(failed)?.len();
            if keep {
                std::fs::rename(&path, file_of(&directory, digest)).map_err(failed)?;
            }
            Ok((digest, size))
        };
        tokio::task::spawn_blocking(write).await.map_err(|_| Error::CutOff)?
    }

    /// True when the artifact of this digest is still in the state directory.
    pub(super) fn has_artifact(&self, digest: Digest) -> bool {
        artifact_path(&self.state, digest).exists()
    }
}

/// Where the artifact of this digest is in a state directory.
#[must_use]
pub fn artifact_path(state: &Path, digest: Digest) -> PathBuf {
    file_of(&state.join(ARTIFACTS), digest)
}

fn file_of(directory: &Path, digest: Digest) -> PathBuf {
    directory.join(format!("{}.db", digest.hex()))
}

/// A workshop's images, as far as they are known.
struct Images {
    base: Option<Digest>,
    digests: BTreeMap<String, Digest>,
    steps: Vec<StepReport>,
}

/// Why there are no images.
enum NotCompiled {
    NoPlatform,
    Failed(CompileError),
}

/// The record of a workshop whose images could not be made.
fn not_compiled(record: UnitRecord, error: &NotCompiled, tries: u32) -> UnitRecord {
    let (state, tries, message) = match error {
        NotCompiled::NoPlatform => (
            UnitState::Failed,
            0,
            "there is no platform to put on top of the images: run `make build`, or give --platform DIR".to_owned(),
        ),
        NotCompiled::Failed(error) => {
            let (state, tries) = match error.class() {
                FailureClass::Content | FailureClass::Refused => (UnitState::Invalid, 0),
                // A failing command is tried a few times; what is outside may come back any time.
                FailureClass::Command => (UnitState::Failed, tries + 1),
                FailureClass::Outside | FailureClass::Cancelled => (UnitState::Failed, 0),
            };
            (state, tries, chain::line(error))
        }
    };
    UnitRecord { state, tries, message, ..record }
}

fn known_tries(known: Option<&UnitRecord>, unit: &Unit) -> u32 {
    known.filter(|record| record.unit == unit.key.to_string()).map_or(0, |record| record.tries)
}

/// The base's digest that was recorded for this very recipe: in the store, else on the template.
fn recorded_base(record: &UnitRecord, known: Option<&UnitRecord>, owned: &[Live]) -> Option<Digest> {
    let recipe = record.recipe?;
    if let Some(known) = known.filter(|known| known.recipe == Some(recipe) && known.base.is_some()) {
        return known.base;
    }
    owned
        .iter()
        .filter(|live| live.key.kind == Kind::WorkspaceTemplate)
        .filter(|live| live.annotation(labels::PATH) == Some(record.path.as_str()))
        .find(|live| live.annotation(labels::RECIPE) == Some(recipe.to_string().as_str()))
        .and_then(|live| live.annotation(labels::BASE_DIGEST)?.parse().ok())
}

fn invalid(record: UnitRecord, problems: &[Diagnostic]) -> UnitRecord {
    let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
    let mut message = errors.iter().take(SHOWN_PROBLEMS).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if errors.len() > SHOWN_PROBLEMS {
        message += &format!("; and {} more (run `workshop validate`)", errors.len() - SHOWN_PROBLEMS);
    }
    UnitRecord { state: UnitState::Invalid, message, ..record }
}
