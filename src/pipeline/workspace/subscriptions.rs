//! Changes of one instance told to those who wait for it, and to nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{mpsc, watch};

/// So many instances are waited for before those that nobody waits for any more are dropped.
const FEW: usize = 64;

/// Who waits for which instance.
#[derive(Default)]
pub(super) struct Subscriptions {
    waiting: Mutex<Waiting>,
    pump: OnceLock<()>,
}

#[derive(Default)]
struct Waiting {
    by_uid: HashMap<String, watch::Sender<u64>>,
    /// How many there were after those that nobody waits for were dropped.
    left: usize,
}

impl Subscriptions {
    /// Counts the changes of the instance with this uid from now on. The first call asks `source` for the uids of
    /// what changed; it must be made inside a tokio runtime.
    pub fn subscribe(
        self: &Arc<Self>,
        uid: &str,
        source: impl FnOnce() -> Option<mpsc::UnboundedReceiver<String>>,
    ) -> watch::Receiver<u64> {
        self.pump.get_or_init(|| {
            if let Some(mut source) = source() {
                let subscriptions = Arc::downgrade(self);
                tokio::spawn(async move {
                    while let Some(uid) = source.recv().await {
                        let Some(subscriptions) = subscriptions.upgrade() else { return };
                        subscriptions.tell(&uid);
                    }
                });
            }
        });
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.by_uid.len() >= FEW.max(2 * waiting.left) {
            waiting.by_uid.retain(|_, sender| sender.receiver_count() > 0);
            waiting.left = waiting.by_uid.len();
        }
        waiting.by_uid.entry(uid.to_owned()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    fn tell(&self, uid: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = waiting.by_uid.get(uid) else { return };
        if sender.receiver_count() == 0 {
            waiting.by_uid.remove(uid);
        } else {
            sender.send_modify(|count| *count += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn only_who_waits_for_an_instance_is_woken_by_it() {
        let subscriptions = Arc::new(Subscriptions::default());
        let (changes, source) = mpsc::unbounded_channel();
        let mut first = subscriptions.subscribe("a", || Some(source));
        let other = subscriptions.subscribe("b", || unreachable!("there is one source"));
        changes.send("nobody's".to_owned()).unwrap();
        changes.send("a".to_owned()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), first.changed()).await.unwrap().unwrap();
        assert!(!other.has_changed().unwrap());
        drop((first, other));
        for index in 0..1000 {
            drop(subscriptions.subscribe(&index.to_string(), || None));
        }
        assert!(subscriptions.waiting.lock().unwrap().by_uid.len() <= FEW, "nobody waits for those any more");
    }
}
