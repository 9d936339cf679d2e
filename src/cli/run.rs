//! `workshop run`: one workspace of one workshop in the foreground, in a state of its own that goes with it.
//!
//! The state is below the normal one and shares its images, layers and mirrors, so that nothing is built or fetched
//! twice; `workshop up` may run beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::serving::{RUNTIME, Serving, ServingFlags};
use super::state_lock::StateLock;
use super::sync_flags::SyncFlags;
use super::workspace::open_browser;
use super::{Context, Exit, Failure, artifact, up};
use crate::adapters::layout::Layout;
use crate::adapters::registry::{Credentials, Registries, RegistryOptions};
use crate::adapters::store::{Store, make_private};
use crate::domain::digest::Digest;
use crate::domain::revision::RefSpec;
use crate::domain::source::Source;
use crate::domain::token::Role;
use crate::domain::workspace::Workspace;
use crate::pipeline::distribute::pull_artifact;
use crate::pipeline::object_end::ObjectEnd;
use crate::pipeline::place_artifact::{Placed, place_artifact};
use crate::pipeline::runtime_end::{RuntimeChoice, RuntimeEnd};
use crate::pipeline::sync::Trigger;
use crate::pipeline::workspace::{CreateRequest, Workspaces};

/// What the state of a run shares with the normal one: caches by content.
const SHARED: [&str; 10] =
    ["layout", "images", "layers", "blobs", "bases", "index", "published", "platform", "mirrors", "unpacked"];
/// So many runs of one source at once.
const MAX_RUNS: usize = 16;
/// How long a workspace that was left behind may take to end.
const SWEEP_GRACE: std::time::Duration = std::time::Duration::from_secs(5);
/// How long the printed address is good for.
const LINK: std::time::Duration = std::time::Duration::from_secs(12 * 3600);

/// Flags of `workshop run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// URL, directory, artifact file (*.db) or oci://REF
    source: String,
    /// The step to begin with [default: the first]
    step: Option<String>,
    /// How the workspace runs, beside an artifact file or in place of what comes with oci://REF
    #[arg(long, value_name = "FILE")]
    workspace: Option<PathBuf>,
    /// Open the address in the browser
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    serving: ServingFlags,
    #[command(flatten)]
    flags: SyncFlags,
}

/// Runs `workshop run`.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let source = Source::parse(&args.source).map_err(|error| Failure::from_error(Exit::Usage, error))?;
    if args.workspace.is_some() && !matches!(source, Source::Artifact(_) | Source::Oci(_)) {
        return Err(Failure::new(Exit::Usage, "--workspace belongs to an artifact")
            .help("a workshop's directory has its own workspace.yaml"));
    }
    let stop = super::stopping();
    sweep(&context.state, context).await;
    let private = PrivateState::make(&context.state, &args.source)?;
    let context = &Context { state: private.path.clone(), ..context.clone() };
    let mut is_left = false;
    let outcome = run_in(&args, &source, context, &stop, &mut is_left).await;
    // What a runtime may still hold stays in the directory for the next run to take away.
    if !is_left {
        private.remove();
    }
    outcome
}

/// Runs in a state directory of its own; `is_left` says whether containers may be left at its end.
async fn run_in(
    args: &Args,
    source: &Source,
    context: &Context,
    stop: &CancellationToken,
    is_left: &mut bool,
) -> Result<Exit, Failure> {
    let store = Arc::new(Store::open(&context.state).map_err(|error| Failure::from_error(Exit::Outside, error))?);
    let (template, follow) = match source {
        Source::Artifact(file) => {
            let registries = registries(args, None);
            (bring_artifact(args, file, None, &registries, &store, context).await?, None)
        }
        Source::Oci(reference) => (bring_pulled(args, reference, &store, context).await?, None),
        _ => {
            let (template, sync) = bring_source(args, &store, context, stop).await?;
            (template, Some(sync))
        }
    };
    if stop.is_cancelled() {
        return Ok(Exit::Done);
    }
    let workspaces =
        Workspaces::open(store, &context.state).map_err(|error| Failure::from_error(Exit::Outside, error))?;
    serve(args, &workspaces, &template, follow, (context, stop), is_left).await
}

type Follow = Arc<crate::pipeline::sync::Sync>;

/// Serves one workspace until somebody ends the program.
async fn serve(
    args: &Args,
    workspaces: &Workspaces,
    template: &str,
    follow: Option<Follow>,
    (context, stop): (&Context, &CancellationToken),
    is_left: &mut bool,
) -> Result<Exit, Failure> {
    let failed = |error| super::workspace::failure(error);
    // Remains of a run that was killed.
    for left in workspaces.list().await.map_err(failed)? {
        workspaces.delete(&left.name).await.map_err(failed)?;
    }
    let serving = Serving::start(workspaces.clone(), &args.serving, context, stop).await?;
    // From here on a failure leaves it to the next run.
    *is_left = true;
    let name = free_name(workspaces, template).await;
    let request = CreateRequest {
        template: template.to_owned(),
        name: Some(name.clone()),
        owner: "learner".into(),
        step: args.step.clone(),
        ..CreateRequest::default()
    };
    let made = workspaces.create(&request).await.map_err(failed);
    let view = match made {
        Ok(made) => made.into_iter().next(),
        Err(failure) => {
            stop.cancel();
            *is_left = !serving.end(context).await;
            return Err(failure);
        }
    };
    let uid = view.as_ref().map(|view| view.uid.clone()).unwrap_or_default();
    let address = view.map(|view| view.url).unwrap_or_default();
    let url = format!("{address}#token={}", workspaces.sign(&uid, "learner", Role::Learner, LINK).map_err(failed)?);
    if context.printer.is_json() {
        context.printer.json(&json!({ "workshop": template, "url": url, "runtime": serving.runtime.name }));
    } else {
        context.printer.data(&format!("{} {template}, until Ctrl-C\n  {url}", context.printer.green("runs")));
        context.printer.talk(&format!("  {}; {}", serving.runtime.description, serving.runtime.egress_note));
    }
    if args.open
        && let Err(failure) = open_browser(&url)
    {
        failure.print(&context.printer);
    }
    let (wake, mut woken) = mpsc::channel(1);
    if follow.is_some() {
        up::keep_awake(&args.source, 0, &wake)?;
    }
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = woken.recv() => {
                if let Some(sync) = &follow {
                    up::show(sync, Trigger::Poll, context, stop).await;
                }
            }
        }
    }
    *is_left = !serving.end(context).await;
    Ok(Exit::Done)
}

/// Takes away what runs left behind that were killed or cut off: their workspaces, then their directories.
async fn sweep(state: &Path, context: &Context) {
    let Ok(entries) = std::fs::read_dir(state.join("runs")) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let Ok(Some(lock)) = StateLock::try_take(&path) else { continue };
        let left = PrivateState { path, _lock: lock };
        match end_all(&left.path).await {
            Ok(()) => left.remove(),
            Err(error) => {
                context.printer.talk(&format!("left \"{}\" as it is: {error}", left.path.display()));
            }
        }
    }
}

/// Ends whatever the runtime still holds of this state directory.
async fn end_all(state: &Path) -> Result<(), String> {
    // Where no runtime was ever used there is nothing.
    let Ok(name) = std::fs::read_to_string(state.join(RUNTIME)) else { return Ok(()) };
    let choice: RuntimeChoice = name.trim().parse().map_err(|_| format!("\"{}\" is no runtime", name.trim()))?;
    let told = |error| crate::domain::chain::line(&error);
    let runtime = RuntimeEnd::detect(Some(choice), state).await.map_err(told)?;
    for found in runtime.list().await.map_err(told)? {
        runtime.stop(&found.uid, SWEEP_GRACE).await.map_err(told)?;
    }
    Ok(())
}

/// The workshop's id, or with a number where a workspace of that name is still being taken away.
async fn free_name(workspaces: &Workspaces, template: &str) -> String {
    for number in 1..100 {
        let name = if number == 1 { template.to_owned() } else { format!("{template}-{number}") };
        if workspaces.get(&name).await.is_ok_and(|found| found.is_none()) {
            return name;
        }
    }
    template.to_owned()
}

/// Syncs a directory or repository into the run's store; the id of its one workshop.
async fn bring_source(
    args: &Args,
    store: &Arc<Store>,
    context: &Context,
    stop: &CancellationToken,
) -> Result<(String, Follow), Failure> {
    let objects = ObjectEnd::Embedded(Arc::clone(store));
    let sync = args.flags.build(&args.source, RefSpec::Default, false, objects, Arc::clone(store), context).await?;
    let sync = Arc::new(sync);
    let activity = super::show::Activity::start(&context.printer);
    let result = super::sync::until_stopped(&sync, Trigger::Requested, &activity, stop).await;
    activity.end();
    let report = result.map_err(super::sync::failure)?;
    let ready: Vec<&str> = report
        .workshops
        .iter()
        .filter(|workshop| workshop.state.is_good())
        .filter_map(|workshop| workshop.id.as_deref())
        .collect();
    match ready[..] {
        [id] => Ok((id.to_owned(), sync)),
        [] => {
            context.printer.talk_always(&super::show::lines(&report, std::time::Duration::ZERO, &context.printer));
            let exit = super::sync::exit_of(&report);
            let exit = if exit == Exit::Done { Exit::No } else { exit };
            Err(Failure::new(exit, format!("there is no workshop to run in \"{}\"", args.source)))
        }
        _ => Err(Failure::new(Exit::Usage, format!("there are several workshops: {}", ready.join(", ")))
            .help("name the directory of one, or give --path DIR")),
    }
}

/// The registries that a run speaks to; `--insecure` is about the one that was named and the one of `reference`.
fn registries(args: &Args, reference: Option<&str>) -> Registries {
    let hosts = args.flags.registry.as_deref().into_iter().chain(reference);
    Registries::new(RegistryOptions::of(Credentials::docker(), hosts, args.flags.insecure))
}

/// Pulls an artifact with all that it names into the run's store; the workshop's id.
async fn bring_pulled(args: &Args, reference: &str, store: &Arc<Store>, context: &Context) -> Result<String, Failure> {
    let registries = registries(args, Some(reference));
    let file = context.state.join("pulled.db");
    let pulled = pull_artifact(&registries, reference, &file).await.map_err(artifact::failure)?;
    let own = match &pulled.workspace {
        Some(bytes) => Some(artifact::check_workspace(&format!("oci://{reference}: workspace.yaml"), bytes, context)?),
        None => None,
    };
    bring_artifact(args, &file, own, &registries, store, context).await
}

/// Takes an artifact's file into the run's store, with its images; the workshop's id. `own` is the `workspace.yaml`
/// that came with it.
async fn bring_artifact(
    args: &Args,
    file: &Path,
    own: Option<Workspace>,
    registries: &Registries,
    store: &Arc<Store>,
    context: &Context,
) -> Result<String, Failure> {
    let workspace = match &args.workspace {
        None => own.unwrap_or_default(),
        Some(path) => artifact::check_workspace(&path.display().to_string(), &artifact::read_file(path)?, context)?,
    };
    let layout = Layout::new(context.state.join("layout"));
    let placed = place_artifact(Placed {
        file,
        workspace: &workspace,
        registry: args.flags.registry.as_deref(),
        state: &context.state,
        layout: &layout,
        registries,
        store,
    });
    placed.await.map_err(|error| {
        let exit = if error.is_content() { Exit::No } else { Exit::Outside };
        Failure::from_error(exit, error)
    })
}

/// The state directory of one run.
struct PrivateState {
    path: PathBuf,
    _lock: StateLock,
}

impl PrivateState {
    /// A directory below `state` for this source that no other run uses. Its name is short: sockets are in it.
    fn make(state: &Path, source: &str) -> Result<Self, Failure> {
        let hash = Digest::of(source.as_bytes()).hex();
        for number in 0..MAX_RUNS {
            let path = state.join("runs").join(format!("{}-{number}", &hash[..8]));
            let failed = |error| Failure::outside(format!("failed to prepare \"{}\"", path.display()), error);
            make_private(state).map_err(failed)?;
            std::fs::create_dir_all(&path).map_err(failed)?;
            let Some(lock) = StateLock::try_take(&path)? else { continue };
            for shared in SHARED {
                let original = state.join(shared);
                std::fs::create_dir_all(&original).map_err(failed)?;
                match std::os::unix::fs::symlink(&original, path.join(shared)) {
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
                    _ => {}
                }
            }
            return Ok(Self { path, _lock: lock });
        }
        Err(Failure::new(Exit::Outside, format!("{MAX_RUNS} runs of \"{source}\" are going on already")))
    }

    /// Takes the directory away; what is shared is only linked to.
    fn remove(self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "failed to remove the state of a run");
        }
    }
}
