//! Filling the local image store: images from archives and layouts, and root file systems as images of one layer.
//!
//! A base that is in the store is never asked for at a registry. Names are those that recipes use, written out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::adapters::layout::{ArchiveError, Layout, LayoutError, open_archive};
use crate::adapters::runtime::{RuntimeError, read_root};
use crate::domain::container::DEFAULT_PATH;
use crate::domain::digest::Digest;
use crate::domain::image::{
    Descriptor, INDEX, Image, ImageError, MANIFEST, MAX_MANIFEST, Manifest, ManifestKind, NewLayer, children,
    manifest_kind,
};
use crate::domain::layer::{Compressor, LayerBlob, LayerError, LayerReadError, LayerWriter, Limits, decompress};
use crate::domain::path_index::PathIndex;
use crate::domain::reference::{BaseImage, InvalidReference};

use super::base::local_store;
use super::image_end::workers;

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredImage {
    /// Its full name, `docker.io/library/busybox:1.36`.
    pub name: String,
    /// Digest of its manifest, or of its index where it is for several platforms.
    pub digest: Digest,
}

/// Why something did not get into the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No name.
    #[error("the name {0}")]
    Name(#[from] InvalidReference),
    /// A name that is no image of a registry.
    #[error("the name \"{0}\" is no image reference such as docker.io/library/busybox:1.36")]
    NoReference(String),
    /// The archive holds names that say too little.
    #[error("\"{file}\" holds {found}: say what to call it with `--tag REF`")]
    NeedsName {
        /// The archive.
        file: PathBuf,
        /// What it holds.
        found: String,
    },
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An image cannot be used.
    #[error("\"{file}\" holds an image that cannot be used")]
    Image {
        /// The archive.
        file: PathBuf,
        /// The reason.
        source: ImageError,
    },
    /// The image lacks one of its blobs.
    #[error("\"{file}\" lacks the blob {digest} of its image")]
    MissingBlob {
        /// The archive.
        file: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// The root file system cannot be read.
    #[error("cannot read the root file system \"{path}\"")]
    Root {
        /// Directory or tar.
        path: PathBuf,
        /// The reason.
        source: RootError,
    },
}

/// Why a root file system cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] RuntimeError),
    /// The tar.
    #[error(transparent)]
    Tar(#[from] LayerReadError),
    /// The layer made of it.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
}

/// All images of the store, by name.
pub fn list(state: &Path) -> Result<Vec<StoredImage>, StoreError> {
    let images = local_store(state).list()?;
    Ok(images.into_iter().map(|(name, found)| StoredImage { name, digest: found.digest }).collect())
}

/// Loads an `oci-archive`, a file of `docker save` or a layout directory; `tag` renames its only image. Blocking.
pub fn load(state: &Path, file: &Path, tag: Option<&str>) -> Result<Vec<StoredImage>, StoreError> {
    let store = local_store(state);
    let tag = tag.map(full_name).transpose()?;
    let (from, _unpacked) = if file.is_dir() {
        (Layout::open(file)?, None)
    } else {
        let (layout, guard) = open_archive(file, &state.join("unpacked"), workers())?;
        (layout, Some(guard))
    };
    let mut names: Vec<(String, Descriptor)> = Vec::new();
    match tag {
        Some(tag) => {
            let only = from
                .only()?
                .ok_or_else(|| StoreError::NeedsName { file: file.to_owned(), found: "several images".to_owned() })?;
            names.push((tag, only));
        }
        None => {
            for (name, descriptor) in from.list()? {
                // Other tools put the bare tag there, which names no image.
                let full = full_name(&name).ok().filter(|_| name.contains([':', '/']));
                let found = || format!("an image that it only calls \"{name}\"");
                let full = full.ok_or_else(|| StoreError::NeedsName { file: file.to_owned(), found: found() })?;
                names.push((full, descriptor));
            }
            if names.is_empty() {
                return Err(StoreError::NeedsName { file: file.to_owned(), found: "an image without a name".into() });
            }
        }
    }
    let mut stored = Vec::new();
    for (name, descriptor) in &mut names {
        copy(file, &from, &store, &descriptor.digest, 0)?;
        descriptor.annotations.clear();
        stored.push(StoredImage { name: name.clone(), digest: descriptor.digest });
    }
    store.tag(&names)?;
    Ok(stored)
}

/// Makes an image of a root file system, a directory or a tar of one, for `architecture`. Blocking.
pub fn import_rootfs(state: &Path, root: &Path, tag: &str, architecture: &str) -> Result<StoredImage, StoreError> {
    let name = full_name(tag)?;
    let store = local_store(state);
    let broken = |source: RootError| StoreError::Root { path: root.to_owned(), source };
    let incoming = store.blobs().incoming()?;
    let (incoming, blob) =
        if root.is_dir() { write_directory(root, incoming) } else { write_tar(root, incoming) }.map_err(broken)?;
    incoming.finish(Some(&blob.digest))?;
    let mut image = Image::scratch(architecture);
    image.config.config.cmd = Some(vec!["/bin/sh".to_owned()]);
    let path = [("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    let image = image
        .extend(&[NewLayer::written(&blob, "root file system")], &path, 0)
        .map_err(|source| StoreError::Image { file: root.to_owned(), source })?;
    let encoded = image.encode();
    store.blobs().put(&encoded.config_digest, &encoded.config)?;
    store.blobs().put(&encoded.digest, &encoded.manifest)?;
    let descriptor = Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: encoded.digest,
        size: encoded.manifest.len() as u64,
        annotations: BTreeMap::new(),
    };
    store.tag(&[(name.clone(), descriptor)])?;
    Ok(StoredImage { name, digest: encoded.digest })
}

fn write_directory<W: io::Write>(root: &Path, out: W) -> Result<(W, LayerBlob), RootError> {
    let mut writer = LayerWriter::new(out, 0, workers());
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for mut change in read_root(root)? {
        // What an ordinary user built as well as they could was meant to be root's.
        if user != 0 && change.entry.uid == u64::from(user) {
            change.entry.uid = 0;
        }
        if user != 0 && change.entry.gid == u64::from(group) {
            change.entry.gid = 0;
        }
        match change.content {
            Some(path) => writer.append(&change.entry, File::open(path)?)?,
            None => writer.append(&change.entry, io::empty())?,
        }
    }
    if writer.entries() == 0 {
        return Err(RootError::Empty);
    }
    Ok(writer.finish()?)
}

fn write_tar<W: io::Write>(root: &Path, out: W) -> Result<(W, LayerBlob), RootError> {
    // Read once to see that it is whole and harmless, once more to store it as it is.
    let mut index = PathIndex::default();
    index.add_layer(decompress(File::open(root)?)?, Limits::default())?;
    if index.is_empty() {
        return Err(RootError::Empty);
    }
    let mut compressor = Compressor::new(out, workers());
    io::copy(&mut decompress(File::open(root)?)?, &mut compressor)?;
    Ok(compressor.finish()?)
}

/// Copies a manifest or index and everything that it names.
fn copy(file: &Path, from: &Layout, to: &Layout, digest: &Digest, depth: u32) -> Result<(), StoreError> {
    let unusable = |source| StoreError::Image { file: file.to_owned(), source };
    let missing = |digest: &Digest| StoreError::MissingBlob { file: file.to_owned(), digest: *digest };
    let bytes = from.blobs().read(digest, MAX_MANIFEST)?.ok_or_else(|| missing(digest))?;
    match manifest_kind(&bytes).map_err(unusable)? {
        ManifestKind::Index if depth < 2 => {
            let mut copied = 0;
            for child in children(&bytes).map_err(unusable)? {
                // Tools that save one platform keep the whole index.
                if from.blobs().has(&child.digest) {
                    copy(file, from, to, &child.digest, depth + 1)?;
                    copied += 1;
                }
            }
            if copied == 0 {
                return Err(missing(digest));
            }
        }
        ManifestKind::Index => return Err(unusable(ImageError::MediaType(INDEX.to_owned()))),
        ManifestKind::Image => {
            let manifest = Manifest::parse(&bytes).map_err(unusable)?;
            let config = from
                .blobs()
                .read(&manifest.config.digest, MAX_MANIFEST)?
                .ok_or_else(|| missing(&manifest.config.digest))?;
            Image::parse(&bytes, &config).map_err(unusable)?;
            to.blobs().put(&manifest.config.digest, &config)?;
            for layer in &manifest.layers {
                if !from.blobs().has(&layer.digest) {
                    return Err(missing(&layer.digest));
                }
                to.blobs().put_file(&layer.digest, &from.blobs().path(&layer.digest))?;
            }
        }
        ManifestKind::Other(media_type) => return Err(unusable(ImageError::MediaType(media_type))),
    }
    Ok(to.blobs().put(digest, &bytes)?)
}

/// The name as recipes resolve it.
fn full_name(text: &str) -> Result<String, StoreError> {
    match BaseImage::parse(text)? {
        BaseImage::Registry(name) if !name.contains('@') => Ok(name),
        _ => Err(StoreError::NoReference(text.to_owned())),
    }
}
