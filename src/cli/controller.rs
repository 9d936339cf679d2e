//! `workshop controller`: the reconciler, in a pod or beside a cluster.
//!
//! Turns flags and the environment into options; what is done with them is in `controller`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::fronts::{FrontFlags, Fronts};
use super::{Context, Exit, Failure};
use crate::adapters::cluster::{Cluster, Mirror};
use crate::adapters::provisioner::{Chart, Provisioner};
use crate::adapters::registry::Credentials;
use crate::controller::{self, Beside, Options};
use crate::operator::cluster as operator;
use crate::pipeline::platform::{Platform, PlatformError};
use crate::pipeline::workspace::Bring;

/// Flags of `workshop controller`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address for health and metrics [default: 127.0.0.1:8080, another port when that is busy]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Directory with the backend and tini that go into every image [default: beside this program]
    #[arg(long, value_name = "DIR", env = "WORKSHOP_PLATFORM")]
    platform: Option<PathBuf>,
    /// Run the commands of recipes even in a pod, beside the controller's credentials
    #[arg(long)]
    allow_commands: bool,
    /// How many repositories are brought in at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    #[command(flatten)]
    fronts: FrontFlags,
    /// Give pods user namespaces of their own, which old runtimes refuse
    #[arg(long)]
    user_namespaces: bool,
    #[command(flatten)]
    clusters: ClusterFlags,
}

/// What learners' own clusters are made of (`cluster.mode: per-workspace`).
#[derive(Debug, clap::Args)]
struct ClusterFlags {
    /// vcluster's chart for workshops with cluster.mode per-workspace: a directory, an archive or oci://…; needs helm
    #[arg(long, value_name = "CHART")]
    vcluster_chart: Option<String>,
    /// The chart's version, where it comes from a registry
    #[arg(long, value_name = "VERSION", requires = "vcluster_chart")]
    vcluster_version: Option<String>,
    /// YAML with values for the chart, e.g. for images from a registry of your own
    #[arg(long, value_name = "FILE", requires = "vcluster_chart")]
    vcluster_values: Option<PathBuf>,
}

impl ClusterFlags {
    /// The chart, with helm from `PATH`.
    fn provisioner(&self) -> Result<Option<Provisioner>, Failure> {
        let Some(name) = &self.vcluster_chart else { return Ok(None) };
        let chart = Chart::read(name, self.vcluster_version.as_deref(), self.vcluster_values.as_deref());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = chart.and_then(|chart| Provisioner::find(chart, &path));
        found.map(Some).map_err(|error| Failure::from_error(Exit::Usage, error))
    }
}

/// Runs `workshop controller` until SIGTERM or Ctrl-C.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let cluster =
        Cluster::connect(context.kubeconfig.as_deref(), context.kube_context.as_deref(), context.namespace.as_deref())
            .await
            .map_err(|error| Failure::from_error(Exit::Outside, error))?;
    let platform = match Platform::find(args.platform.as_deref()) {
        Ok(platform) => Some(Arc::new(platform)),
        Err(PlatformError::Missing { .. }) if args.platform.is_none() => {
            context.printer.talk_always(
                "warning: there is no platform beside this program, so only workshops without a recipe can be brought in; `make build` makes it",
            );
            None
        }
        Err(error) => return Err(Failure::from_error(Exit::Usage, error)),
    };
    let provisioner = args.clusters.provisioner()?;
    let stop = super::stopping();
    // Kubernetes sets it in every pod.
    let is_in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let fronts = Fronts::start(&cluster, &args.fronts, &context.state, is_in_pod, &stop).await?;
    let options = Options {
        state: context.state.clone(),
        listen: args.listen,
        platform,
        allow_commands: args.allow_commands || !is_in_pod,
        docker_credentials: !is_in_pod,
        concurrency: args.concurrency.into(),
        beside: Some(operate(&cluster, &fronts, &args, provisioner, is_in_pod, context)),
    };
    let (server, namespace) = (cluster.server().to_owned(), cluster.namespace().to_owned());
    let (printer, gateway, management) = (context.printer.clone(), fronts.gateway.url(), fronts.management);
    let started = move |address: SocketAddr| {
        printer.talk(&format!(
            "following the repositories of {server} with the lease in namespace \"{namespace}\"; health and metrics on http://{address}, the gateway on {gateway}, the management API on {management}"
        ));
    };
    let ended = controller::run(cluster, options, stop.clone(), started).await;
    stop.cancel();
    fronts.end().await;
    ended.map_err(|error| Failure::from_error(Exit::Outside, error))?;
    Ok(Exit::Done)
}

/// The operator, as work that goes on while this process leads.
fn operate(
    cluster: &Cluster,
    fronts: &Fronts,
    args: &Args,
    provisioner: Option<Provisioner>,
    is_in_pod: bool,
    context: &Context,
) -> Beside {
    let (mirror, metrics) = (fronts.mirror.clone(), Arc::new(operator::Metrics::default()));
    // A pod has no user whose credentials could be meant.
    let credentials = if is_in_pod { Credentials::anonymous() } else { Credentials::docker() };
    let artifacts = Arc::new(operator::Artifacts::new(context.state.clone(), credentials));
    fronts.workspaces.bring_artifacts_by(bring(cluster, &mirror, &artifacts));
    let settings = Arc::new(operator::Settings {
        cluster: cluster.clone(),
        mirror: mirror.clone(),
        artifacts,
        key: Arc::new(fronts.key.clone()),
        management_url: fronts.management_url.clone(),
        gateway_url: Some(fronts.gateway.url().trim_end_matches('/').to_owned()),
        user_namespaces: args.user_namespaces,
        provisioner,
        metrics: Arc::clone(&metrics),
    });
    Beside {
        work: Arc::new(move |lost| Box::pin(operator::run(Arc::clone(&settings), lost))),
        register: Arc::new(move |registry| metrics.register(registry, mirror.clone())),
    }
}

/// How a replica comes by an artifact that somebody else brought in.
fn bring(cluster: &Cluster, mirror: &Mirror, artifacts: &Arc<operator::Artifacts>) -> Bring {
    let (cluster, mirror, artifacts) = (cluster.clone(), mirror.clone(), Arc::clone(artifacts));
    Arc::new(move |instance, digest| {
        let (cluster, mirror, artifacts) = (cluster.clone(), mirror.clone(), Arc::clone(&artifacts));
        Box::pin(async move {
            let pin = instance.status.as_ref().and_then(|status| status.pinned.as_ref());
            let image = pin.and_then(|pin| pin.steps.first()).map(|step| step.image_tag.as_str());
            let template = mirror.template(&instance.spec.template_ref.name);
            let pull = template.as_ref().and_then(|template| template.spec.image_pull_secret.as_ref());
            artifacts.file(&cluster, &digest.to_string(), image, pull).await.map(drop)
        })
    })
}
