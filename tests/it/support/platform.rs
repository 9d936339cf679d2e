//! The platform directory that `make backend` builds: the static backend and tini.

use std::path::{Path, PathBuf};

/// `platform/<arch>` beside the program under test, or what `WORKSHOP_PLATFORM` names.
pub fn platform_directory() -> PathBuf {
    let directory = match std::env::var_os("WORKSHOP_PLATFORM") {
        Some(named) => PathBuf::from(named),
        None => {
            Path::new(env!("CARGO_BIN_EXE_workshop")).with_file_name("platform").join(match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            })
        }
    };
    for name in ["workshop-backend", "tini"] {
        assert!(directory.join(name).is_file(), "\"{name}\" is not in {}: run `make backend`", directory.display());
    }
    directory
}

/// The static backend.
pub fn backend() -> PathBuf {
    platform_directory().join("workshop-backend")
}
