//! Building one step: its files as a layer, its commands as another, on the content of the step before.

use std::fs;
use std::sync::Arc;

use tempfile::TempPath;
use tokio_util::sync::CancellationToken;

use super::content::{Content, LocalLayer, blocking};
use super::error::{CommandFailure, CompileError, Place};
use super::files::{Placed, place_files, write_layer};
use super::plan::{PlannedStep, command_line, file_line};
use super::session::{Phase, Session};
use crate::adapters::runtime::{CommandSpec, Exit, Limits, Rootfs, Runtime};
use crate::domain::image::{Image, NewLayer};
use crate::domain::layer::{Entry, LayerWriter};
use crate::domain::path_index::PathIndex;
use crate::pipeline::image_end::workers;

/// What runs a command where the image names no shell.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// The most of a step's commands that an image's history shows, in characters.
const MAX_HISTORY: usize = 200;

impl Session<'_> {
    /// Builds the content of `step` on `parent`.
    pub async fn build(&self, step: &PlannedStep<'_>, mut parent: Content) -> Result<Content, CompileError> {
        let place = self.place(step);
        let commands = &step.content.commands;
        if !commands.is_empty() && !self.input.commands.allowed {
            return Err(CompileError::CommandsNotAllowed { place });
        }
        let image_error = |source| CompileError::Image { place: place.clone(), source };
        let epoch = self.compiler.epoch;
        let mut layers = Vec::new();
        let mut index = None;
        if !step.files.is_empty() {
            self.tell(step, Phase::Files { count: step.files.len() });
            let below = self.index(&place, &mut parent).await?;
            if let Some((layer, after)) = self.files_layer(step, &below).await? {
                layers.push(layer);
                index = Some(after);
            }
        }
        let mut image = parent.image.extend(&layers, &step.content.env, epoch).map_err(image_error)?;
        if !commands.is_empty() {
            let below = match index.take() {
                Some(index) => Arc::new(index),
                None => self.index(&place, &mut parent).await?,
            };
            let made = self.commands_layer(step, &image).await?;
            let mut after = PathIndex::clone(&below);
            if let Some((layer, entries)) = made {
                after.add_entries(&entries);
                layers.push(layer);
                image = parent.image.extend(&layers, &step.content.env, epoch).map_err(image_error)?;
            }
            index = Some(after);
        }
        let content = Content { image, index: index.map(Arc::new).or(parent.index) };
        if let Some(index) = content.index.as_ref().filter(|_| !layers.is_empty()) {
            self.keep_index(&content, index)?;
        }
        Ok(content)
    }

    /// The layer of the step's files and the tree with them; none where all of it is there already.
    async fn files_layer(
        &self,
        step: &PlannedStep<'_>,
        below: &PathIndex,
    ) -> Result<Option<(NewLayer, PathIndex)>, CompileError> {
        let placed = place_files(&step.files, below).map_err(|source| CompileError::Position {
            place: self.position_place(step, &source.to_string()),
            source,
        })?;
        if placed.is_empty() {
            return Ok(None);
        }
        let mut after = below.clone();
        let entries: Vec<Entry> = placed.iter().map(|(entry, _)| entry.clone()).collect();
        after.add_entries(&entries);
        let created_by = format!("workshop: {} files", step.files.len());
        let layer = self.write_files(&self.place(step), placed, created_by).await?;
        Ok(Some((layer, after)))
    }

    /// Writes a layer of placed files and keeps its blob for pushing.
    pub async fn write_files(
        &self,
        place: &Place,
        placed: Placed,
        created_by: String,
    ) -> Result<NewLayer, CompileError> {
        let epoch = self.compiler.epoch;
        let error_place = place.clone();
        let (bytes, blob) = blocking(place, move || {
            write_layer(&placed, Vec::new(), epoch, workers())
                .map_err(|source| CompileError::Layer { place: error_place, source })
        })
        .await?;
        self.layers.insert(blob.digest, LocalLayer::Bytes(bytes.into()));
        Ok(NewLayer::written(&blob, created_by))
    }

    /// The step at the line of the file that the message of a placement error names.
    fn position_place(&self, step: &PlannedStep<'_>, message: &str) -> Place {
        let quoted = message.split('"').nth(1).unwrap_or_default();
        Place::of(self.input.recipe, step.id, file_line(step.content, quoted))
    }

    /// Runs the step's commands on `image`; none where they changed nothing.
    async fn commands_layer(
        &self,
        step: &PlannedStep<'_>,
        image: &Image,
    ) -> Result<Option<(NewLayer, Vec<Entry>)>, CompileError> {
        let place = self.place(step);
        let runtime = self.runtime(&place).await?;
        self.tell(step, Phase::Unpack);
        let layers = self.unpacked(&place, &runtime, image).await?;
        let mut rootfs = {
            let (runtime, place) = (Arc::clone(&runtime), place.clone());
            blocking(&place.clone(), move || {
                runtime.mount(&layers).map_err(|source| CompileError::Runtime { place, source })
            })
            .await?
        };
        let log = self.compiler.log_path(self.input.recipe.id.as_str(), step.id);
        // A log tells of one build.
        if let Err(source) = fs::remove_file(&log)
            && source.kind() != std::io::ErrorKind::NotFound
        {
            return Err(CompileError::Io { doing: format!("begin the log \"{}\"", log.display()), source });
        }
        let config = &image.config.config;
        let shell = config.shell.clone().filter(|shell| !shell.is_empty());
        let shell = shell.unwrap_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec());
        let policy = &self.input.commands;
        for (index, text) in step.content.commands.iter().enumerate() {
            self.tell(step, Phase::Command { number: index + 1, count: step.content.commands.len(), text });
            let command = CommandSpec {
                shell: &shell,
                text,
                env: &config.env,
                directory: &config.working_dir,
                user: &config.user,
                limits: Limits {
                    timeout: policy.timeout,
                    memory: policy.memory,
                    processes: policy.processes,
                    output: policy.output,
                    network: policy.network,
                },
            };
            let cancelled = self.input.cancel.cancelled();
            let ended = runtime
                .run(&mut rootfs, &command, &log, cancelled)
                .await
                .map_err(|source| CompileError::Runtime { place: place.clone(), source })?;
            if ended.exit != Exit::Code(0) {
                let line = command_line(self.input.tree, step.position, self.input.recipe.steps.len(), index);
                return Err(CompileError::Command(Box::new(CommandFailure {
                    place: Place::of(self.input.recipe, step.id, line),
                    number: index + 1,
                    text: text.clone(),
                    exit: ended.exit,
                    memory: policy.memory,
                    log,
                    last_lines: ended.last_lines,
                })));
            }
        }
        self.tell(step, Phase::Layer);
        let mut created_by: String = format!("workshop: {}", step.content.commands.join("; ").replace('\n', " "));
        if let Some((end, _)) = created_by.char_indices().nth(MAX_HISTORY) {
            created_by.truncate(end);
        }
        self.write_changes(place, runtime, rootfs, created_by).await
    }

    /// Writes what the commands changed as a layer.
    async fn write_changes(
        &self,
        place: Place,
        runtime: Arc<Runtime>,
        rootfs: Rootfs,
        created_by: String,
    ) -> Result<Option<(NewLayer, Vec<Entry>)>, CompileError> {
        let epoch = self.compiler.epoch;
        let error_place = place.clone();
        let written = blocking(&place, move || {
            let runtime_error = |source| CompileError::Runtime { place: error_place.clone(), source };
            let changes = rootfs.changes().map_err(runtime_error)?;
            if changes.is_empty() {
                return Ok(None);
            }
            let path = runtime.scratch_file();
            let shown = path.display().to_string();
            let failed = |source| CompileError::Io { doing: format!("write the layer \"{shown}\""), source };
            let path = TempPath::try_from_path(path).map_err(failed)?;
            let out = std::io::BufWriter::new(fs::File::create_new(&path).map_err(failed)?);
            let mut writer = LayerWriter::new(out, epoch, workers());
            for change in &changes {
                let appended = match &change.content {
                    Some(content) => writer.append(&change.entry, fs::File::open(content).map_err(failed)?),
                    None => writer.append(&change.entry, std::io::empty()),
                };
                appended.map_err(|source| CompileError::Layer { place: error_place.clone(), source })?;
            }
            let (out, blob) =
                writer.finish().map_err(|source| CompileError::Layer { place: error_place.clone(), source })?;
            out.into_inner().map_err(|error| failed(error.into_error()))?;
            Ok(Some((path, blob, changes.into_iter().map(|change| change.entry).collect::<Vec<_>>())))
        })
        .await?;
        let Some((path, blob, entries)) = written else { return Ok(None) };
        self.layers.insert(blob.digest, LocalLayer::Scratch(Arc::new(path)));
        Ok(Some((NewLayer::written(&blob, created_by), entries)))
    }

    async fn runtime(&self, place: &Place) -> Result<Arc<Runtime>, CompileError> {
        let state = self.compiler.state.clone();
        let open = || async {
            let place = place.clone();
            blocking(&place.clone(), move || {
                Runtime::open(&state).map(Arc::new).map_err(|source| CompileError::Runtime { place, source })
            })
            .await
        };
        self.compiler.runtime.get_or_try_init(open).await.cloned()
    }
}

/// Gives up waiting when the token is cancelled.
pub async fn unless_cancelled<T>(cancel: &CancellationToken, work: impl Future<Output = T>) -> Result<T, CompileError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(CompileError::Cancelled),
        result = work => Ok(result),
    }
}
