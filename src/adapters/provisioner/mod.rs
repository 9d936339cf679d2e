//! Clusters for workspaces: a chart such as vcluster's, rendered by the real `helm`.
//!
//! Rendering touches no cluster. What came out is read strictly: kinds that could reach beyond the namespace they are
//! meant for are refused. Applying it is the operator's.

mod objects;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

pub use objects::ObjectsError;

/// How long helm may take; it may have to fetch the chart.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many helms run at once.
const AT_ONCE: usize = 2;
/// The most bytes that helm may print.
const MAX_OUTPUT: u64 = 8 << 20;
/// The most bytes of a file of values.
const MAX_VALUES: u64 = 256 << 10;
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
    /// A chart of a registry without a version is another one each time.
    #[error(
        "the chart \"{chart}\" is named without a version, so it would change by itself; give one by --vcluster-version"
    )]
    NoVersion {
        /// The chart.
        chart: String,
    },
    /// As much is rendered as may be at once.
    #[error("other clusters are made first")]
    Busy,
    /// The values that go with the chart cannot be used.
    #[error("the values in \"{}\" cannot be used: {reason}", path.display())]
    BadValues {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
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
    chart: Chart,
    /// So many may be rendered now.
    turns: Arc<Semaphore>,
}

/// Which chart, and what is the same for all that is made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// A directory, an archive, or `oci://…`.
    pub name: String,
    /// Its version, where it comes from a registry.
    pub version: Option<String>,
    /// Values in place of the chart's own; what the operator must set goes over them.
    pub values: Value,
}

impl Chart {
    /// The chart with the values of a YAML file, where one is given.
    pub fn read(name: &str, version: Option<&str>, values: Option<&Path>) -> Result<Self, ProvisionerError> {
        let values = match values {
            None => Value::Object(serde_json::Map::new()),
            Some(path) => {
                read_values(path).map_err(|reason| ProvisionerError::BadValues { path: path.to_owned(), reason })?
            }
        };
        Ok(Self { name: name.to_owned(), version: version.map(str::to_owned), values })
    }

    /// Changes when what is rendered may: its name, version or values; the content of a directory is not looked at.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{} {} {}", self.name, self.version.as_deref().unwrap_or_default(), self.values)
    }
}

fn read_values(path: &Path) -> Result<Value, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_VALUES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_VALUES {
        return Err(format!("they are larger than {} KiB", MAX_VALUES >> 10));
    }
    match serde_yaml::from_str::<Value>(&text).map_err(|error| error.to_string())? {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        values @ Value::Object(_) => Ok(values),
        _ => Err("they are no mapping".to_owned()),
    }
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
    /// The version of Kubernetes that it is for; helm's own guess where none is known.
    pub kubernetes: Option<&'a str>,
}

impl Provisioner {
    /// The chart with helm, which is looked for in `path` (as `PATH` has it).
    pub fn find(chart: Chart, path: &std::ffi::OsStr) -> Result<Self, ProvisionerError> {
        if chart.name.is_empty() || chart.name.starts_with('-') {
            return Err(ProvisionerError::BadChart { chart: chart.name });
        }
        if chart.name.starts_with("oci://") && chart.version.is_none() {
            return Err(ProvisionerError::NoVersion { chart: chart.name });
        }
        let helm = std::env::split_paths(path).map(|directory| directory.join("helm")).find(|helm| is_program(helm));
        let helm = helm.ok_or(ProvisionerError::HelmMissing)?;
        Ok(Self { helm, chart, turns: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// The chart.
    #[must_use]
    pub fn chart(&self) -> &Chart {
        &self.chart
    }

    /// The objects of the chart, in the order in which they are applied; [`ProvisionerError::Busy`] where others come
    /// first: helm takes a hundred megabytes, and a class asks for thirty clusters at once.
    pub async fn render(&self, release: &Release<'_>) -> Result<Vec<Value>, ProvisionerError> {
        let _turn = self.turns.try_acquire().map_err(|_| ProvisionerError::Busy)?;
        let rendered = tokio::time::timeout(PATIENCE, self.template(release)).await;
        let text = rendered.map_err(|_| ProvisionerError::TimedOut { chart: self.chart.name.clone() })??;
        objects::parse_rendered(&text, release.namespace)
            .map_err(|source| ProvisionerError::Objects { chart: self.chart.name.clone(), source })
    }

    async fn template(&self, release: &Release<'_>) -> Result<Vec<u8>, ProvisionerError> {
        let failed = |source| ProvisionerError::Run { program: self.helm.display().to_string(), source };
        let mut child = Command::new(&self.helm)
            .args(["template", release.name, &self.chart.name, "--namespace", release.namespace])
            .args(["--no-hooks", "--skip-tests", "--values", "-"])
            .args(self.chart.version.iter().flat_map(|version| ["--version", version]))
            .args(release.kubernetes.iter().flat_map(|version| ["--kube-version", version]))
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
            return Err(ProvisionerError::TooLarge { chart: self.chart.name.clone() });
        }
        if !child.wait().await.map_err(failed)?.success() {
            let text = String::from_utf8_lossy(&complaint);
            let text: String =
                text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_COMPLAINT).collect();
            return Err(ProvisionerError::Failed { chart: self.chart.name.clone(), text });
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
        let find = |name: &str| {
            let chart = Chart::read(name, None, None).unwrap();
            Provisioner::find(chart, empty.path().as_os_str()).unwrap_err().to_string()
        };
        assert!(find("vcluster").contains("\"helm\" was not found in PATH"));
        assert!(find("--post-renderer=/bin/sh").contains("is no chart"));
        assert!(find("oci://registry.example.org/vcluster").contains("--vcluster-version"));
    }

    #[test]
    fn values_are_a_mapping_and_part_of_what_a_chart_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("values.yaml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Chart::read("c", Some("1.2.3"), Some(&file))
        };
        assert_eq!(read("a: {b: 1}\n").unwrap().identity(), r#"c 1.2.3 {"a":{"b":1}}"#);
        assert_eq!(read("# nothing\n").unwrap().values, serde_json::json!({}));
        for (text, expected) in [("- a\n", "no mapping"), ("{", "cannot be used"), ("\u{0}", "cannot be used")] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("values.yaml"), "{text:?}: {error}");
        }
        let missing = Chart::read("c", None, Some(&directory.path().join("none"))).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
        let error = read(&format!("a: {}\n", "x".repeat(300 << 10))).unwrap_err().to_string();
        assert!(error.contains("larger than 256 KiB"), "{error}");
    }
}
