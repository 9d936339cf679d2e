//! The path index of a base's tree: built from its layers' blobs once, then kept by chain id.
//!
//! The cache is trusted as far as its own digest; what layers hold is checked against the image's config.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::{BaseError, Bases, ResolvedBase};
use crate::domain::digest::Digest;
use crate::domain::layer::{Limits, decompress};
use crate::domain::path_index::PathIndex;

impl Bases {
    /// The index of the base's tree; kept by chain id, so that a base's blobs are needed once only.
    pub async fn path_index(&self, base: &ResolvedBase) -> Result<PathIndex, BaseError> {
        let Some(chain) = base.image.chain_id(usize::MAX) else { return Ok(PathIndex::default()) };
        if let Some(index) = self.cached_index(&chain) {
            return Ok(index);
        }
        let mut files = Vec::new();
        for layer in &base.layers {
            files.push((self.blob(base, layer).await?, layer.diff_id));
        }
        let name = base.base.to_string();
        let built = tokio::task::spawn_blocking({
            let name = name.clone();
            move || build_index(&name, &files, Limits::default())
        })
        .await
        .map_err(|_| BaseError::Interrupted(name))??;
        self.keep_index(&chain, &built)?;
        Ok(built)
    }

    /// The index of any image's tree that was kept before.
    #[must_use]
    pub fn cached_index(&self, chain: &Digest) -> Option<PathIndex> {
        // A damaged file is made anew.
        PathIndex::from_bytes(&std::fs::read(self.index_path(chain)).ok()?).ok()
    }

    /// Keeps the index of an image's tree by the image's chain id.
    pub fn keep_index(&self, chain: &Digest, index: &PathIndex) -> Result<(), BaseError> {
        let path = self.index_path(chain);
        let directory = self.state.join("index");
        let write = || {
            std::fs::create_dir_all(&directory)?;
            let mut file = tempfile::NamedTempFile::new_in(&directory)?;
            io::Write::write_all(&mut file, &index.to_bytes())?;
            file.persist(&path).map(drop).map_err(|error| error.error)
        };
        write().map_err(|source| BaseError::Write { path: path.clone(), source })
    }

    fn index_path(&self, chain: &Digest) -> PathBuf {
        self.state.join("index").join(chain.hex())
    }
}

/// Builds the index of layers' blobs, checking each against the digest that the config promises.
fn build_index(base: &str, layers: &[(PathBuf, Digest)], limits: Limits) -> Result<PathIndex, BaseError> {
    let failed = |source| BaseError::Layer { base: base.to_owned(), source };
    let mut index = PathIndex::default();
    for (path, diff_id) in layers {
        let file = File::open(path).map_err(|error| failed(error.into()))?;
        let mut tar = Hashing { inner: decompress(file).map_err(|error| failed(error.into()))?, hash: Sha256::new() };
        index.add_layer(&mut tar, limits).map_err(failed)?;
        // The tar may go on behind its end mark, and the digest is of all of it.
        io::copy(&mut (&mut tar).take(limits.bytes), &mut io::sink()).map_err(|error| failed(error.into()))?;
        let found = Digest::from_bytes(tar.hash.finalize().into());
        if found != *diff_id {
            return Err(BaseError::DiffId { base: base.to_owned(), expected: *diff_id, found });
        }
    }
    Ok(index)
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::domain::layer::Compressor;
    use crate::pipeline::image_end::workers;

    #[test]
    fn what_follows_the_end_of_a_layer_is_read_within_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layer");
        let mut compressor = Compressor::new(File::create(&path).unwrap(), workers());
        compressor.write_all(&[0; 1 << 20]).unwrap();
        let (_, blob) = compressor.finish().unwrap();
        let layers = [(path, blob.diff_id)];
        assert!(build_index("b", &layers, Limits::default()).is_ok());
        let small = Limits { bytes: 1 << 16, ..Limits::default() };
        assert!(matches!(build_index("b", &layers, small), Err(BaseError::DiffId { .. })));
    }
}
