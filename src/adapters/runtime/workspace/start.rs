//! One workspace from nothing to running: root mounted, files written, container made, network up, then started.
//!
//! The record says at every moment what a sweep would have to end; only its last version says that all was done.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use super::config::{Bind, Container, build_config};
use super::identity::Identity;
use super::record::{Place, Record};
use super::{ContainerError, Containers, network, output, unknown, wait_for};
use crate::adapters::runtime::{RuntimeError, confined, overlay};
use crate::domain::container::{Address, Found, FoundState, WorkspaceSpec, place};
use crate::domain::digest::Digest;
use crate::failpoint;

/// What of an image a container is started from.
#[derive(Debug, Clone, Default)]
pub struct ImageParts {
    /// Its unpacked layers, bottom first.
    pub layers: Vec<PathBuf>,
    /// Its environment.
    pub environment: Vec<String>,
    /// Its entrypoint and command.
    pub arguments: Vec<String>,
}

impl Containers {
    /// Starts the workspace and returns once its first process runs.
    pub async fn start(
        self: &Arc<Self>,
        spec: &WorkspaceSpec,
        fingerprint: &str,
        image: ImageParts,
    ) -> Result<Found, ContainerError> {
        let place = Place::of(&self.root, &spec.uid);
        let lock = self.lock(&place.id);
        let _turn = lock.lock().await;
        if let Some(process) = self.record(&place)?.and_then(|record| record.process)
            && process.is_alive().map_err(unknown(&place))?
        {
            return Err(ContainerError::AlreadyRuns(spec.name.clone()));
        }
        self.remove(&place, Duration::ZERO).await?;
        let started = self.start_at(&place, spec, fingerprint, image).await;
        if started.is_err() {
            // The error of the start is the one to tell.
            let _ = self.remove(&place, Duration::ZERO).await;
        }
        started
    }

    async fn start_at(
        self: &Arc<Self>,
        place: &Place,
        spec: &WorkspaceSpec,
        fingerprint: &str,
        image: ImageParts,
    ) -> Result<Found, ContainerError> {
        let mut record = Record {
            uid: spec.uid.clone(),
            name: spec.name.clone(),
            step: spec.step.clone(),
            fingerprint: fingerprint.to_owned(),
            started_at: None,
            process: None,
            egress: None,
            is_started: false,
        };
        {
            let (containers, place, spec, record) = (Arc::clone(self), place.clone(), spec.clone(), record.clone());
            let id = place.id.clone();
            let prepared = tokio::task::spawn_blocking(move || containers.prepare(&place, &spec, &record, &image));
            prepared.await.map_err(|_| ContainerError::Interrupted(id))??;
        }
        failpoint::reached("workspace-mounted");
        let write = |record: &Record| {
            place.write(record).map_err(RuntimeError::io(format!("write the record of the workspace {}", place.id)))
        };
        self.create(place).await?;
        failpoint::reached("workspace-created");
        let process = read_pid(&place.join("pid")).map_or(Ok(None), Identity::of).map_err(unknown(place))?;
        let process = process.ok_or_else(|| ContainerError::Runc {
            doing: "make the container",
            reason: "its first process ended at once".to_owned(),
        })?;
        record.process = Some(process);
        write(&record)?;
        self.watch(place.clone(), process).map_err(RuntimeError::io("watch the container"))?;
        record.egress = self.connect(place, process.pid, &spec.egress).await?;
        write(&record)?;
        failpoint::reached("workspace-connected");
        self.run_runc(place, "start the container", &["start", &place.id]).await?;
        failpoint::reached("workspace-running");
        record.started_at = Some(jiff::Timestamp::now());
        record.is_started = true;
        write(&record)?;
        Ok(Found {
            uid: record.uid,
            step: record.step,
            generation_label: record.fingerprint,
            state: FoundState::Running,
            address: Some(Address::Unix(place.backend_socket())),
            started_at: record.started_at,
        })
    }

    /// Everything on the disk. Blocking.
    fn prepare(
        &self,
        place: &Place,
        spec: &WorkspaceSpec,
        record: &Record,
        image: &ImageParts,
    ) -> Result<(), ContainerError> {
        let io = |doing: String| RuntimeError::io(doing);
        let make = |path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(io(format!("create \"{}\"", path.display())))
        };
        make(&place.path)?;
        place.write(record).map_err(io(format!("write the record of the workspace {}", place.id)))?;
        make(&place.sockets)?;
        make(&place.join("secret"))?;
        let token = place.join("secret/token");
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&token)
            .and_then(|mut file| file.write_all(spec.token.as_bytes()))
            .map_err(io(format!("write \"{}\"", token.display())))?;
        for part in ["upper", "work", "merged"] {
            overlay::make_directory(&place.join(part))?;
        }
        // Nobody needs these bytes after a crash of the machine; kernels before 5.10 do not know how to be told so.
        if overlay::mount_layers(&place.path, &image.layers, ",volatile").is_err() {
            overlay::mount_layers(&place.path, &image.layers, "")?;
        }
        let rootfs = place.join("merged");
        self.write_network_files(&rootfs, spec)?;
        let management = spec.management_socket.as_deref().map(|socket| self.management(place, socket)).transpose()?;

        // Its checks tell the answers: like the token it lies in a directory that the learner does not get into.
        let artifact = place.join("artifact");
        make(&artifact)?;
        let is_compressed = spec.artifact.extension().is_some_and(|extension| extension == "zst");
        let file = artifact.join(if is_compressed { "workshop.db.zst" } else { "workshop.db" });
        fs::hard_link(&spec.artifact, &file)
            .or_else(|_| fs::copy(&spec.artifact, &file).map(drop))
            .map_err(io(format!("put \"{}\" in place", spec.artifact.display())))?;
        let secret = place.join("secret");
        let directory_of = |file: &'static str| Path::new(file).parent().and_then(Path::to_str).unwrap_or(file);
        let mut binds = vec![
            Bind { source: &artifact, place: directory_of(place::ARTIFACT), writable: false },
            Bind { source: &secret, place: directory_of(place::TOKEN), writable: false },
            Bind { source: &place.sockets, place: place::RUN, writable: true },
        ];
        if let Some(directory) = &management {
            binds.push(Bind { source: directory, place: place::MANAGEMENT, writable: false });
        }
        if let Some(persist) = &spec.persist {
            binds.push(Bind { source: persist, place: place::PERSIST, writable: true });
        }
        let cgroup =
            format!("/workshop/w{}-{}", Digest::of(self.root.display().to_string().as_bytes()).short(), place.id);
        let config = build_config(&Container {
            rootfs: &rootfs,
            arguments: image.arguments.clone(),
            environment: environment(spec, image),
            hostname: &spec.hostname,
            cgroup: &cgroup,
            cpu_millis: spec.cpu_millis,
            memory_bytes: spec.memory_bytes,
            limits_swap: self.limits_swap,
            binds: &binds,
            private: place::STATE,
        });
        let path = place.join("config.json");
        fs::write(&path, config.to_string()).map_err(io(format!("write \"{}\"", path.display())))?;
        Ok(())
    }

    /// The directory of the management socket to be mounted, and the link that gives it its agreed name.
    fn management(&self, place: &Place, socket: &Path) -> Result<PathBuf, ContainerError> {
        let bad = |reason| ContainerError::ManagementSocket { path: socket.to_owned(), reason };
        let socket = std::path::absolute(socket).map_err(RuntimeError::io("find the management socket"))?;
        let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(bad("has no directory"));
        };
        // Everything beside it would be shown to every workspace.
        let others = fs::read_dir(directory).map_err(RuntimeError::io(format!("read \"{}\"", directory.display())))?;
        if others.flatten().any(|entry| entry.file_name() != name) {
            return Err(bad("must be alone in its directory"));
        }
        let link = place.sockets.join(place::MANAGEMENT_SOCKET);
        symlink(Path::new(place::MANAGEMENT).join(name), &link)
            .map_err(RuntimeError::io(format!("link \"{}\"", link.display())))?;
        Ok(directory.to_owned())
    }

    /// Host name, hosts and resolver as ordinary files of the root, which a lesson may change.
    fn write_network_files(&self, rootfs: &Path, spec: &WorkspaceSpec) -> Result<(), ContainerError> {
        let name = &spec.hostname;
        let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n");
        let resolver = match self.carrier {
            Some(_) if spec.egress != crate::domain::container::Egress::None => {
                format!("nameserver {}\n", network::RESOLVER)
            }
            _ => String::new(),
        };
        for (path, text) in
            [("/etc/hostname", format!("{name}\n")), ("/etc/hosts", hosts), ("/etc/resolv.conf", resolver)]
        {
            let failed = || RuntimeError::io(format!("write \"{path}\" of the workspace"));
            let (real, missing) = confined::resolve(rootfs, path).map_err(failed())?;
            let real = rootfs.join(real);
            for directory in missing.iter().map(|missing| rootfs.join(missing)).filter(|missing| *missing != real) {
                overlay::make_directory(&directory)?;
            }
            // A new file, not the old one written over: that may be something else than a file.
            match fs::remove_file(&real) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error).into()),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&real).map_err(failed())?;
            file.write_all(text.as_bytes()).map_err(failed())?;
        }
        Ok(())
    }

    /// Makes the container; its first process waits to be started.
    async fn create(&self, place: &Place) -> Result<(), ContainerError> {
        let bundle = place.path.display().to_string();
        let pid = place.join("pid").display().to_string();
        self.run_runc(place, "make the container", &["create", "--bundle", &bundle, "--pid-file", &pid, &place.id])
            .await
    }

    async fn run_runc(&self, place: &Place, doing: &'static str, arguments: &[&str]) -> Result<(), ContainerError> {
        let failed = |error| RuntimeError::io(format!("open \"{}\"", place.log().display()))(error);
        let out = output::create(&place.log()).map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        let log = place.join("runc.log");
        let _ = fs::remove_file(&log);
        let mut command = self.runc();
        command
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let status = wait_for(&mut command, doing).await?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(log).unwrap_or_default();
        let mut reasons: Vec<String> = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|line| line["msg"].as_str().map(str::to_owned))
            .collect();
        reasons.dedup();
        let reason = if reasons.is_empty() { status.to_string() } else { reasons.join("; ") };
        Err(ContainerError::Runc { doing, reason })
    }
}

/// The variables of the image and of the contract; later ones win.
fn environment(spec: &WorkspaceSpec, image: &ImageParts) -> Vec<String> {
    let mut environment = image.environment.clone();
    if spec.management_socket.is_some() {
        environment.push(format!("WORKSHOP_MANAGEMENT_URL=unix:{}/{}", place::RUN, place::MANAGEMENT_SOCKET));
    }
    environment.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}")));
    environment.push(format!("WORKSHOP_LISTEN=unix:{}/{}", place::RUN, place::BACKEND_SOCKET));
    environment
}

fn read_pid(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
