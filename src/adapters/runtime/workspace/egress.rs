//! Attaching a workspace to the internet, or to nothing, before its first process runs.

use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use super::identity::Identity;
use super::network::{self, Carrier};
use super::record::Place;
use super::{ContainerError, Containers};
use crate::adapters::runtime::{RuntimeError, find_program};
use crate::domain::container::Egress;

/// How long a carrier may take to say that it is ready.
const READY: Duration = Duration::from_secs(10);

/// The carrier that this machine has.
pub fn find_carrier() -> Option<Carrier> {
    find_program("slirp4netns").map(Carrier)
}

impl Containers {
    /// Brings up the network of the container whose first process is `pid`; gives the carrier's process, if it has one.
    pub(super) async fn connect(
        self: &Arc<Self>,
        place: &Place,
        pid: i32,
        egress: &Egress,
    ) -> Result<Option<Identity>, ContainerError> {
        let (carrier, place, egress) = (self.carrier.clone(), place.clone(), egress.clone());
        let id = place.id.clone();
        let connected = tokio::task::spawn_blocking(move || {
            network::bring_up_loopback(pid).map_err(RuntimeError::io("bring up a workspace's loopback interface"))?;
            let Some(carrier) = carrier.filter(|_| egress != Egress::None) else { return Ok(None) };
            let process = attach(&carrier, &place, pid)?;
            let limited = network::limit_destinations(pid, &egress);
            if let Err(source) = limited {
                let _ = process.signal(rustix::process::Signal::KILL);
                return Err(RuntimeError::Io { doing: "limit what a workspace may reach".to_owned(), source });
            }
            Ok(Some(process))
        });
        Ok(connected.await.map_err(|_| ContainerError::Interrupted(id))??)
    }
}

/// Starts the carrier and waits until it is ready. Blocking.
fn attach(carrier: &Carrier, place: &Place, pid: i32) -> Result<Identity, RuntimeError> {
    use std::os::unix::process::CommandExt as _;
    let log =
        super::output::create(&place.join("carrier.log")).map_err(RuntimeError::io("write the log of slirp4netns"))?;
    let mut child = carrier
        .command(pid)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(RuntimeError::io("start slirp4netns"))?;
    let (sender, receiver) = std::sync::mpsc::channel();
    if let Some(mut out) = child.stdout.take() {
        std::thread::spawn(move || sender.send(out.read(&mut [0]).unwrap_or(0)));
    }
    let is_ready = receiver.recv_timeout(READY) == Ok(1);
    let process = i32::try_from(child.id()).map_or(Ok(None), Identity::of);
    if !is_ready || !matches!(process, Ok(Some(_))) {
        let _ = child.kill();
    }
    // Somebody must ask for its exit code, whenever that is.
    std::thread::spawn(move || child.wait());
    let process = process.map_err(RuntimeError::io("look at slirp4netns"))?;
    process.filter(|_| is_ready).ok_or_else(|| {
        let log = std::fs::read_to_string(place.join("carrier.log")).unwrap_or_default();
        let reason = log.lines().last().unwrap_or("it did not become ready").to_owned();
        RuntimeError::Io {
            doing: "connect a workspace through slirp4netns".to_owned(),
            source: std::io::Error::other(reason),
        }
    })
}
