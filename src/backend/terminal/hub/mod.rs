//! What all viewers of a terminal share: the last output, who looks, who is active, and how far each one is.
//!
//! Decisions only; time comes in as a value and nothing here reads a terminal or a socket.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::ring::Ring;
use super::size::Size;
use super::v1::{Exit, FromServer, Hello, Resume};
use super::{Access, Protocol, ttyd};

/// Output that is kept for those who come back, in bytes.
pub const KEPT: usize = 1 << 20;
/// Bytes that may be on their way to a viewer; beyond it the active one halts the shell.
pub const WINDOW: u64 = 512 << 10;
/// The longest piece of output in one frame, in bytes.
pub const FRAME: usize = 64 << 10;
/// How long an active viewer that says nothing, or has gone, still halts the shell.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Output that may come beyond the window: what a terminal still holds when its shell ends.
pub const TAIL: usize = 128 << 10;
/// Where a viewer that fell behind goes on: so far before the newest byte.
const CATCH_UP: u64 = 256 << 10;
/// Ends of shells that a viewer which comes back may still be told.
const EXITS: usize = 16;

/// How a viewer begins.
#[derive(Debug)]
pub struct Opening {
    /// The frames that it understands.
    pub protocol: Protocol,
    /// Whether it may type.
    pub access: Access,
    /// Its own size.
    pub size: Size,
    /// What it already has.
    pub resume: Option<Resume>,
}

/// What to do for a viewer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Send(Vec<u8>),
    /// Nothing until something changes.
    Wait,
    /// Close the connection with this code; `None`: break it, which the other side sees as 1006.
    Close(Option<u16>),
}

/// How much may be read from the shell now.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: usize,
    /// When time alone gives more.
    pub until: Option<Instant>,
}

#[derive(Debug)]
struct Viewer {
    protocol: Protocol,
    access: Access,
    size: Size,
    /// The next byte to send.
    cursor: u64,
    /// All below is processed by the other side, as far as the protocol lets us know.
    processed: u64,
    heard: Instant,
    /// When it was last used, in uses of the terminal.
    used: u64,
    paused: bool,
    size_told: u64,
    next_exit: u64,
    greeting: VecDeque<Vec<u8>>,
}

/// A viewer that was active when its connection ended, and may come back for what it has not seen.
#[derive(Debug)]
struct Absent {
    processed: u64,
    until: Instant,
}

/// The shared state of a terminal.
#[derive(Debug)]
pub struct Hub {
    session: String,
    title: String,
    ring: Ring,
    viewers: BTreeMap<u64, Viewer>,
    next_viewer: u64,
    uses: u64,
    active: Option<u64>,
    absent: Option<Absent>,
    /// Ends of shells by number, each with the offset behind the shell's last byte.
    exits: VecDeque<(u64, u64, Exit)>,
    next_exit: u64,
    size: Size,
    size_version: u64,
    ended: bool,
}

impl Hub {
    /// Nothing yet: no output and no viewer.
    pub fn new(session: String, title: String) -> Self {
        Self {
            session,
            title,
            ring: Ring::new(KEPT),
            viewers: BTreeMap::new(),
            next_viewer: 0,
            uses: 0,
            active: None,
            absent: None,
            exits: VecDeque::new(),
            next_exit: 0,
            size: Size::default(),
            size_version: 0,
            ended: false,
        }
    }

    /// The size that the shell should have: that of the viewer used last.
    pub fn size(&self) -> Size {
        self.size
    }

    /// How many look.
    pub fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// Lets a viewer in; one that may type is the active one from now on. Gives its number.
    pub fn attach(&mut self, opening: Opening, now: Instant) -> u64 {
        let id = self.next_viewer;
        self.next_viewer += 1;
        let resumed = opening
            .resume
            .filter(|resume| resume.session == self.session)
            .map(|resume| resume.offset)
            .filter(|offset| (self.ring.start()..=self.ring.end()).contains(offset));
        let cursor = resumed.unwrap_or_else(|| self.ring.begin_at(self.ring.start()));
        let viewer = Viewer {
            protocol: opening.protocol,
            access: opening.access,
            size: opening.size,
            cursor,
            processed: cursor,
            heard: now,
            used: 0,
            paused: false,
            size_told: 0,
            next_exit: match resumed {
                // It may have missed those since then.
                Some(offset) => self.exits.iter().find(|exit| exit.1 >= offset).map_or(self.next_exit, |exit| exit.0),
                None => self.next_exit,
            },
            greeting: VecDeque::new(),
        };
        self.viewers.insert(id, viewer);
        if opening.access == Access::ReadWrite {
            // It is here again, or somebody else is now.
            self.absent = None;
            self.activate(id);
        }
        let hello = Hello {
            session: self.session.clone(),
            offset: cursor,
            size: self.size,
            viewers: self.viewers.len(),
            reset: resumed.is_none(),
        };
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.size_told = self.size_version;
            viewer.greeting.extend(match viewer.protocol {
                Protocol::Ttyd => [
                    ttyd::FromServer::Title(&self.title).build(),
                    // ttyd spells an empty object with a space.
                    ttyd::FromServer::Preferences("{ }").build(),
                ],
                Protocol::V1 => [FromServer::Hello(hello).build(), FromServer::Title(&self.title).build()],
            });
        }
        id
    }

    /// Lets a viewer go. What the active one has not seen is kept for it a while.
    pub fn detach(&mut self, id: u64, now: Instant) {
        let Some(viewer) = self.viewers.remove(&id) else { return };
        if self.active != Some(id) {
            return;
        }
        let silent = now.duration_since(viewer.heard) >= PATIENCE;
        if viewer.protocol == Protocol::V1 && !silent {
            self.absent = Some(Absent { processed: viewer.processed, until: now + PATIENCE });
        }
        self.active = None;
        let next = self.viewers.iter().filter(|(_, viewer)| viewer.access == Access::ReadWrite);
        if let Some(next) = next.max_by_key(|(_, viewer)| viewer.used).map(|(id, _)| *id) {
            self.activate(next);
        }
    }

    fn activate(&mut self, id: u64) {
        self.uses += 1;
        self.active = Some(id);
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.used = self.uses;
            if viewer.size != self.size {
                self.size = viewer.size;
                self.size_version += 1;
            }
        }
    }

    /// Whether a viewer may type; it is the active one then.
    pub fn type_by(&mut self, id: u64) -> bool {
        let allowed = self.viewers.get(&id).is_some_and(|viewer| viewer.access == Access::ReadWrite);
        if allowed && self.active != Some(id) {
            self.activate(id);
        }
        allowed
    }

    /// A viewer's window has another size; the shell follows if the viewer is the active one.
    pub fn resize(&mut self, id: u64, size: Size) {
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.size = size;
            if self.active == Some(id) && self.size != size {
                self.size = size;
                self.size_version += 1;
            }
        }
    }

    /// A viewer wants nothing for now, or output again.
    pub fn pause(&mut self, id: u64, paused: bool) {
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.paused = paused;
        }
    }

    /// A viewer has processed all below an offset; more than it was sent does not count.
    pub fn acknowledge(&mut self, id: u64, offset: u64) {
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.processed = viewer.processed.max(offset.min(viewer.cursor));
        }
    }

    /// The other side gave a sign of life.
    pub fn hear(&mut self, id: u64, now: Instant) {
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.heard = now;
        }
    }

    /// What was given to a viewer's connection has been taken by it.
    pub fn sent(&mut self, id: u64, now: Instant) {
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.heard = now;
            if viewer.protocol == Protocol::Ttyd {
                // Its clients acknowledge nothing; a full connection is all that is known of them.
                viewer.processed = viewer.cursor;
            }
        }
    }

    /// When a viewer last gave a sign of life.
    pub fn heard(&self, id: u64) -> Option<Instant> {
        self.viewers.get(&id).map(|viewer| viewer.heard)
    }

    /// How much output may be taken from the shell: the active viewer, or the one expected back, limits it.
    pub fn room(&self, now: Instant) -> Room {
        let end = self.ring.end();
        let mut room = Room { bytes: FRAME, until: None };
        let mut limit = |bytes: u64, until: Instant| {
            if now < until {
                room.bytes = room.bytes.min(usize::try_from(bytes).unwrap_or(FRAME));
                room.until = Some(room.until.map_or(until, |earlier| earlier.min(until)));
            }
        };
        if let Some(viewer) = self.active.and_then(|id| self.viewers.get(&id)) {
            let bytes = if viewer.paused { 0 } else { WINDOW.saturating_sub(end.saturating_sub(viewer.processed)) };
            limit(bytes, viewer.heard + PATIENCE);
        }
        if let Some(absent) = &self.absent {
            let kept = (KEPT - TAIL) as u64;
            limit(kept.saturating_sub(end.saturating_sub(absent.processed)), absent.until);
        }
        room
    }

    /// Adds output of the shell.
    pub fn push(&mut self, bytes: &[u8]) {
        self.ring.push(bytes);
    }

    /// The shell ended; viewers learn it behind its last byte.
    pub fn exit(&mut self, exit: Exit) {
        if self.exits.len() == EXITS {
            self.exits.pop_front();
        }
        self.exits.push_back((self.next_exit, self.ring.end(), exit));
        self.next_exit += 1;
    }

    /// The terminal is over; viewers get what there is and are closed.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// What is next for a viewer; counts a frame of output as on its way.
    pub fn next(&mut self, id: u64) -> Step {
        let Some(viewer) = self.viewers.get_mut(&id) else { return Step::Close(None) };
        let v1 = viewer.protocol == Protocol::V1;
        if let Some(frame) = viewer.greeting.pop_front() {
            return Step::Send(frame);
        }
        if viewer.paused && !self.ended {
            return Step::Wait;
        }
        let on_its_way = viewer.cursor.saturating_sub(viewer.processed);
        if viewer.cursor < self.ring.start() {
            // Who shows nothing would otherwise be sent a window's worth again each time it falls behind.
            if on_its_way > WINDOW / 2 && !self.ended {
                return Step::Wait;
            }
            viewer.cursor = self.ring.begin_at(self.ring.end().saturating_sub(CATCH_UP));
            viewer.processed = viewer.cursor;
            if v1 {
                return Step::Send(FromServer::Resynchronised(viewer.cursor).build());
            }
            // ESC c resets a terminal, the only thing that its clients understand here.
            return Step::Send(ttyd::FromServer::Output(b"\x1bc").build());
        }
        if v1 && viewer.size_told != self.size_version {
            viewer.size_told = self.size_version;
            return Step::Send(FromServer::Size(self.size).build());
        }
        let exit = self.exits.iter().find(|exit| exit.0 >= viewer.next_exit);
        if let Some((number, _, exit)) = exit.filter(|exit| exit.1 <= viewer.cursor) {
            viewer.next_exit = number + 1;
            return match viewer.protocol {
                Protocol::V1 => Step::Send(FromServer::Exit(exit.clone()).build()),
                // As ttyd does: 1006 cannot be sent, it is what the end of a connection without a code means.
                Protocol::Ttyd => Step::Close((exit.code == Some(0)).then_some(1000)),
            };
        }
        let window = WINDOW.saturating_sub(on_its_way);
        let before_exit = exit.map_or(u64::MAX, |exit| exit.1 - viewer.cursor);
        let most = usize::try_from(window.min(before_exit)).unwrap_or(FRAME).min(FRAME);
        let (front, back) = self.ring.read(viewer.cursor, most);
        if front.is_empty() {
            // What a viewer does not take is not waited for at the end.
            return if self.ended { Step::Close(Some(1001)) } else { Step::Wait };
        }
        let mut frame = match viewer.protocol {
            Protocol::Ttyd => ttyd::FromServer::Output(front).build(),
            Protocol::V1 => FromServer::Output(viewer.cursor, front).build(),
        };
        frame.extend_from_slice(back);
        viewer.cursor += (front.len() + back.len()) as u64;
        Step::Send(frame)
    }
}

#[cfg(test)]
mod tests;
