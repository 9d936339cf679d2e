//! Which instance is looked at when: one look at a time for each, many instances at once, wake-ups that come together
//! looked at once.
//!
//! It knows nothing of what a look does. What it keeps of a calm instance is a few hundred bytes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::build::NAME;
use super::look::{Done, Memory, Nudge, look};
use super::pods::{PodNews, follow_pods};
use crate::adapters::cluster::{Changed, NamespaceEvent};

/// So many instances are looked at at once.
const AT_ONCE: usize = 32;
/// So many that move are watched; each watch is a connection. The others are asked about.
const WATCHES: usize = 128;
/// One that is watched is looked at besides, because its pods do not say everything.
const WATCHED: Duration = Duration::from_secs(3);
/// How long one whose look broke down is left alone.
const REST: Duration = Duration::from_secs(10);
/// How long looks may take to end, with the program or because another may lead soon.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What is kept of an instance.
#[derive(Default)]
struct Seat {
    memory: Memory,
    state: State,
    due: Option<Instant>,
    nudge: Nudge,
    watch: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Queued,
    Busy,
    /// It was woken while it was looked at.
    BusyAndWoken,
}

struct Engine {
    shared: Arc<Shared>,
    seats: HashMap<String, Seat>,
    queue: VecDeque<String>,
    timers: BTreeSet<(Instant, String)>,
    looks: JoinSet<Done>,
    /// Whose look a task is, for one that breaks down.
    tasks: HashMap<tokio::task::Id, String>,
    pods: (mpsc::UnboundedSender<PodNews>, mpsc::UnboundedReceiver<PodNews>),
    watches: usize,
}

/// Looks at instances until `stop` is cancelled, then lets the looks under way end.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.settings.mirror.subscribe();
    let namespaces = shared.settings.cluster.watch_workspace_namespaces();
    tokio::pin!(namespaces);
    let mut engine = Engine {
        shared,
        seats: HashMap::new(),
        queue: VecDeque::new(),
        timers: BTreeSet::new(),
        looks: JoinSet::new(),
        tasks: HashMap::new(),
        pods: mpsc::unbounded_channel(),
        watches: 0,
    };
    let mut said = None;
    loop {
        engine.dispatch();
        let due = engine.timers.first().map(|(moment, _)| *moment);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = engine.looks.join_next_with_id() => engine.take_in(done),
            Some(changed) = changes.recv() => engine.on_change(changed),
            Some(event) = namespaces.next() => match event {
                NamespaceEvent::Changed(uid) => engine.wake(&uid, true),
                NamespaceEvent::Interrupted(why) => {
                    if said.as_ref() != Some(&why) {
                        tracing::warn!("the watch of the workspaces' namespaces is interrupted: {why}");
                        said = Some(why);
                    }
                }
            },
            Some(news) = engine.pods.1.recv() => engine.on_pods(news),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => engine.ring(),
        }
    }
    let rest = async { while engine.looks.join_next().await.is_some() {} };
    if tokio::time::timeout(END_WITHIN, rest).await.is_err() {
        engine.looks.shutdown().await;
    }
}

impl Engine {
    fn on_change(&mut self, changed: Changed) {
        match changed {
            Changed::Instance(uid) => self.wake(&uid, false),
            Changed::Template(name) => {
                for instance in self.shared.settings.mirror.instances() {
                    if instance.spec.template_ref.name == name
                        && let Some(uid) = &instance.metadata.uid
                    {
                        self.wake(uid, false);
                    }
                }
            }
            Changed::Listed => {
                let instances = self.shared.settings.mirror.instances();
                let there: std::collections::HashSet<&String> =
                    instances.iter().filter_map(|instance| instance.metadata.uid.as_ref()).collect();
                let gone: Vec<String> = self.seats.keys().filter(|uid| !there.contains(uid)).cloned().collect();
                for uid in there.into_iter().chain(&gone) {
                    self.wake(uid, false);
                }
            }
        }
    }

    fn on_pods(&mut self, news: PodNews) {
        if let (Some(container), Some(seat)) = (news.answered, self.seats.get_mut(&news.uid)) {
            seat.nudge.answered = Some(container);
        }
        self.wake(&news.uid, true);
    }

    fn wake(&mut self, uid: &str, is_nudge: bool) {
        let is_there = self.seats.contains_key(uid);
        if !is_there && self.shared.settings.mirror.instance_by_uid(uid).is_none() {
            return;
        }
        let seat = self.seats.entry(uid.to_owned()).or_default();
        seat.nudge.is_due |= is_nudge;
        match seat.state {
            State::Idle => {
                seat.state = State::Queued;
                self.queue.push_back(uid.to_owned());
            }
            State::Busy => seat.state = State::BusyAndWoken,
            State::Queued | State::BusyAndWoken => {}
        }
    }

    /// Wakes those whose time has come.
    fn ring(&mut self) {
        let now = Instant::now();
        while let Some((moment, _)) = self.timers.first()
            && *moment <= now
            && let Some((_, uid)) = self.timers.pop_first()
        {
            if let Some(seat) = self.seats.get_mut(&uid) {
                seat.due = None;
            }
            self.wake(&uid, false);
        }
    }

    fn dispatch(&mut self) {
        while self.looks.len() < AT_ONCE
            && let Some(uid) = self.queue.pop_front()
        {
            let Some(seat) = self.seats.get_mut(&uid) else { continue };
            seat.state = State::Busy;
            if let Some(moment) = seat.due.take() {
                self.timers.remove(&(moment, uid.clone()));
            }
            let nudge = seat.nudge.clone();
            seat.nudge.is_due = false;
            let memory = std::mem::take(&mut seat.memory);
            let task = self.looks.spawn(look(Arc::clone(&self.shared), uid.clone(), memory, nudge));
            self.tasks.insert(task.id(), uid);
        }
    }

    fn take_in(&mut self, done: Result<(tokio::task::Id, Done), tokio::task::JoinError>) {
        let Done { uid, memory, next, is_moving } = match done {
            Ok((task, done)) => {
                self.tasks.remove(&task);
                done
            }
            Err(error) => {
                let uid = self.tasks.remove(&error.id());
                tracing::error!(%error, uid, "a look at an instance broke down; it is looked at again");
                if let Some(uid) = uid {
                    if let Some(seat) = self.seats.get_mut(&uid) {
                        seat.state = State::Idle;
                    }
                    self.at(&uid, Instant::now() + REST);
                }
                return;
            }
        };
        let Some(pause) = next else {
            self.forget(&uid);
            return;
        };
        let Some(seat) = self.seats.get_mut(&uid) else { return };
        seat.memory = memory;
        let is_woken = seat.state == State::BusyAndWoken;
        seat.state = State::Idle;
        self.watch(&uid, is_moving);
        if is_woken {
            self.wake(&uid, false);
        } else {
            let is_watched = self.seats.get(&uid).is_some_and(|seat| seat.watch.is_some());
            let pause = if is_moving && is_watched { pause.max(WATCHED) } else { pause };
            self.at(&uid, Instant::now() + pause);
        }
    }

    fn at(&mut self, uid: &str, moment: Instant) {
        let Some(seat) = self.seats.get_mut(uid) else { return };
        if let Some(old) = seat.due.replace(moment) {
            self.timers.remove(&(old, uid.to_owned()));
        }
        self.timers.insert((moment, uid.to_owned()));
    }

    fn forget(&mut self, uid: &str) {
        if let Some(seat) = self.seats.remove(uid) {
            if let Some(moment) = seat.due {
                self.timers.remove(&(moment, uid.to_owned()));
            }
            self.watches -= usize::from(seat.watch.is_some());
        }
    }

    /// Watches the pods of one that moves, and of no other.
    fn watch(&mut self, uid: &str, is_moving: bool) {
        let Some(seat) = self.seats.get_mut(uid) else { return };
        match (is_moving, seat.watch.is_some()) {
            (true, false) if self.watches < WATCHES => {
                let Some(instance) = self.shared.settings.mirror.instance_by_uid(uid) else { return };
                let Some(room) = instance.status.as_ref().and_then(|status| status.namespace.clone()) else { return };
                let pods = self.shared.settings.cluster.watch_pods(&room, NAME);
                let watch = follow_pods(pods, uid.to_owned(), self.pods.0.clone());
                seat.watch = Some(AbortOnDropHandle::new(tokio::spawn(watch)));
                self.watches += 1;
            }
            (false, true) => {
                seat.watch = None;
                self.watches -= 1;
            }
            _ => {}
        }
    }
}

/// A number from 0 to 1, another one each time.
pub(super) fn chance() -> f64 {
    let number = std::hash::RandomState::new().build_hasher().finish();
    (number >> 11) as f64 / (1_u64 << 53) as f64
}
