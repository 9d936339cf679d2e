//! `workshop workspace`: what can be done with workspaces from a terminal, one verb each.
//!
//! Flags and output; the way to the objects is in `way`.

mod in_cluster;
mod table;
mod way;

use serde_json::{Value, json};

use super::{Context, Exit, Failure};
use crate::domain::duration::Duration;
use crate::gateway::PublicUrl;
use way::Way;

pub use way::failure;

/// Flags of `workshop workspace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Those of the cluster of the kubeconfig instead of this machine's
    #[arg(long, global = true)]
    cluster: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show all workspaces
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this workshop
        #[arg(long, value_name = "ID")]
        workshop: Option<String>,
        /// Those of all namespaces of a cluster
        #[arg(short = 'A', long)]
        all_namespaces: bool,
    },
    /// Make workspaces of a workshop
    Create(Create),
    /// Take workspaces away, with everything in them
    #[command(visible_alias = "rm")]
    Delete {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Start the current step anew; files outside /persist are lost
    Reset {
        /// Its name
        name: String,
    },
    /// Go to a step, whatever was completed; files outside /persist are lost
    Goto {
        /// Its name
        name: String,
        /// The step's id
        step: String,
    },
    /// Put a workspace to sleep; files outside /persist are lost
    Suspend {
        /// Its name
        name: String,
    },
    /// Wake a workspace, or try again where it failed
    Resume {
        /// Its name
        name: String,
    },
    /// Give a workspace more time
    Extend {
        /// Its name
        name: String,
        /// By how much, e.g. 30m [default: the workshop's own time to live]
        #[arg(long = "by", value_name = "DURATION")]
        by: Option<Duration>,
    },
    /// Move a workspace to the newest revision of its workshop
    Update {
        /// Its name
        name: String,
    },
    /// Print what the workspace's program printed
    Logs {
        /// Its name
        name: String,
        /// Go on until the workspace ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the address that opens a workspace; it holds a token, so keep it to yourself
    Open {
        /// Its name; none prints the address that opens all of a cluster
        name: Option<String>,
        /// Open it in the browser as well
        #[arg(long)]
        browser: bool,
        #[command(flatten)]
        flags: OpenFlags,
    },
}

/// Who is to come in, and where that is in a cluster.
#[derive(Debug, Clone, clap::Args)]
struct OpenFlags {
    /// For this member of a team [default: its owner]
    #[arg(long, value_name = "PERSON", requires = "name")]
    member: Option<String>,
    /// The controller's namespace, in which its keys are
    #[arg(long, value_name = "NAME", env = "WORKSHOP_SYSTEM_NAMESPACE", default_value = "workshop-system")]
    system_namespace: String,
    /// The gateway's address [default: what the workspace's status says]
    #[arg(long, value_name = "URL")]
    gateway_url: Option<PublicUrl>,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its name [default: <prefix>-<owner>]
    name: Option<String>,
    /// The template it is made from: the workshop's id
    #[arg(long, value_name = "ID")]
    template: String,
    /// Whose it is [default: the user's name; with --count each workspace's own name]
    #[arg(long)]
    owner: Option<String>,
    /// Who shares it with its owner, where the workshop is for teams; once for each
    #[arg(long = "member", value_name = "PERSON")]
    members: Vec<String>,
    /// The step to begin with [default: the first]
    #[arg(long, value_name = "ID")]
    step: Option<String>,
    /// How many, numbered from 1
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// What their names begin with [default: the workshop's id]
    #[arg(long)]
    prefix: Option<String>,
}

impl Create {
    fn body(self) -> Value {
        let owner = self.owner.or_else(|| self.count.is_none().then(person)).unwrap_or_default();
        json!({
            "template": self.template, "name": self.name, "owner": owner, "step": self.step, "count": self.count,
            "prefix": self.prefix, "members": self.members,
        })
    }
}

/// The name of the person whose program this is, where a name can be made of it.
pub fn person() -> String {
    let user = std::env::var("USER").unwrap_or_default();
    let has_name = user.chars().any(|letter| letter.is_ascii_alphanumeric());
    if has_name { user } else { "learner".to_owned() }
}

/// Runs `workshop workspace`.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let printer = &context.printer;
    if !args.cluster && matches!(args.verb, Verb::List { all_namespaces: true, .. }) {
        return Err(Failure::new(Exit::Usage, "this machine has no namespaces").help("add --cluster for a cluster's"));
    }
    let way = Way::find(args.cluster, context).await?;
    match args.verb {
        Verb::List { workshop, all_namespaces } => {
            let mut instances = way.list(all_namespaces).await?;
            instances.retain(|instance| workshop.as_deref().is_none_or(|id| instance["template"] == id));
            match (printer.is_json(), instances.is_empty()) {
                (true, _) => printer.json(&json!({ "instances": instances })),
                (false, true) => {
                    printer.talk("no workspaces yet: `workshop workspace create --template WORKSHOP` makes one")
                }
                (false, false) => {
                    printer.data(&table::instances(&instances, all_namespaces, jiff::Timestamp::now()));
                }
            }
        }
        Verb::Create(create) => {
            let made = way.create(create.body()).await?;
            if printer.is_json() {
                printer.json(&json!({ "instances": made, "pending": !way.is_running() }));
            } else {
                printer.data(
                    &made.iter().map(|instance| format!("{}\n", table::text(instance, "name"))).collect::<String>(),
                );
                way.say_when(printer);
            }
        }
        Verb::Delete { names } => {
            for name in &names {
                way.delete(name).await?;
            }
            if printer.is_json() {
                printer.json(&json!({ "deleted": names, "pending": !way.is_running() }));
            } else {
                way.say_when(printer);
            }
        }
        Verb::Reset { name } => changed(&way, &name, "reset", json!({}), context).await?,
        Verb::Goto { name, step } => changed(&way, &name, "goto", json!({ "step": step }), context).await?,
        Verb::Suspend { name } => changed(&way, &name, "suspend", json!({}), context).await?,
        Verb::Resume { name } => changed(&way, &name, "resume", json!({}), context).await?,
        Verb::Update { name } => changed(&way, &name, "update", json!({}), context).await?,
        Verb::Extend { name, by } => {
            let end = way.extend(&name, by.map(Duration::get)).await?;
            if printer.is_json() {
                printer.json(&json!({ "expiresAt": end }));
            } else {
                printer.data(&end);
            }
        }
        Verb::Logs { name, follow } => way.logs(&name, follow, printer).await?,
        Verb::Open { name, browser, flags } => {
            let url = match &name {
                Some(name) => way.open(name, &flags, printer).await?,
                None => way.open_all(&flags).await?,
            };
            if printer.is_json() {
                printer.json(&json!({ "url": url }));
            } else {
                printer.data(&url);
            }
            if browser {
                open_browser(&url)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Changes one workspace and shows it as it is then.
async fn changed(way: &Way, name: &str, verb: &'static str, body: Value, context: &Context) -> Result<(), Failure> {
    let instance = way.change(name, verb, body).await?;
    if context.printer.is_json() {
        context.printer.json(&json!({ "instance": instance, "pending": !way.is_running() }));
    } else {
        let (step, phase) = (table::text(&instance, "step"), table::text(&instance, "phase"));
        context.printer.data(&format!("{name}: {phase}, step {step}"));
        way.say_when(&context.printer);
    }
    Ok(())
}

/// Asks the desktop to show an address.
pub fn open_browser(url: &str) -> Result<(), Failure> {
    let opened = std::process::Command::new("xdg-open")
        .arg(url)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    match opened {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(Exit::Outside, format!("xdg-open could not open a browser ({status})"))
            .help("open the printed address yourself")),
        Err(error) => Err(Failure::outside("failed to run xdg-open", error).help("open the printed address yourself")),
    }
}
