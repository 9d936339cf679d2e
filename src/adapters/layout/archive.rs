//! Images in tar files (`oci-archive`, and what `docker save` writes), unpacked into a layout.
//!
//! Such a file is anybody's: only the few names that a layout needs are taken, sizes are capped, digests are checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::{Blobs, Layout, LayoutError};
use crate::domain::digest::Digest;
use crate::domain::image::{Descriptor, Image, ImageConfig, ImageError, MANIFEST, MAX_MANIFEST, NewLayer};
use crate::domain::layer::{Compressor, LayerError, Workers, decompress};

/// The largest file in an archive, in bytes.
const MAX_FILE: u64 = 32 << 30;
/// The most that all files of an archive take together, in bytes.
const MAX_TOTAL: u64 = 64 << 30;
/// The most files in an archive.
const MAX_FILES: usize = 10_000;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("cannot read \"{path}\"")]
    Read {
        /// The archive.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Neither an OCI layout nor something that `docker save` wrote.
    #[error("\"{0}\" is neither an OCI archive nor a file of `docker save`")]
    Unknown(PathBuf),
    /// Something in it contradicts the format.
    #[error("the archive \"{path}\" is broken: {reason}")]
    Broken {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// JSON in it is broken.
    #[error("cannot read \"{name}\" of the archive \"{path}\"")]
    Json {
        /// The archive.
        path: PathBuf,
        /// The file in it.
        name: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// Its image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its layer cannot be written anew.
    #[error(transparent)]
    LayerWrite(#[from] LayerError),
    /// Its blobs cannot be stored.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An archive as a layout of its own; `scratch` is where it is unpacked to, removed when the guard is dropped.
pub fn open_archive(file: &Path, scratch: &Path, workers: Workers) -> Result<(Layout, TempDir), ArchiveError> {
    let read = |source| ArchiveError::Read { path: file.to_owned(), source };
    let open = File::open(file).map_err(read)?;
    std::fs::create_dir_all(scratch).map_err(read)?;
    let dir = TempDir::new_in(scratch).map_err(read)?;
    let unpacked = unpack(file, decompress(open).map_err(read)?, dir.path(), MAX_TOTAL)?;
    let layout = Layout::new(dir.path().join("layout"));
    if let Some(index) = unpacked.get("index.json") {
        take_layout(file, &unpacked, index, &layout)?;
    } else if let Some(manifest) = unpacked.get("manifest.json") {
        take_docker(file, &unpacked, manifest, &layout, workers)?;
    } else {
        return Err(ArchiveError::Unknown(file.to_owned()));
    }
    Ok((layout, dir))
}

/// Writes the archive's regular files under numbers, so that no name of theirs ever reaches the file system.
fn unpack(file: &Path, tar: impl Read, dir: &Path, max_total: u64) -> Result<BTreeMap<String, PathBuf>, ArchiveError> {
    let read = |source| ArchiveError::Read { path: file.to_owned(), source };
    let broken = |reason: String| ArchiveError::Broken { path: file.to_owned(), reason };
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut links: Vec<(String, String)> = Vec::new();
    let mut archive = tar::Archive::new(tar);
    let mut total = 0_u64;
    for (count, entry) in archive.entries().map_err(read)?.enumerate() {
        let mut entry = entry.map_err(read)?;
        if count >= MAX_FILES {
            return Err(broken(format!("it holds more than {MAX_FILES} files")));
        }
        let name = plain_name(&entry.path_bytes());
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                if entry.size() > MAX_FILE {
                    return Err(broken(format!("\"{name}\" is larger than {MAX_FILE} bytes")));
                }
                total = total.saturating_add(entry.size());
                if total > max_total {
                    return Err(broken(format!("its files have more than {max_total} bytes together")));
                }
                let path = dir.join(count.to_string());
                let mut out = File::create_new(&path).map_err(read)?;
                io::copy(&mut entry, &mut out).map_err(read)?;
                files.insert(name, path);
            }
            // Old dockers write a layer that two images share once, and link to it.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name_bytes() {
                    links.push((name, plain_name(&target)));
                }
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(path) = files.get(&target).cloned() {
            files.insert(name, path);
        }
    }
    Ok(files)
}

fn plain_name(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    parts.join("/")
}

fn take_layout(
    file: &Path,
    unpacked: &BTreeMap<String, PathBuf>,
    index: &Path,
    layout: &Layout,
) -> Result<(), ArchiveError> {
    for (name, path) in unpacked {
        let Some(hex) = name.strip_prefix("blobs/sha256/") else { continue };
        let digest: Digest = format!("sha256:{hex}").parse().map_err(|_| ArchiveError::Broken {
            path: file.to_owned(),
            reason: format!("the blob \"{name}\" has no digest for a name"),
        })?;
        let open = File::open(path).map_err(|source| ArchiveError::Read { path: file.to_owned(), source })?;
        layout.blobs().put_from(open, Some(&digest), MAX_FILE)?;
    }
    let bytes = read_small(file, index)?;
    std::fs::create_dir_all(layout.dir())
        .and_then(|()| std::fs::write(layout.dir().join("index.json"), bytes))
        .and_then(|()| std::fs::write(layout.dir().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#))
        .map_err(|source| ArchiveError::Read { path: file.to_owned(), source })
}

fn take_docker(
    file: &Path,
    unpacked: &BTreeMap<String, PathBuf>,
    manifest: &Path,
    layout: &Layout,
    workers: Workers,
) -> Result<(), ArchiveError> {
    let json = |name: &str, source| ArchiveError::Json { path: file.to_owned(), name: name.to_owned(), source };
    let find = |name: &str| {
        unpacked
            .get(&plain_name(name.as_bytes()))
            .ok_or_else(|| ArchiveError::Broken { path: file.to_owned(), reason: format!("it lacks \"{name}\"") })
    };
    let images: Vec<DockerImage> =
        serde_json::from_slice(&read_small(file, manifest)?).map_err(|source| json("manifest.json", source))?;
    for docker in images {
        let mut config: ImageConfig = serde_json::from_slice(&read_small(file, find(&docker.config)?)?)
            .map_err(|source| json(&docker.config, source))?;
        if docker.layers.len() != config.rootfs.diff_ids.len() {
            let diff_ids = config.rootfs.diff_ids.len();
            return Err(ImageError::LayerCount { layers: docker.layers.len(), diff_ids }.into());
        }
        let diff_ids = std::mem::take(&mut config.rootfs.diff_ids);
        let mut image = Image { config, ..Image::scratch("") };
        for (name, diff_id) in docker.layers.iter().zip(diff_ids) {
            let layer = store_tar(file, find(name)?, layout.blobs(), &diff_id, workers)?;
            image.manifest.layers.push(layer.descriptor);
            image.config.rootfs.diff_ids.push(layer.diff_id);
        }
        let encoded = image.encode();
        layout.blobs().put(&encoded.config_digest, &encoded.config)?;
        layout.blobs().put(&encoded.digest, &encoded.manifest)?;
        let descriptor = Descriptor {
            media_type: MANIFEST.to_owned(),
            digest: encoded.digest,
            size: encoded.manifest.len() as u64,
            annotations: BTreeMap::new(),
        };
        let tags = docker.repo_tags.filter(|tags| !tags.is_empty()).unwrap_or_else(|| vec!["latest".to_owned()]);
        layout.tag(&tags.into_iter().map(|tag| (tag, descriptor.clone())).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Checks a tar against its digest and stores it compressed: registries and runtimes want that.
fn store_tar(
    archive: &Path,
    tar: &Path,
    blobs: &Blobs,
    diff_id: &Digest,
    workers: Workers,
) -> Result<NewLayer, ArchiveError> {
    let read = |source| ArchiveError::Read { path: archive.to_owned(), source };
    let mut tar = decompress(File::open(tar).map_err(read)?).map_err(read)?.take(MAX_FILE);
    let mut compressor = Compressor::new(blobs.incoming()?, workers);
    io::copy(&mut tar, &mut compressor).map_err(read)?;
    let (incoming, stored) = compressor.finish()?;
    if stored.diff_id != *diff_id {
        return Err(LayoutError::Mismatch { expected: *diff_id, found: stored.diff_id }.into());
    }
    incoming.finish(Some(&stored.digest))?;
    Ok(NewLayer::written(&stored, "base layer"))
}

fn read_small(archive: &Path, path: &Path) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_MANIFEST).read_to_end(&mut bytes))
        .map_err(|source| ArchiveError::Read { path: archive.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_an_archive_are_limited_together() {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["one", "two"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(600);
            builder.append_data(&mut header, name, [0; 600].as_slice()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let unpacked = |name: &str, max| {
            let dir = directory.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            unpack(Path::new("a.tar"), bytes.as_slice(), &dir, max)
        };
        assert_eq!(unpacked("enough", 1200).unwrap().len(), 2);
        let error = unpacked("small", 1199).unwrap_err().to_string();
        assert!(error.contains("a.tar") && error.contains("1199 bytes together"), "{error}");
    }
}
