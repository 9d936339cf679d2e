//! One compile of one workshop: what it was asked, what it has looked up so far, and how it tells what it does.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::content::LocalLayers;
use super::error::{CompileError, Place};
use super::plan::PlannedStep;
use super::step::unless_cancelled;
use super::{CompileInput, Compiler};
use crate::domain::digest::Digest;
use crate::pipeline::base::{BaseError, ResolvedBase};
use crate::pipeline::image_end::ImageEndError;

/// What a compile is doing.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The workshop's id.
    pub workshop: &'a str,
    /// The step's id, or `finish`.
    pub step: &'a str,
    /// Its place among the workshop's images, from 0.
    pub position: usize,
    /// How many images the workshop has.
    pub count: usize,
    /// What is done with it now.
    pub phase: Phase<'a>,
}

/// The phases of a step, in order; most steps have some of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase<'a> {
    /// Its image was there already.
    Reused,
    /// Its files are written as a layer.
    Files {
        /// How many.
        count: usize,
    },
    /// The layers below are unpacked for its commands.
    Unpack,
    /// A command runs.
    Command {
        /// Its number, from 1.
        number: usize,
        /// How many the step has.
        count: usize,
        /// Its text.
        text: &'a str,
    },
    /// What the commands changed is written as a layer.
    Layer,
    /// Its content is pushed.
    Push,
    /// Its content is built and named by its key.
    Built,
    /// Its image is published under the step's id.
    Published,
}

/// One compile.
pub struct Session<'a> {
    pub compiler: &'a Compiler,
    pub input: &'a CompileInput<'a>,
    /// The full image repository of the workshop.
    pub repository: String,
    pub layers: LocalLayers,
    base: OnceCell<ResolvedBase>,
    /// Blobs that the repository is known to have.
    present: Mutex<HashSet<Digest>>,
    progress: &'a (dyn Fn(Progress<'_>) + Send + Sync),
}

impl<'a> Session<'a> {
    pub fn new(
        compiler: &'a Compiler,
        input: &'a CompileInput<'a>,
        progress: &'a (dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Self {
        Self {
            compiler,
            input,
            repository: input.recipe.image.full(input.registry),
            layers: LocalLayers::default(),
            base: OnceCell::new(),
            present: Mutex::default(),
            progress,
        }
    }

    /// The base, looked up at the first call.
    pub async fn base(&self) -> Result<&ResolvedBase, CompileError> {
        self.base
            .get_or_try_init(|| {
                self.await_base(self.compiler.bases.resolve(&self.input.recipe.base, self.input.recorded_base))
            })
            .await
    }

    /// The base, if somebody asked for it before.
    pub fn resolved_base(&self) -> Option<&ResolvedBase> {
        self.base.get()
    }

    /// Waits for work on the base, unless cancelled.
    pub async fn await_base<T>(&self, work: impl Future<Output = Result<T, BaseError>>) -> Result<T, CompileError> {
        unless_cancelled(self.input.cancel, work).await?.map_err(|source| self.base_error(source))
    }

    pub fn base_error(&self, source: BaseError) -> CompileError {
        CompileError::Base { workshop: self.input.recipe.id.to_string(), source: Box::new(source) }
    }

    /// Waits for work of the image end, unless cancelled; `doing` is an infinitive.
    pub async fn images<T>(
        &self,
        doing: impl FnOnce() -> String,
        work: impl Future<Output = Result<T, ImageEndError>>,
    ) -> Result<T, CompileError> {
        unless_cancelled(self.input.cancel, work)
            .await?
            .map_err(|source| CompileError::Images { doing: doing(), source: Box::new(source) })
    }

    pub fn place(&self, step: &PlannedStep<'_>) -> Place {
        Place::of(self.input.recipe, step.id, None)
    }

    pub fn tell(&self, step: &PlannedStep<'_>, phase: Phase<'_>) {
        let recipe = self.input.recipe;
        (self.progress)(Progress {
            workshop: recipe.id.as_str(),
            step: step.id,
            position: step.position,
            count: recipe.steps.len() + usize::from(recipe.finish.is_some()),
            phase,
        });
    }

    /// Remembers that the repository has these blobs.
    pub fn are_present(&self, blobs: impl IntoIterator<Item = Digest>) {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).extend(blobs);
    }

    pub fn is_present(&self, blob: &Digest) -> bool {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).contains(blob)
    }
}
