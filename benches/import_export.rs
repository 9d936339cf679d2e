//! Import and export: the rate of text in memory, and a thousand workshops from directories to artifacts and back.
//!
//! The limits beside it are what any program has to do with the same bytes: hash them, and read and write the files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod fixture;
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;

use report::{Report, quantile, show, time};
use workshop::adapters::artifact;
use workshop::domain::definition::{DEFAULT_CREATED_AT, Definition, Navigation, StepRow};
use workshop::domain::digest::Digest;
use workshop::domain::export::{self, Layout, State};
use workshop::domain::names::{StepId, WorkshopId};
use workshop::domain::tree::{FileTree, TreeEntry};
use workshop::domain::workshop::read_workshop;
use workshop::pipeline::export::write_export;
use workshop::pipeline::import::{read_workshops, write_artifact};

const RUNS: usize = 5;
const WORKSHOPS: usize = 1000;
const STEPS: usize = 10;

fn main() {
    rates();
    thousand();
}

/// A workshop of about `size` bytes of markdown in each of its steps, a goss spec and metadata beside it.
fn definition(steps: usize, size: usize) -> Definition {
    let ids: Vec<StepId> = (1..=steps).map(|step| StepId::parse(&format!("step-{step}")).expect("a name")).collect();
    let row = |index: usize| StepRow {
        id: ids[index].clone(),
        title: format!("Step {index}: read this, then do that"),
        markdown: Some(fixture::text_of(size, index as u64)),
        image_tag: format!("registry.example.org/workshops/bench:{}", ids[index]),
        goss_spec: Some(goss(size / 4)),
        metadata: BTreeMap::from([("skip".to_owned(), "false".to_owned())]),
        navigation: Navigation { unlock_condition: Some("true".into()), ..Navigation::linear(&ids, index) },
    };
    Definition {
        id: WorkshopId::parse("bench").expect("a name"),
        name: "A workshop to measure".into(),
        version: "v1".into(),
        created_at: DEFAULT_CREATED_AT.into(),
        steps: (0..steps).map(row).collect(),
    }
}

/// A goss spec of about `size` bytes.
fn goss(size: usize) -> String {
    let mut text = "file:\n".to_owned();
    for number in 0.. {
        if text.len() >= size {
            return text;
        }
        text += &format!(
            "  /srv/workshop/file-{number}:\n    title: The file number {number} is there\n    exists: true\n    mode: \"0644\"\n    contents:\n      - \"/^line [0-9]+$/\"\n"
        );
    }
    text
}

/// The best of a few runs: what else the machine does only ever makes it slower.
fn best(mut work: impl FnMut()) -> Duration {
    let mut durations: Vec<Duration> = (0..RUNS).map(|_| time(&mut work).1).collect();
    quantile(&mut durations, 0.0)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn rate(bytes: u64, duration: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / duration.as_secs_f64())
}

fn rates() {
    let mut report = Report::new("Import and export of 4 MB of YAML and markdown, one core");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("w.db");
    let definition = definition(40, 80_000);
    for layout in [Layout::Tree, Layout::Tables] {
        let name = match layout {
            Layout::Tree => "tree",
            Layout::Tables => "tables",
        };
        let rendered = export::render(&definition, layout, &State::default()).expect("it renders");
        let mut tree = FileTree::default();
        for (path, entry) in rendered.iter() {
            tree.insert(format!("export/{path}"), entry.clone());
        }
        let size = tree.size();
        let hash = best(|| {
            for (_, entry) in tree.iter() {
                if let TreeEntry::File { bytes, .. } = entry {
                    std::hint::black_box(Digest::of(bytes));
                }
            }
        });
        let import = best(|| {
            let (workshop, _) = read_workshop("", &tree, None, None).into_result().expect("a valid workshop");
            artifact::write(&workshop.definition, &BTreeMap::new(), &file).expect("an artifact");
        });
        let export = best(|| {
            let read = artifact::read(&file).expect("an artifact");
            std::hint::black_box(export::render(&read.definition, layout, &State::default()).expect("it renders"));
        });
        let beside = format!("sha256 of the same bytes {}", rate(size, hash));
        report.row(&format!("files to artifact, layout {name}"), rate(size, import), &beside, "≥ 50 MB/s");
        report.row(&format!("artifact to files, layout {name}"), rate(size, export), &beside, "≥ 50 MB/s");
    }
}

fn thousand() {
    let mut report = Report::new("1,000 workshops of 10 steps, directories to artifacts and back");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (sources, artifacts) = (directory.path().join("sources"), directory.path().join("artifacts"));
    let copies = directory.path().join("copies");
    for number in 0..WORKSHOPS {
        fixture::write_export_only(&sources.join(format!("w{number}")), &format!("w{number}"), STEPS);
    }
    let (_, copy) = time(|| copy_files(&sources, &copies));
    let ((_, read), reading) = time(|| read_workshops(&sources, None).expect("workshops"));
    let beside = format!("plain copy of the same files {}", show(copy));
    report.row("read and check directories", show(reading), &beside, "");
    let (_, writing) = time(|| {
        for (unit, imported) in read {
            let (workshop, _) = imported.workshop.into_result().expect("a valid workshop");
            let file = artifacts.join(format!("{}.db", unit.path));
            write_artifact(&workshop, &BTreeMap::new(), &file).expect("an artifact");
        }
    });
    report.row("write artifacts", show(writing), "", "");
    report.row("import together", show(reading + writing), &beside, "< 2 s");
    let (_, exporting) = time(|| {
        for number in 0..WORKSHOPS {
            let read = artifact::read(&artifacts.join(format!("w{number}.db"))).expect("an artifact");
            let files = export::render(&read.definition, Layout::Tree, &State::default()).expect("it renders");
            write_export(&files, &directory.path().join(format!("out/w{number}")), false).expect("an export");
        }
    });
    report.row("export", show(exporting), &beside, "< 2 s");
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
