//! `workshop up`: sync, watch, run and serve on one machine, in the foreground.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::serving::{Serving, ServingFlags};
use super::show::{Activity, count, lines, seconds};
use super::state_lock::StateLock;
use super::sync_flags::SyncFlags;
use super::{Context, Exit, Failure};
use crate::adapters::store::Store;
use crate::adapters::watch::Watch;
use crate::crd::labels;
use crate::domain::object::Kind;
use crate::domain::revision::RefSpec;
use crate::domain::source::Source;
use crate::pipeline::object_end::{ObjectEnd, delete_embedded};
use crate::pipeline::sync::{Sync, Trigger};
use crate::pipeline::workspace::Workspaces;

/// How often a source that cannot be watched is asked.
const INTERVAL: Duration = Duration::from_secs(30);

/// How often a watched source is read all the same, because file events are hints only.
const RESCAN: Duration = Duration::from_secs(300);

/// Flags of `workshop up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// URLs or directories [default: the current directory]
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Bring workshops in and watch them only: run no workspaces, serve nothing
    #[arg(long, conflicts_with_all = ["listen", "runtime"])]
    no_run: bool,
    #[command(flatten)]
    serving: ServingFlags,
    #[command(flatten)]
    flags: SyncFlags,
}

/// Runs `workshop up`.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let sources = if args.sources.is_empty() { vec![".".to_owned()] } else { args.sources.clone() };
    crate::adapters::store::make_private(&context.state)
        .map_err(|error| Failure::outside(format!("failed to create \"{}\"", context.state.display()), error))?;
    let _lock = StateLock::take(&context.state)?;
    let store = Arc::new(Store::open(&context.state).map_err(|error| Failure::from_error(Exit::Outside, error))?);
    let start = Instant::now();
    let mut syncs = Vec::new();
    for source in &sources {
        let objects = ObjectEnd::Embedded(Arc::clone(&store));
        let sync = args.flags.build(source, RefSpec::Default, false, objects, Arc::clone(&store), context).await?;
        syncs.push(Arc::new(sync));
    }
    drop_others(&store, &syncs, context)?;
    let stop = super::stopping();

    let (wake, mut woken) = mpsc::channel(1);
    for (index, source) in sources.iter().enumerate() {
        keep_awake(source, index, &wake)?;
    }
    for sync in &syncs {
        show(sync, Trigger::Requested, context, &stop).await;
    }
    if stop.is_cancelled() {
        return Ok(Exit::Done);
    }
    let serving = if args.no_run {
        None
    } else {
        let workspaces = Workspaces::open(Arc::clone(&store), &context.state).map_err(super::workspace::failure)?;
        Some(Serving::start(workspaces, &args.serving, context, &stop).await?)
    };
    greet(&store, serving.as_ref(), start.elapsed(), context)?;
    loop {
        tokio::select! {
            // A stream of changes must not keep the program from ending.
            biased;
            () = stop.cancelled() => break,
            Some(index) = woken.recv() => {
                if let Some(sync) = syncs.get(index) {
                    show(sync, Trigger::Poll, context, &stop).await;
                }
            }
        }
    }
    if let Some(serving) = serving {
        serving.end(context).await;
    }
    Ok(Exit::Done)
}

/// Says what is there and where it is reached.
fn greet(store: &Store, serving: Option<&Serving>, took: Duration, context: &Context) -> Result<(), Failure> {
    let objects = store.list_objects(None).map_err(|error| Failure::from_error(Exit::Outside, error))?;
    let of = |kind| objects.iter().filter(|object| object.key.kind == kind).count();
    let printer = &context.printer;
    if printer.is_json() {
        printer.json(&json!({
            "url": serving.map(|serving| serving.gateway.owner_url()),
            "runtime": serving.map(|serving| serving.runtime.name),
        }));
        return Ok(());
    }
    let mut text = format!(
        "{}: {} and {} after {} ({})\n",
        printer.green("up"),
        count(of(Kind::WorkspaceTemplate), "template"),
        count(of(Kind::WorkspaceInstance), "instance"),
        seconds(took),
        context.state.display(),
    );
    match serving {
        None => text.push_str("`workshop get templates` shows them; this keeps watching until Ctrl-C\n"),
        Some(serving) => {
            let runtime = &serving.runtime;
            text.push_str(&format!(
                "  workspaces run by {}; {}\n  open {}\n  Ctrl-C ends it and all workspaces\n",
                runtime.description,
                runtime.egress_note,
                printer.bold(&serving.gateway.owner_url()),
            ));
        }
    }
    printer.data(&text);
    Ok(())
}

/// Syncs one source and says what that did, if anything.
pub(super) async fn show(sync: &Sync, trigger: Trigger, context: &Context, stop: &CancellationToken) {
    if stop.is_cancelled() {
        return;
    }
    let printer = &context.printer;
    let start = Instant::now();
    let activity = Activity::start(printer);
    let result = super::sync::until_stopped(sync, trigger, &activity, stop).await;
    activity.end();
    match result {
        Ok(report) if trigger == Trigger::Poll && !report.did_something() => {}
        Ok(report) if printer.is_json() => printer.json(&report),
        Ok(report) => printer.data(&lines(&report, start.elapsed(), printer)),
        Err(_) if stop.is_cancelled() => {}
        Err(error) => {
            super::sync::failure(error).print(printer);
        }
    }
}

/// Forgets sources that are not given any more, and removes their objects.
fn drop_others(store: &Store, syncs: &[Arc<Sync>], context: &Context) -> Result<(), Failure> {
    let outside = |error| Failure::from_error(Exit::Outside, error);
    let ours: Vec<&str> = syncs.iter().map(|sync| sync.settings.owner.as_str()).collect();
    for (owner, record) in store.sources().map_err(outside)? {
        if ours.contains(&owner.as_str()) {
            continue;
        }
        let objects = store.list_objects(Some(&owner)).map_err(outside)?;
        for object in objects.iter().rev().filter(|object| object.label(labels::OWNER) == Some(&owner)) {
            delete_embedded(store, object).map_err(outside)?;
        }
        store.forget_source(&owner).map_err(outside)?;
        context.printer.talk(&format!(
            "dropped \"{}\" and its {}: it is not given any more",
            record.source,
            count(objects.len(), "object")
        ));
    }
    Ok(())
}

/// Wakes the source's sync when its files change, and from time to time anyway.
pub(super) fn keep_awake(source: &str, index: usize, wake: &mpsc::Sender<usize>) -> Result<(), Failure> {
    let mut watch = match Source::parse(source) {
        Ok(Source::Directory(directory)) => {
            let failed = |error| {
                Failure::from_error(Exit::Outside, error)
                    .help("the system's limit of watches may be too low: see fs.inotify.max_user_watches")
            };
            Some(Watch::start(&directory).map_err(failed)?)
        }
        _ => None,
    };
    let wake = wake.clone();
    tokio::spawn(async move {
        loop {
            match &mut watch {
                Some(watch) => {
                    // A watch that ended or stays silent is replaced by reading from time to time.
                    let _ = tokio::time::timeout(RESCAN, watch.changed()).await;
                }
                None => tokio::time::sleep(INTERVAL).await,
            }
            if wake.send(index).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
