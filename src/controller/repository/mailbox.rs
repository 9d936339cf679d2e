//! What reaches a repository's worker while it works or waits, kept until the worker asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::validate::{approved, requested_at};
use crate::adapters::watch::Watch;
use crate::crd::WorkshopRepository;
use crate::domain::object::ObjectKey;

/// What the supervisor tells a worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// The repository object is like this now.
    Changed(Arc<WorkshopRepository>),
    /// Somebody changed one of its objects.
    Drifted,
    /// One of its objects is gone; maybe the worker deleted it itself.
    ObjectGone(ObjectKey),
    /// Somebody keeps changing one of its objects.
    Fought {
        /// The object.
        object: ObjectKey,
        /// Who, as the field manager is called.
        manager: String,
    },
}

/// What a message means for work that is under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// What was begun is not what is wanted any more.
    SpecChanged,
    /// The source may have something new.
    LookNow,
    /// It can wait until the work is done.
    Later,
}

/// What happened since the worker last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The source or the repository object should be looked at.
    pub(super) woken: bool,
    /// Objects have to be compared: others changed or deleted some.
    pub(super) drifted: bool,
    /// The object that somebody keeps changing, and who.
    pub(super) fought: Option<(ObjectKey, String)>,
}

/// The messages of one worker.
pub(super) struct Mailbox {
    receiver: mpsc::UnboundedReceiver<Message>,
    current: Arc<WorkshopRepository>,
    watch: Option<Watch>,
    drifted: bool,
    gone: BTreeSet<ObjectKey>,
    fought: Option<(ObjectKey, String)>,
    woken: bool,
}

impl Mailbox {
    pub(super) fn new(receiver: mpsc::UnboundedReceiver<Message>, repository: Arc<WorkshopRepository>) -> Self {
        Self {
            receiver,
            current: repository,
            watch: None,
            drifted: false,
            gone: BTreeSet::new(),
            fought: None,
            woken: false,
        }
    }

    /// The repository as it was last seen.
    pub(super) fn current(&self) -> Arc<WorkshopRepository> {
        Arc::clone(&self.current)
    }

    /// Takes note of finalizers that the worker itself has set.
    pub(super) fn note_finalizers(&mut self, finalizers: Vec<String>) {
        Arc::make_mut(&mut self.current).metadata.finalizers = Some(finalizers);
    }

    /// Changes of these files wake the worker from now on.
    pub(super) fn watch_files(&mut self, watch: Option<Watch>) {
        self.watch = watch;
    }

    /// The next message; none when the worker is not wanted any more. Nothing is lost when the future is dropped.
    pub(super) async fn receive(&mut self) -> Option<Wake> {
        loop {
            tokio::select! {
                message = self.receiver.recv() => return message.map(|message| self.note(message)),
                changed = changed(&mut self.watch) => match changed {
                    Some(()) => {
                        self.woken = true;
                        return Some(Wake::LookNow);
                    }
                    None => self.watch = None,
                },
            }
        }
    }

    fn note(&mut self, message: Message) -> Wake {
        match message {
            Message::Changed(repository) => {
                let old = std::mem::replace(&mut self.current, repository);
                let new = &self.current;
                let is_other = old.metadata.generation != new.metadata.generation
                    || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some();
                if is_other {
                    self.woken = true;
                    return Wake::SpecChanged;
                }
                if requested_at(&old) != requested_at(new) || approved(&old) != approved(new) {
                    self.woken = true;
                    return Wake::LookNow;
                }
                Wake::Later
            }
            Message::Drifted => {
                self.drifted = true;
                Wake::Later
            }
            Message::ObjectGone(key) => {
                self.gone.insert(key);
                Wake::Later
            }
            Message::Fought { object, manager } => {
                self.fought = Some((object, manager));
                Wake::Later
            }
        }
    }

    /// All that happened since it was last asked, whatever becomes of it: what is left here would wake the worker
    /// again and again.
    pub(super) fn take_news(&mut self, deleted_by_us: &BTreeSet<ObjectKey>) -> News {
        let gone = std::mem::take(&mut self.gone);
        News {
            woken: std::mem::take(&mut self.woken),
            drifted: std::mem::take(&mut self.drifted) || gone.iter().any(|key| !deleted_by_us.contains(key)),
            fought: self.fought.take(),
        }
    }

    /// Whether there is anything to do before the next look.
    pub(super) fn has_news(&self) -> bool {
        self.woken || self.drifted || !self.gone.is_empty() || self.fought.is_some()
    }
}

/// Waits for a change of files; for ever where none are watched.
async fn changed(watch: &mut Option<Watch>) -> Option<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn repository(metadata: Value) -> Arc<WorkshopRepository> {
        let manifest = json!({
            "apiVersion": crate::crd::API_VERSION, "kind": "WorkshopRepository",
            "metadata": metadata, "spec": { "url": "https://git.example/a.git" },
        });
        Arc::new(serde_json::from_value(manifest).expect("a repository"))
    }

    async fn check(metadata: Value, expected: Wake, woken: bool) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut mailbox = Mailbox::new(receiver, repository(json!({ "name": "a", "generation": 1 })));
        sender.send(Message::Changed(repository(metadata))).expect("the mailbox is there");
        assert_eq!(mailbox.receive().await, Some(expected));
        assert_eq!(mailbox.take_news(&BTreeSet::new()).woken, woken);
    }

    #[tokio::test]
    async fn only_what_matters_interrupts() {
        check(json!({ "name": "a", "generation": 1, "labels": { "x": "y" } }), Wake::Later, false).await;
        check(json!({ "name": "a", "generation": 2 }), Wake::SpecChanged, true).await;
        let deleted = json!({ "name": "a", "generation": 1, "deletionTimestamp": "2026-01-01T00:00:00Z" });
        check(deleted, Wake::SpecChanged, true).await;
        let asked =
            json!({ "name": "a", "generation": 1, "annotations": { (crate::crd::labels::REQUESTED_AT): "now" } });
        check(asked, Wake::LookNow, true).await;
    }

    #[tokio::test]
    async fn what_the_worker_deleted_is_no_drift() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut mailbox = Mailbox::new(receiver, repository(json!({ "name": "a" })));
        let key = |name: &str| ObjectKey {
            kind: crate::domain::object::Kind::WorkspaceTemplate,
            namespace: None,
            name: name.to_owned(),
        };
        let ours = BTreeSet::from([key("ours")]);
        sender.send(Message::ObjectGone(key("ours"))).expect("the mailbox is there");
        mailbox.receive().await;
        assert!(!mailbox.take_news(&ours).drifted);
        sender.send(Message::ObjectGone(key("theirs"))).expect("the mailbox is there");
        mailbox.receive().await;
        assert!(mailbox.take_news(&ours).drifted && !mailbox.has_news());
    }

    #[tokio::test]
    async fn news_that_were_taken_wake_nobody_again() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut mailbox = Mailbox::new(receiver, repository(json!({ "name": "a" })));
        let object =
            ObjectKey { kind: crate::domain::object::Kind::WorkspaceTemplate, namespace: None, name: "a".to_owned() };
        let fought = Message::Fought { object: object.clone(), manager: "kubectl".to_owned() };
        for message in [Message::Drifted, Message::ObjectGone(object.clone()), fought] {
            sender.send(message).expect("the mailbox is there");
            mailbox.receive().await;
            assert!(mailbox.has_news());
        }
        let news = mailbox.take_news(&BTreeSet::new());
        assert_eq!(news, News { woken: false, drifted: true, fought: Some((object, "kubectl".to_owned())) });
        assert!(!mailbox.has_news());
        assert_eq!(mailbox.take_news(&BTreeSet::new()), News::default());
    }
}
