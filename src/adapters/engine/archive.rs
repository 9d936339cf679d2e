//! An image as the archive that `docker load` takes, written as it is sent.
//!
//! Layers go as they are: engines decompress them and hold them against the config's digests.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::bytes::Bytes;

use crate::domain::digest::Digest;

/// Bytes that are on their way to an engine at a time, in pieces of [`PIECE`].
const PIECES: usize = 16;
const PIECE: usize = 256 << 10;

/// An image on this machine.
#[derive(Debug, Clone)]
pub struct ImageSource {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Digest of its config.
    pub config_digest: Digest,
    /// Its config.
    pub config: Vec<u8>,
    /// Its layers, bottom first: the blob's digest and file.
    pub layers: Vec<(Digest, PathBuf)>,
}

impl ImageSource {
    /// The name under which an engine keeps it, made of its digest alone.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("workshop.local/step:{}", self.digest.hex())
    }

    /// Writes the archive.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let config = format!("{}.json", self.config_digest.hex());
        let layer = |digest: &Digest| format!("{}.tar", digest.hex());
        let names: Vec<String> = self.layers.iter().map(|(digest, _)| layer(digest)).collect();
        let manifest = json!([{ "Config": config, "RepoTags": [self.tag()], "Layers": names }]);
        let mut tar = tar::Builder::new(out);
        append(&mut tar, &config, 0o644, self.config.len() as u64, self.config.as_slice())?;
        let mut written = BTreeSet::new();
        for (digest, path) in &self.layers {
            if written.insert(*digest) {
                let file = File::open(path)?;
                let size = file.metadata()?.len();
                append(&mut tar, &layer(digest), 0o644, size, BufReader::new(file))?;
            }
        }
        let manifest = manifest.to_string();
        append(&mut tar, "manifest.json", 0o644, manifest.len() as u64, manifest.as_bytes())?;
        tar.into_inner()?.flush()
    }

    /// The archive as a stream, written on a thread of its own while it is read.
    pub fn stream(self) -> ReceiverStream<io::Result<Bytes>> {
        stream(move |out| self.write(out))
    }
}

/// Puts one file of root into an archive.
pub fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    size: u64,
    content: impl io::Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    tar.append_data(&mut header, path, content)
}

/// What `write` writes, as a stream.
pub fn stream(
    write: impl FnOnce(io::BufWriter<Sender>) -> io::Result<()> + Send + 'static,
) -> ReceiverStream<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(io::BufWriter::with_capacity(PIECE, Sender(sender.clone()))) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

/// The writing end of a stream.
pub struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn an_archive_names_config_and_layers_and_holds_each_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layer");
        std::fs::write(&path, "bytes of a layer").unwrap();
        let layer = Digest::of(b"bytes of a layer");
        let image = ImageSource {
            digest: Digest::of(b"manifest"),
            config_digest: Digest::of(b"{}"),
            config: b"{}".to_vec(),
            layers: vec![(layer, path.clone()), (layer, path)],
        };
        let tag = image.tag();
        let bytes: Vec<Bytes> = image.stream().try_collect().await.unwrap();
        let bytes = bytes.concat();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().display().to_string());
            if names.last().is_some_and(|name| name == "manifest.json") {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(manifest[0]["RepoTags"], json!([tag]));
                assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), 2);
            }
        }
        let config = format!("{}.json", Digest::of(b"{}").hex());
        assert_eq!(names, [config, format!("{}.tar", layer.hex()), "manifest.json".to_owned()]);
    }

    #[tokio::test]
    async fn a_layer_that_is_gone_ends_the_stream_with_an_error() {
        let image = ImageSource {
            digest: Digest::of(b"manifest"),
            config_digest: Digest::of(b"{}"),
            config: b"{}".to_vec(),
            layers: vec![(Digest::of(b"x"), PathBuf::from("/nonexistent/layer"))],
        };
        assert!(image.stream().try_collect::<Vec<_>>().await.is_err());
    }
}
