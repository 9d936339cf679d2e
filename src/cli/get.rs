//! `workshop get`: the objects of the embedded store or of a cluster, as a table, YAML, JSON or names.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::show::table;
use super::{Context, Exit, Failure};
use crate::adapters::cluster::Cluster;
use crate::adapters::store::Store;
use crate::crd::labels;
use crate::domain::object::{Kind, Live};

/// Flags of `workshop get`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to show
    #[arg(value_enum)]
    what: What,
    /// Only the object of this name
    name: Option<String>,
    /// Form of the result
    #[arg(short = 'o', value_enum, value_name = "FORM")]
    form: Option<Form>,
    /// Ask the cluster of the kubeconfig instead of the embedded store
    #[arg(long)]
    cluster: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Sources that are kept in step
    #[value(alias = "repository")]
    Repositories,
    /// Workshops ready to make workspaces of
    #[value(alias = "template")]
    Templates,
    /// Workspaces
    #[value(alias = "instance")]
    Instances,
    /// Groups of seats
    #[value(alias = "class")]
    Classes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Columns
    Table,
    /// YAML documents
    Yaml,
    /// One JSON document
    Json,
    /// One name per line
    Name,
}

/// A table's row beside its object.
struct Row {
    name: String,
    columns: Vec<String>,
    object: Value,
}

/// Runs `workshop get`.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let form = args.form.unwrap_or(if context.printer.is_json() { Form::Json } else { Form::Table });
    let (header, mut rows) = match args.what {
        What::Repositories => repositories(&args, context).await?,
        What::Templates => objects(&args, context, Kind::WorkspaceTemplate).await?,
        What::Instances => objects(&args, context, Kind::WorkspaceInstance).await?,
        What::Classes => {
            return Err(Failure::new(Exit::Usage, "classes are not part of this version")
                .help("`workshop get templates` and `workshop get instances` show what there is"));
        }
    };
    if let Some(name) = &args.name {
        rows.retain(|row| row.name == *name);
        if rows.is_empty() {
            let what = args.what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            return Err(Failure::new(Exit::No, format!("there is no \"{name}\" among the {what}"))
                .help(format!("`workshop get {what}` lists them")));
        }
    }
    print(context, form, args.name.is_some(), header, &rows)?;
    Ok(Exit::Done)
}

fn print(context: &Context, form: Form, is_single: bool, header: &[&str], rows: &[Row]) -> Result<(), Failure> {
    let printer = &context.printer;
    match form {
        Form::Table if rows.is_empty() => {
            printer.talk("nothing here yet: `workshop up` or `workshop sync SOURCE --once` brings workshops in")
        }
        Form::Table => {
            let cells: Vec<_> = rows.iter().map(|row| row.columns.clone()).collect();
            printer.data(&table(header, &cells));
        }
        Form::Name => {
            printer.data(&rows.iter().map(|row| format!("{}\n", row.name)).collect::<String>());
        }
        Form::Json if is_single && rows.len() == 1 => printer.json(&rows[0].object),
        Form::Json => {
            printer.json(&json!({ "items": rows.iter().map(|row| &row.object).collect::<Vec<_>>() }));
        }
        Form::Yaml => {
            let mut text = String::new();
            for row in rows {
                let document = serde_yaml::to_string(&row.object)
                    .map_err(|error| Failure::outside("failed to write YAML", error))?;
                if !text.is_empty() {
                    text.push_str("---\n");
                }
                text.push_str(&document);
            }
            printer.data(&text);
        }
    }
    Ok(())
}

async fn objects(args: &Args, context: &Context, kind: Kind) -> Result<(&'static [&'static str], Vec<Row>), Failure> {
    let namespace = context.namespace.as_deref().filter(|_| kind == Kind::WorkspaceInstance);
    let live: Vec<Live> = if args.cluster {
        let cluster = connect(context).await?;
        let all = cluster.list(kind.into(), namespace, None).await;
        all.map_err(|error| Failure::from_error(Exit::Outside, error))?
            .into_iter()
            .filter_map(Live::from_manifest)
            .collect()
    } else {
        let store = open_store(context)?;
        let all = store.list_objects(None).map_err(|error| Failure::from_error(Exit::Outside, error))?;
        all.into_iter()
            .filter(|live| live.key.kind == kind)
            .filter(|live| namespace.is_none() || live.key.namespace.as_deref() == namespace)
            .collect()
    };
    let text = |live: &Live, pointer: &str| live.text(pointer).unwrap_or("-").to_owned();
    Ok(match kind {
        Kind::WorkspaceTemplate => (
            &["NAME", "STEPS", "PATH", "ARTIFACT", "IMAGE"],
            live.into_iter()
                .map(|live| {
                    let steps = live.manifest.pointer("/spec/steps").and_then(Value::as_array);
                    let image = live.text("/spec/steps/0/imageTag").unwrap_or("-");
                    Row {
                        name: live.key.name.clone(),
                        columns: vec![
                            live.key.name.clone(),
                            steps.map_or(0, Vec::len).to_string(),
                            live.annotation(labels::PATH).filter(|path| !path.is_empty()).unwrap_or(".").to_owned(),
                            short(&text(&live, "/spec/artifact/digest")),
                            image.rsplit_once(':').map_or(image, |(repository, _)| repository).to_owned(),
                        ],
                        object: live.manifest,
                    }
                })
                .collect(),
        ),
        Kind::WorkspaceInstance => (
            &["NAMESPACE", "NAME", "TEMPLATE", "OWNER", "STEP", "PHASE"],
            live.into_iter()
                .map(|live| Row {
                    name: live.key.name.clone(),
                    columns: vec![
                        live.key.namespace.clone().unwrap_or_default(),
                        live.key.name.clone(),
                        text(&live, "/spec/templateRef/name"),
                        text(&live, "/spec/owner"),
                        text(&live, "/spec/currentStep"),
                        text(&live, "/status/phase"),
                    ],
                    object: live.manifest,
                })
                .collect(),
        ),
    })
}

async fn repositories(args: &Args, context: &Context) -> Result<(&'static [&'static str], Vec<Row>), Failure> {
    if args.cluster {
        let cluster = connect(context).await?;
        let all = cluster.list(crate::crd::Kind::WorkshopRepository, context.namespace.as_deref(), None).await;
        let all = all.map_err(|error| Failure::from_error(Exit::Outside, error))?;
        let rows = all
            .into_iter()
            .map(|object| {
                let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
                let ready = object
                    .pointer("/status/conditions")
                    .and_then(Value::as_array)
                    .and_then(|conditions| conditions.iter().find(|condition| condition["type"] == "Ready"))
                    .and_then(|condition| condition["status"].as_str())
                    .unwrap_or("Unknown")
                    .to_owned();
                Row {
                    name: text("/metadata/name"),
                    columns: vec![
                        text("/metadata/name"),
                        text("/metadata/namespace"),
                        text("/spec/url"),
                        ready,
                        text("/status/lastAppliedRevision"),
                    ],
                    object,
                }
            })
            .collect();
        return Ok((&["NAME", "NAMESPACE", "URL", "READY", "REVISION"], rows));
    }
    let sources = open_store(context)?.sources().map_err(|error| Failure::from_error(Exit::Outside, error))?;
    let rows = sources
        .into_iter()
        .map(|(owner, record)| Row {
            name: owner.clone(),
            columns: vec![owner.clone(), record.source.clone(), record.revision.clone()],
            object: json!({ "owner": owner, "source": record.source, "revision": record.revision }),
        })
        .collect();
    Ok((&["OWNER", "SOURCE", "REVISION"], rows))
}

fn short(digest: &str) -> String {
    digest.strip_prefix("sha256:").map_or(digest, |digits| &digits[..12.min(digits.len())]).to_owned()
}

fn open_store(context: &Context) -> Result<Store, Failure> {
    Store::open(&context.state).map_err(|error| {
        Failure::from_error(Exit::Outside, error).help("give --state DIR, the directory that `workshop up` uses")
    })
}

async fn connect(context: &Context) -> Result<Cluster, Failure> {
    Cluster::connect(context.kubeconfig.as_deref(), context.kube_context.as_deref(), context.namespace.as_deref())
        .await
        .map_err(|error| Failure::from_error(Exit::Outside, error).help("check --kubeconfig and --context"))
}
