//! `workshop crds`: the definitions of our kinds, for `kubectl apply -f -` or as one file per kind.
//!
//! Only prints what `crd` says; nothing is sent to a cluster.

use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::crd::Kind;

/// Flags of `workshop crds`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one file per kind into this directory, as in crds/ of the sources
    #[arg(short = 'o', value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints the definitions.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let Some(directory) = args.directory else {
        if context.printer.is_json() {
            let definitions: Vec<_> = Kind::ALL.into_iter().map(Kind::definition).collect();
            context.printer.json(&serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": definitions }));
        } else {
            let documents: Vec<String> = Kind::ALL.into_iter().map(build_document).collect::<Result<_, _>>()?;
            context.printer.data(&documents.concat());
        }
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(&directory).map_err(|error| {
        Failure::outside(format!("failed to make the directory \"{}\"", directory.display()), error)
    })?;
    for kind in Kind::ALL {
        let path = directory.join(format!("{}.yaml", kind.plural()));
        std::fs::write(&path, build_document(kind)?)
            .map_err(|error| Failure::outside(format!("failed to write \"{}\"", path.display()), error))?;
        context.printer.talk(&format!("wrote {}", path.display()));
    }
    Ok(Exit::Done)
}

/// The definition of a kind as a YAML document with its `---`.
pub fn build_document(kind: Kind) -> Result<String, Failure> {
    let text = serde_yaml::to_string(&kind.definition())
        .map_err(|error| Failure::outside(format!("failed to write {kind} as YAML"), error))?;
    Ok(format!("---\n{}\n", text.trim_end()))
}
