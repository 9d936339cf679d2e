//! Charts of the tests' own, in the place of vcluster's, and the helm that renders them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::files::run;

/// Where a program of the test cluster is; built where it is not there yet.
pub fn built(group: &str, program: &str) -> PathBuf {
    let control_plane = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/control-plane/control-plane");
    run(Command::new(&control_plane).args(["build", group]));
    PathBuf::from(run(Command::new(&control_plane).args(["which", program])).trim())
}

/// `PATH` with helm in it.
pub fn path_with_helm() -> OsString {
    let helm = built("helm", "helm").parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(helm).chain(std::env::split_paths(&path))).unwrap()
}

/// Writes a chart with these templates into a directory.
pub fn write_chart(directory: &Path, templates: &[(&str, &str)]) {
    std::fs::create_dir_all(directory.join("templates")).unwrap();
    std::fs::write(directory.join("Chart.yaml"), "apiVersion: v2\nname: small\nversion: 0.1.0\n").unwrap();
    for (name, text) in templates {
        std::fs::write(directory.join("templates").join(name), text).unwrap();
    }
}
