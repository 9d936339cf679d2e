//! What the browser is told as it happens.
//!
//! Events are hints: whoever misses some asks for the state anew. Nothing waits for a slow listener.

use serde::Serialize;
use tokio::sync::broadcast;

/// How many events a listener may lag behind.
const KEPT: usize = 64;

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `state`, `steps`, `progress`, `content`, `checks`, `transition`, `terminal` or `message`.
    pub name: &'static str,
    /// JSON in one line.
    pub data: String,
}

/// Tells all listeners.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Events {
    /// Sends `data` under `name`.
    pub fn send(&self, name: &'static str, data: &impl Serialize) {
        let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
        // An error means that nobody listens.
        let _ = self.0.send(Event { name, data });
    }

    /// Everything from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
