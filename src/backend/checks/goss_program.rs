//! Runs the image's own goss and turns its JSON into our report.
//!
//! The program is the image's: its output is bounded and believed for nothing but this report. It runs as whoever the
//! commands of checks run as.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::process::Command;

use super::run::{SHOWN, shown};
use super::{ChecksError, Options, command};
use crate::domain::goss::evaluate::to_text;
use crate::domain::goss::kinds::{KINDS, Shape};
use crate::domain::goss::spec::Meta;
use crate::domain::goss::{CheckResult, Outcome, Report};

const MAX_OUTPUT: usize = 64 << 20;

pub async fn run(spec: &str, options: &Options) -> Result<Report, ChecksError> {
    let environment = command::environment(&options.image_environment);
    let output = ["validate", "--format", "json", "--no-color"];
    let program = find(&environment).ok_or(ChecksError::NoGoss)?;
    let started_at = Timestamp::now();
    let start = Instant::now();
    let ended = match &options.command_user {
        // What the learner's account may not read is no file for it: the spec comes by standard input.
        Some(user) => {
            let spec = command::nameless(spec).map_err(ChecksError::RunGoss)?;
            let arguments: Vec<&str> = ["-g", "-"].into_iter().chain(output).collect();
            command::run_as(user, (&program, &arguments), spec, options.timeout, MAX_OUTPUT).await
        }
        None => {
            let file = SpecFile::write(spec, &options.base_dir).map_err(ChecksError::RunGoss)?;
            let mut goss = Command::new(program);
            goss.arg("-g").arg(&file.path).args(output).current_dir(&file.directory);
            command::run_bounded(goss, options.timeout, &environment, MAX_OUTPUT).await
        }
    };
    let ended = ended.map_err(|missing| ChecksError::Goss(missing.reason().to_owned()))?;
    if ended.stdout.is_cut {
        return Err(ChecksError::Goss(format!("it wrote more than {MAX_OUTPUT} bytes")));
    }
    let results = parse(&ended.stdout.text).ok_or_else(|| {
        let errors = [&ended.stderr.text, &ended.stdout.text];
        let said = errors.iter().find_map(|text| text.lines().map(str::trim).find(|line| !line.is_empty()));
        let said = said.map(|line| line.chars().take(SHOWN).collect()).unwrap_or_else(|| "it said nothing".to_owned());
        ChecksError::Goss(format!("exit status {}: {said}", ended.code))
    })?;
    Ok(Report::of(started_at, u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), results))
}

fn find(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let usual = Path::new("/usr/local/bin/goss");
    command::find("goss", environment).or_else(|| usual.is_file().then(|| usual.to_owned()))
}

/// The spec as a file that is gone afterwards; beside what it may include.
struct SpecFile {
    directory: PathBuf,
    path: PathBuf,
}

impl SpecFile {
    fn write(spec: &str, base: &Path) -> std::io::Result<Self> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!(".run-{}-{number}.yaml", std::process::id()));
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = Self { directory: base.to_owned(), path };
        file.write_all(spec.as_bytes())?;
        Ok(written)
    }
}

impl Drop for SpecFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[derive(Debug, Deserialize)]
struct Document {
    results: Vec<GossResult>,
}

/// The fields of a result that are used; goss has more.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct GossResult {
    resource_type: String,
    resource_id: String,
    property: String,
    successful: bool,
    #[serde(default)]
    skipped: bool,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    meta: Option<Json>,
    #[serde(default)]
    duration: u64,
    #[serde(default)]
    err: Option<Json>,
    #[serde(default)]
    matcher_result: Option<Json>,
    #[serde(default)]
    summary_line_compact: Option<String>,
    #[serde(default)]
    summary_line: Option<String>,
}

fn parse(text: &str) -> Option<Vec<CheckResult>> {
    let document: Document = serde_json::from_str(text).ok()?;
    Some(document.results.into_iter().map(result).collect())
}

fn result(it: GossResult) -> CheckResult {
    let facts = KINDS.iter().find(|facts| facts.type_name == it.resource_type);
    let resource = facts.map_or_else(|| it.resource_type.to_lowercase(), |facts| facts.name.to_owned());
    let attribute = facts.and_then(|facts| facts.assertions.iter().find(|known| known.property == it.property));
    let property = attribute.map_or(it.property.as_str(), |attribute| attribute.name).to_owned();
    let outcome = match (it.skipped, it.successful) {
        (true, _) => Outcome::Skipped,
        (_, true) => Outcome::Passed,
        _ => Outcome::Failed,
    };
    let title = it.title.filter(|title| !title.is_empty());
    let meta = Meta { raw: it.meta };
    let said = meta.text("message", &property).map(str::to_owned).or_else(|| title.clone());
    // As with the built-in engine: a text that the author words otherwise is not shown.
    let is_text = attribute.is_some_and(|attribute| attribute.shape == Shape::Text);
    let told = meta.raw.as_ref().and_then(|meta| meta.get("reveal")?.as_bool());
    let reveals = told.unwrap_or(!is_text || said.is_none());
    let summary =
        it.summary_line_compact.or(it.summary_line).unwrap_or_else(|| format!("{}: {property}", it.resource_id));
    let summary = if reveals { summary } else { format!("{}: {property} is not yet as it should be", it.resource_id) };
    let value = |key: &str| it.matcher_result.as_ref().and_then(|matched| matched.get(key)).filter(|it| !it.is_null());
    let found = it.err.as_ref().filter(|error| !error.is_null()).or_else(|| value("actual"));
    CheckResult {
        id: format!("{resource}:{}:{property}", it.resource_id),
        resource,
        message: said.unwrap_or_else(|| shown(&summary)),
        hint: meta.text("hint", &property).map(str::to_owned),
        expected: value("expected").filter(|_| reveals).map(|expected| shown(&to_text(expected))).unwrap_or_default(),
        found: found.filter(|_| reveals).map(|found| shown(&to_text(found))).unwrap_or_default(),
        resource_id: it.resource_id,
        property,
        title,
        outcome,
        duration_ms: it.duration / 1_000_000,
        detail: None,
    }
}
