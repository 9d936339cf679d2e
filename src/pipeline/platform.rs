//! The platform: the two static programs on top of every published image, found on disk and laid where an image has them.
//!
//! It decides what the platform layer holds and its digest; putting it on images and pushing it is `compile`'s.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::digest::{Digest, FramedHasher};
use crate::domain::layer::{Entry, LayerBlob, LayerError, LayerWriter, Workers};
use crate::domain::names::FORMAT_VERSION;
use crate::domain::path_index::{PathIndex, PlaceError};

/// Where the programs are in every published image.
const TINI: &str = "/sbin/tini";
const BACKEND: &str = "/usr/local/bin/workshop-backend";
/// Their file names in a platform directory.
const TINI_FILE: &str = "tini";
const BACKEND_FILE: &str = "workshop-backend";
/// The environment variable that names a platform directory.
pub const VARIABLE: &str = "WORKSHOP_PLATFORM";
/// Either program is below this size, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Why there is no platform to put on images.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// None of the known places has it.
    #[error(
        "the platform ({TINI_FILE} and {BACKEND_FILE} for {architecture}) was not found in {searched}; run \"make build\", or name its directory by --platform or {VARIABLE}"
    )]
    Missing {
        /// The wanted architecture.
        architecture: String,
        /// The places that were looked at.
        searched: String,
    },
    /// A file cannot be read.
    #[error("cannot read \"{path}\"")]
    Read {
        /// The file.
        path: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A program that would not start in every image.
    #[error("\"{path}\" cannot be put into images: {reason}")]
    Unfit {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The two programs for one architecture.
#[derive(Clone)]
pub struct Platform {
    architecture: String,
    tini: Arc<[u8]>,
    backend: Arc<[u8]>,
    digest: Digest,
}

/// The architecture of this machine in OCI's words.
#[must_use]
pub const fn host_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}

impl Platform {
    /// The platform of `explicit`, else of `$WORKSHOP_PLATFORM`, else of `platform/` beside the program.
    pub fn find(explicit: Option<&Path>) -> Result<Self, PlatformError> {
        let architecture = host_architecture();
        let named = explicit.map(Path::to_owned).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let roots = match named {
            Some(directory) => vec![directory],
            None => std::env::current_exe()
                .ok()
                .and_then(|program| Some(program.parent()?.join("platform")))
                .into_iter()
                .collect(),
        };
        // A named directory may be the one of an architecture itself.
        let places: Vec<PathBuf> = roots.iter().flat_map(|root| [root.join(architecture), root.clone()]).collect();
        let found = places.iter().find(|place| place.join(BACKEND_FILE).is_file() && place.join(TINI_FILE).is_file());
        let Some(place) = found else {
            let searched = places.iter().map(|place| format!("\"{}\"", place.display())).collect::<Vec<_>>().join(", ");
            return Err(PlatformError::Missing { architecture: architecture.to_owned(), searched });
        };
        Self::read(place, architecture)
    }

    /// The platform of exactly this directory.
    pub fn read(directory: &Path, architecture: &str) -> Result<Self, PlatformError> {
        let program = |name: &str| {
            let path = directory.join(name);
            let failed = |source| PlatformError::Read { path: path.display().to_string(), source };
            let unfit = |reason: String| PlatformError::Unfit { path: path.display().to_string(), reason };
            let size = path.metadata().map_err(failed)?.len();
            if size > MAX_BYTES {
                return Err(unfit(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
            }
            let bytes = std::fs::read(&path).map_err(failed)?;
            check_program(&bytes, architecture).map_err(unfit)?;
            Ok(Arc::<[u8]>::from(bytes))
        };
        Ok(Self::new(program(TINI_FILE)?, program(BACKEND_FILE)?, architecture))
    }

    fn new(tini: Arc<[u8]>, backend: Arc<[u8]>, architecture: &str) -> Self {
        let mut hasher = FramedHasher::new("workshop.platform");
        hasher.number(FORMAT_VERSION).part(architecture);
        for (path, bytes) in [(TINI, &tini), (BACKEND, &backend)] {
            hasher.part(path).part(Digest::of(bytes).to_string());
        }
        Self { architecture: architecture.to_owned(), tini, backend, digest: hasher.finish() }
    }

    /// Everything that its layers depend on, besides the images that they are laid on.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The architecture in OCI's words.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// What the layer on an image of this tree holds: the same list for all images in which the paths resolve alike.
    pub fn placements(&self, index: &PathIndex) -> Result<Vec<Entry>, PlaceError> {
        let mut entries = Vec::new();
        for (target, bytes) in [(TINI, &self.tini), (BACKEND, &self.backend)] {
            let place = index.resolve(target)?;
            entries.extend(place.missing.iter().map(|directory| Entry::directory(directory, 0o755)));
            entries.push(Entry::file(&place.path, 0o755, bytes.len() as u64));
        }
        entries.sort_by(crate::domain::layer::order);
        entries.dedup_by(|left, right| left.path == right.path);
        Ok(entries)
    }

    /// Writes the layer of these placements.
    pub fn write_layer<W: Write>(
        &self,
        placements: &[Entry],
        out: W,
        epoch: u64,
        workers: Workers,
    ) -> Result<(W, LayerBlob), LayerError> {
        let mut writer = LayerWriter::new(out, epoch, workers);
        for entry in placements {
            let content = if entry.path.ends_with(TINI_FILE.as_bytes()) { &self.tini } else { &self.backend };
            writer.append(entry, &content[..])?;
        }
        writer.finish()
    }
}

/// Checks that a program starts in an image that has nothing else: an ELF for the architecture without an interpreter.
fn check_program(bytes: &[u8], architecture: &str) -> Result<(), String> {
    /// Program header type of the path of a dynamic loader.
    const INTERPRETER: u32 = 3;
    let number = |at: usize, size: usize| {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    // 64 bits, little-endian: all that is built for.
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no 64-bit ELF program".to_owned());
    }
    let machine = match number(18, 2) {
        Some(62) => "amd64",
        Some(183) => "arm64",
        _ => "another architecture",
    };
    if machine != architecture {
        return Err(format!("it is for {machine}, not for {architecture}"));
    }
    let broken = || "its program headers are broken".to_owned();
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let (Some(start), Some(size), Some(count)) = (start, size, count) else { return Err(broken()) };
    for index in 0..count {
        let at = size.checked_mul(index).and_then(|offset| start.checked_add(offset)).ok_or_else(broken)?;
        let kind = usize::try_from(at).ok().and_then(|at| number(at, 4)).ok_or_else(broken)?;
        if kind == u64::from(INTERPRETER) {
            return Err("it is linked dynamically and would need its libraries in every image".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with program headers of these types.
    fn elf(machine: u8, kinds: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = machine;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(kinds.len()).unwrap();
        for kind in kinds {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&[0; 52]);
        }
        bytes
    }

    #[test]
    fn only_static_programs_of_the_architecture_are_taken() {
        let rows = [
            (elf(62, &[1, 2, 6]), "amd64", None),
            (elf(183, &[1]), "arm64", None),
            (elf(62, &[1, 3]), "amd64", Some("linked dynamically")),
            (elf(183, &[1]), "amd64", Some("for arm64")),
            (elf(62, &[1, 1])[..80].to_vec(), "amd64", Some("broken")),
            (b"#!/bin/sh\n".to_vec(), "amd64", Some("no 64-bit ELF")),
            (Vec::new(), "amd64", Some("no 64-bit ELF")),
        ];
        for (bytes, architecture, expected) in rows {
            match (check_program(&bytes, architecture), expected) {
                (Ok(()), None) => {}
                (Err(reason), Some(part)) => assert!(reason.contains(part), "{reason}"),
                (result, expected) => panic!("{result:?} is not {expected:?}"),
            }
        }
    }

    fn platform() -> Platform {
        Platform::new(elf(62, &[]).into(), elf(62, &[1]).into(), "amd64")
    }

    #[test]
    fn the_layer_lands_where_the_image_has_its_programs() {
        let rows: [(&[Entry], &[&str]); 3] = [
            (&[], &["/sbin", "/sbin/tini", "/usr", "/usr/local", "/usr/local/bin", "/usr/local/bin/workshop-backend"]),
            (
                &[Entry::directory("usr/sbin", 0o755), Entry::symlink("sbin", "usr/sbin")],
                &["/usr/local", "/usr/local/bin", "/usr/local/bin/workshop-backend", "/usr/sbin/tini"],
            ),
            (
                &[
                    Entry::directory("sbin", 0o755),
                    Entry::directory("usr/local/bin", 0o755),
                    Entry::file("sbin/tini", 0o755, 1),
                ],
                &["/sbin/tini", "/usr/local/bin/workshop-backend"],
            ),
        ];
        for (tree, expected) in rows {
            let mut index = PathIndex::default();
            index.add_entries(tree);
            let placements = platform().placements(&index).unwrap();
            assert_eq!(placements.iter().map(Entry::display_path).collect::<Vec<_>>(), expected);
            platform().write_layer(&placements, Vec::new(), 0, Workers::Here).unwrap();
        }
    }

    #[test]
    fn the_digest_depends_on_both_programs_and_the_architecture() {
        let digest = |tini: u8, backend: u8, architecture: &str| {
            Platform::new(Arc::from([tini]), Arc::from([backend]), architecture).digest()
        };
        let digests = [digest(1, 2, "amd64"), digest(2, 1, "amd64"), digest(1, 3, "amd64"), digest(1, 2, "arm64")];
        for (index, one) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(one));
        }
    }
}
