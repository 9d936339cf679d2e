//! `workshop sync`: one source, the whole pipeline, once or in step with the source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::show::{Activity, lines};
use super::sync_flags::SyncFlags;
use super::{Context, Exit, Failure};
use crate::adapters::cluster::Cluster;
use crate::adapters::store::Store;
use crate::domain::duration::Duration as Interval;
use crate::domain::revision::RefSpec;
use crate::pipeline::object_end::ObjectEnd;
use crate::pipeline::sync::{Class, Sync, SyncReport, Trigger};

/// How long a sync may take to end once the program is to end.
const GRACE: Duration = Duration::from_secs(3);

/// Flags of `workshop sync`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// URL, directory, artifact file or oci://REF
    source: String,
    #[command(flatten)]
    reference: Reference,
    /// Bring the source in once and end; JSON output implies it
    #[arg(long)]
    once: bool,
    /// How often to ask the source for something new
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    interval: Interval,
    /// Print the plan and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write objects to the cluster of the kubeconfig instead of the embedded store
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    flags: SyncFlags,
}

/// What of a repository is followed.
#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
struct Reference {
    /// Follow a branch [default: the repository's default branch]
    #[arg(long)]
    branch: Option<String>,
    /// Follow a tag
    #[arg(long)]
    tag: Option<String>,
    /// Follow the highest tag of a range, e.g. 1.x
    #[arg(long, value_name = "RANGE")]
    semver: Option<String>,
    /// Follow a reference by its full name, e.g. refs/pull/420/head
    #[arg(long, value_name = "REF")]
    name: Option<String>,
    /// Bring in one commit
    #[arg(long, value_name = "HASH")]
    commit: Option<String>,
}

impl Reference {
    fn spec(&self) -> Result<RefSpec, Failure> {
        let spec = match (&self.branch, &self.tag, &self.semver, &self.name, &self.commit) {
            (Some(branch), ..) => RefSpec::Branch(branch.clone()),
            (_, Some(tag), ..) => RefSpec::Tag(tag.clone()),
            (_, _, Some(range), ..) => RefSpec::Semver(range.clone()),
            (_, _, _, Some(name), _) => RefSpec::Name(name.clone()),
            (.., Some(commit)) => RefSpec::Commit(commit.clone()),
            _ => RefSpec::Default,
        };
        spec.check().map_err(|error| Failure::from_error(Exit::Usage, error))?;
        Ok(spec)
    }
}

/// Runs `workshop sync`.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let reference = args.reference.spec()?;
    let store = Arc::new(Store::open(&context.state).map_err(|error| Failure::from_error(Exit::Outside, error))?);
    let objects = if args.cluster {
        let cluster = Cluster::connect(
            context.kubeconfig.as_deref(),
            context.kube_context.as_deref(),
            context.namespace.as_deref(),
        )
        .await
        .map_err(|error| Failure::from_error(Exit::Outside, error))?;
        ObjectEnd::Cluster(Box::new(cluster))
    } else {
        ObjectEnd::Embedded(Arc::clone(&store))
    };
    let sync = args.flags.build(&args.source, reference, args.dry_run, objects, store, context).await?;
    let stop = super::stopping();
    if args.once || args.dry_run || context.printer.is_json() {
        let report = run_once(&sync, Trigger::Requested, context, &stop).await?;
        return Ok(exit_of(&report));
    }
    follow(&sync, args.interval, context, &stop).await
}

/// Syncs and prints; what is unchanged prints nothing after the first time.
async fn run_once(
    sync: &Sync,
    trigger: Trigger,
    context: &Context,
    stop: &CancellationToken,
) -> Result<SyncReport, Failure> {
    let printer = &context.printer;
    let start = Instant::now();
    let activity = Activity::start(printer);
    let result = until_stopped(sync, trigger, &activity, stop).await;
    activity.end();
    match result {
        Ok(report) => {
            if printer.is_json() {
                printer.json(&report);
            } else if trigger != Trigger::Poll || report.did_something() {
                printer.data(&lines(&report, start.elapsed(), printer));
            }
            Ok(report)
        }
        Err(error) => {
            if printer.is_json() {
                printer.json(&SyncReport::of_failure(&sync.settings.source, &error));
            }
            Err(failure(error))
        }
    }
}

/// Runs the sync until it is done, or until somebody ends the program: then commands are ended, nothing more is
/// written, and what does not end in time is left behind.
pub(super) async fn until_stopped(
    sync: &Sync,
    trigger: Trigger,
    activity: &Activity,
    stop: &CancellationToken,
) -> Result<SyncReport, crate::pipeline::sync::Error> {
    let listener = |event: crate::pipeline::sync::Event<'_>| activity.event(&event);
    let running = sync.run(trigger, stop, &listener);
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => return result,
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(GRACE, running).await {
        Ok(result) => result,
        Err(_) => Err(crate::pipeline::sync::Error::Cancelled),
    }
}

/// A sync's error with its exit code.
pub(super) fn failure(error: crate::pipeline::sync::Error) -> Failure {
    let help = match error.class() {
        Class::Transient => "this may pass by itself: try again",
        Class::Final => "check the source, the reference and the credentials",
    };
    Failure::from_error(Exit::Outside, error).help(help)
}

/// What the exit code says of a report.
pub(super) fn exit_of(report: &SyncReport) -> Exit {
    if report.is_refused() {
        Exit::Refused
    } else if report.is_retryable() {
        Exit::Outside
    } else if report.is_good() {
        Exit::Done
    } else {
        Exit::No
    }
}

async fn follow(sync: &Sync, interval: Interval, context: &Context, stop: &CancellationToken) -> Result<Exit, Failure> {
    let mut trigger = Trigger::Requested;
    loop {
        let result = run_once(sync, trigger, context, stop).await;
        if stop.is_cancelled() {
            return Ok(Exit::Done);
        }
        if let Err(failure) = result {
            failure.print(&context.printer);
        }
        trigger = Trigger::Poll;
        tokio::select! {
            () = tokio::time::sleep(interval.get().max(Duration::from_secs(1))) => {}
            () = stop.cancelled() => return Ok(Exit::Done),
        }
    }
}
