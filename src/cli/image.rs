//! `workshop image load|import-rootfs|list`: the local store of base images, for machines without a registry.
//!
//! Parses and prints; filling the store is the pipeline's.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{Context, Exit, Failure};
use crate::pipeline::image_store::{StoreError, StoredImage, import_rootfs, list, load};
use crate::pipeline::platform::host_architecture;

/// Flags of `workshop image`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Load images from an OCI archive, a file of `docker save` or an OCI layout directory
    Load {
        /// Archive or layout directory
        file: PathBuf,
        /// Name of its only image [default: the names in it]
        #[arg(long, value_name = "REF")]
        tag: Option<String>,
    },
    /// Make an image of a root file system
    ImportRootfs {
        /// Directory, or tar file (also compressed)
        root: PathBuf,
        /// Name of the image
        #[arg(long, value_name = "REF")]
        tag: String,
    },
    /// List the images of the store
    List,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let state = context.state.clone();
    let work = move || match args.verb {
        Verb::Load { file, tag } => load(&state, &file, tag.as_deref()).map(|images| ("loaded ", images)),
        Verb::ImportRootfs { root, tag } => {
            import_rootfs(&state, &root, &tag, host_architecture()).map(|image| ("imported ", vec![image]))
        }
        Verb::List => list(&state).map(|images| ("", images)),
    };
    let (done, images) = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::outside("failed to use the image store", error))?
        .map_err(failure)?;
    if context.printer.is_json() {
        context.printer.json(&json!({ "images": images }));
    } else if images.is_empty() {
        context.printer.talk("no images; add some with `workshop image load` or `workshop image import-rootfs`");
    }
    if !context.printer.is_json() {
        for StoredImage { name, digest } in images {
            context.printer.data(&format!("{done}{name} {digest}\n"));
        }
    }
    Ok(Exit::Done)
}

fn failure(error: StoreError) -> Failure {
    let exit = match error {
        StoreError::Name(_) | StoreError::NoReference(_) | StoreError::NeedsName { .. } => Exit::Usage,
        StoreError::Layout(_) => Exit::Outside,
        _ => Exit::No,
    };
    Failure::from_error(exit, error)
}
