//! The learner's own cluster: a kubeconfig in their environment, made of what is mounted for the backend alone.
//!
//! Tokens are renewed by whoever mounts them, so the copies follow. Nothing here speaks to the cluster.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde_json::json;

use super::config::{Config, PREFIX};
use super::exec::Identity;

/// Where credentials are mounted: `config` alone, or `token` and `ca.crt`.
const MOUNT: &str = "/workshop/cluster";
/// Where the learner finds them.
const PLACE: &str = "/workshop/kube";
/// The most bytes of one of them.
const MAX_FILE: u64 = 1 << 20;
/// How often the mounted ones are looked at. They are renewed long before they end.
const EVERY: Duration = Duration::from_secs(30);

/// The cluster that the learner may use.
#[derive(Debug, Clone)]
pub struct OwnCluster {
    mount: PathBuf,
    place: PathBuf,
    owner: Identity,
}

/// Where the API server is and what of it is the learner's, as the cluster and the operator tell every container.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    url: String,
    namespace: String,
}

impl OwnCluster {
    /// The cluster whose credentials are mounted; none where there are none.
    pub fn find(config: &Config, owner: &Identity) -> Option<Self> {
        let mount = config.path(MOUNT);
        mount.is_dir().then(|| Self { mount, place: config.path(PLACE), owner: owner.clone() })
    }

    /// The learner's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.join("config")
    }

    /// Hands the credentials over for the first time.
    pub fn hand_over(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if rustix::process::geteuid().is_root() {
            lchown(&self.place, Some(self.owner.uid), Some(self.owner.gid))?;
        }
        self.renew()?;
        if !self.mount.join("config").exists() {
            let variable = |name: &str| std::env::var(name).unwrap_or_default();
            let text = build_kubeconfig(&self.place, &server(variable)?);
            self.write("config", text.as_bytes())?;
        }
        Ok(())
    }

    /// Copies what changed. A kubeconfig that was made here stays as the learner has it.
    fn renew(&self) -> io::Result<()> {
        for name in ["config", "token", "ca.crt"] {
            match read(&self.mount.join(name)) {
                Ok(bytes) if read(&self.place.join(name)).is_ok_and(|known| known == bytes) => {}
                Ok(bytes) => self.write(name, &bytes)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts a file into the learner's directory. It is theirs: what they put in the way is replaced, never followed.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (path, part) = (self.place.join(name), self.place.join(format!(".{name}.part")));
        let _ = std::fs::remove_file(&part);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        if rustix::process::geteuid().is_root() {
            fchown(&file, Some(self.owner.uid), Some(self.owner.gid))?;
        }
        std::fs::rename(&part, &path)
    }

    /// Follows the mounted credentials until the program ends.
    pub async fn follow(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.renew() {
                tracing::warn!(%error, "the credentials of the learner's cluster cannot be renewed");
            }
        }
    }
}

/// Reads a mounted or a copied file; what the learner put in place of the copy is only compared, within the cap.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe in place of a copy would block for ever.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn server(variable: impl Fn(&str) -> String) -> io::Result<Server> {
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"));
    if host.is_empty() || port.is_empty() {
        return Err(io::Error::other("the container was not told where the cluster's API is"));
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(Server { url: format!("https://{host}:{port}"), namespace: variable(&format!("{PREFIX}LAB_NAMESPACE")) })
}

fn build_kubeconfig(place: &Path, server: &Server) -> String {
    let path = |name: &str| place.join(name).display().to_string();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": { "server": server.url, "certificate-authority": path("ca.crt") } }],
        "users": [{ "name": "learner", "user": { "tokenFile": path("token") } }],
        "contexts": [{
            "name": "lab",
            "context": { "cluster": "lab", "user": "learner", "namespace": server.namespace },
        }],
        "current-context": "lab",
    });
    // JSON is YAML, and every client takes it.
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn cluster(files: &[(&str, &str)]) -> (tempfile::TempDir, OwnCluster) {
        let directory = tempfile::tempdir().unwrap();
        let (mount, place) = (directory.path().join("cluster"), directory.path().join("kube"));
        std::fs::create_dir(&mount).unwrap();
        for (name, text) in files {
            std::fs::write(mount.join(name), text).unwrap();
        }
        (directory, OwnCluster { mount, place, owner: Identity::current() })
    }

    fn text(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_mounted_kubeconfig_is_the_learners_alone_and_is_renewed() {
        let (_directory, cluster) = cluster(&[("config", "one")]);
        cluster.hand_over().unwrap();
        assert_eq!(text(cluster.kubeconfig()), "one");
        assert_eq!(std::fs::metadata(cluster.kubeconfig()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&cluster.place).unwrap().mode() & 0o777, 0o700);
        std::fs::write(cluster.mount.join("config"), "two").unwrap();
        cluster.renew().unwrap();
        assert_eq!(text(cluster.kubeconfig()), "two");
    }

    #[test]
    fn what_a_learner_puts_in_the_way_is_replaced_and_not_followed() {
        let (directory, cluster) = cluster(&[("config", "c"), ("token", "secret")]);
        cluster.hand_over().unwrap();
        let precious = directory.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        for name in ["token", ".token.part"] {
            let _ = std::fs::remove_file(cluster.place.join(name));
            symlink(&precious, cluster.place.join(name)).unwrap();
        }
        cluster.renew().unwrap();
        assert_eq!((text(cluster.place.join("token")), text(precious)), ("secret".into(), "precious".into()));
        assert!(!std::fs::symlink_metadata(cluster.place.join("token")).unwrap().is_symlink());
    }

    #[test]
    fn the_kubeconfig_names_the_api_the_namespace_and_files_that_are_renewed() {
        let variable = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => "fd00::1".to_owned(),
            "KUBERNETES_SERVICE_PORT" => "443".to_owned(),
            "WORKSHOP_LAB_NAMESPACE" => "ws-ada-lab".to_owned(),
            other => panic!("{other}"),
        };
        let server = server(variable).unwrap();
        let config: serde_json::Value =
            serde_json::from_str(&build_kubeconfig(Path::new("/workshop/kube"), &server)).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://[fd00::1]:443");
        assert_eq!(config["contexts"][0]["context"]["namespace"], "ws-ada-lab");
        assert_eq!(config["users"][0]["user"]["tokenFile"], "/workshop/kube/token");
        assert!(super::server(|_| String::new()).is_err());
    }
}
