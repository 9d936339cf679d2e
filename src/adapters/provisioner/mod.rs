//! Clusters for workspaces: a chart such as vcluster's, rendered by the real `helm`.
//!
//! Rendering touches no cluster. What came out is read strictly: kinds that could reach beyond the namespace they are
//! meant for are refused. Applying it is the operator's.

mod objects;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

pub use objects::ObjectsError;

/// How long helm may take; it may have to fetch the chart.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most bytes that helm may print.
const MAX_OUTPUT: u64 = 8 << 20;
/// How much of helm's complaint is told.
const MAX_COMPLAINT: usize = 512;

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    /// There is no helm.
    #[error("\"helm\" was not found in PATH; workspaces with a cluster of their own need it (https://helm.sh)")]
    HelmMissing,
    /// The chart's name could be taken for an option.
    #[error("\"{chart}\" is no chart: write a directory, an archive, or oci://…")]
    BadChart {
        /// As it was given.
        chart: String,
    },
    /// Helm could not be started or spoken to.
    #[error("failed to run \"{program}\"")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// Helm said no.
    #[error("failed to render the chart \"{chart}\": {text}")]
    Failed {
        /// The chart.
        chart: String,
        /// What helm said, cut.
        text: String,
    },
    /// Helm was too slow.
    #[error("helm did not render the chart \"{chart}\" within {} s", PATIENCE.as_secs())]
    TimedOut {
        /// The chart.
        chart: String,
    },
    /// Helm printed too much.
    #[error("the chart \"{chart}\" is larger than {} MiB when it is rendered", MAX_OUTPUT >> 20)]
    TooLarge {
        /// The chart.
        chart: String,
    },
    /// What came out cannot be used.
    #[error("the chart \"{chart}\" cannot be used")]
    Objects {
        /// The chart.
        chart: String,
        /// Why.
        source: ObjectsError,
    },
}

/// A chart that makes a cluster in a namespace.
#[derive(Debug, Clone)]
pub struct Provisioner {
    helm: PathBuf,
    chart: String,
}

/// What a chart is rendered for.
#[derive(Debug, Clone)]
pub struct Release<'a> {
    /// The release's name: what its objects are called.
    pub name: &'a str,
    /// The namespace that everything is in.
    pub namespace: &'a str,
    /// What the chart's values are overridden with.
    pub values: &'a Value,
}

impl Provisioner {
    /// The chart with helm, which is looked for in `path` (as `PATH` has it).
    pub fn find(chart: &str, path: &std::ffi::OsStr) -> Result<Self, ProvisionerError> {
        if chart.is_empty() || chart.starts_with('-') {
            return Err(ProvisionerError::BadChart { chart: chart.to_owned() });
        }
        let helm = std::env::split_paths(path).map(|directory| directory.join("helm")).find(|helm| is_program(helm));
        Ok(Self { helm: helm.ok_or(ProvisionerError::HelmMissing)?, chart: chart.to_owned() })
    }

    /// The objects of the chart, in the order in which they are applied.
    pub async fn render(&self, release: &Release<'_>) -> Result<Vec<Value>, ProvisionerError> {
        let rendered = tokio::time::timeout(PATIENCE, self.template(release)).await;
        let text = rendered.map_err(|_| ProvisionerError::TimedOut { chart: self.chart.clone() })??;
        objects::parse_rendered(&text, release.namespace)
            .map_err(|source| ProvisionerError::Objects { chart: self.chart.clone(), source })
    }

    async fn template(&self, release: &Release<'_>) -> Result<Vec<u8>, ProvisionerError> {
        let failed = |source| ProvisionerError::Run { program: self.helm.display().to_string(), source };
        let mut child = Command::new(&self.helm)
            .args(["template", release.name, &self.chart, "--namespace", release.namespace])
            .args(["--no-hooks", "--skip-tests", "--values", "-"])
            // It renders; whatever cluster the environment names is none of its business.
            .env_remove("KUBECONFIG")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let values = release.values.to_string().into_bytes();
        if let Some(mut stdin) = child.stdin.take() {
            // One that complains before it reads closes the pipe; what it says is worth more.
            let _ = stdin.write_all(&values).await;
        }
        let (mut output, mut complaint) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read_output = async {
            match stdout {
                Some(stdout) => stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output).await.map(drop),
                None => Ok(()),
            }
        };
        let read_complaint = async {
            match stderr {
                Some(stderr) => stderr.take(MAX_OUTPUT).read_to_end(&mut complaint).await.map(drop),
                None => Ok(()),
            }
        };
        let (read, _) = tokio::join!(read_output, read_complaint);
        read.map_err(failed)?;
        if output.len() as u64 > MAX_OUTPUT {
            return Err(ProvisionerError::TooLarge { chart: self.chart.clone() });
        }
        if !child.wait().await.map_err(failed)?.success() {
            let text = String::from_utf8_lossy(&complaint);
            let text: String =
                text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_COMPLAINT).collect();
            return Err(ProvisionerError::Failed { chart: self.chart.clone(), text });
        }
        Ok(output)
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_needs_helm_and_a_name_that_is_no_option() {
        let empty = tempfile::tempdir().unwrap();
        let find = |chart: &str| Provisioner::find(chart, empty.path().as_os_str()).unwrap_err().to_string();
        assert!(find("vcluster").contains("\"helm\" was not found in PATH"));
        assert!(find("--post-renderer=/bin/sh").contains("is no chart"));
    }
}
