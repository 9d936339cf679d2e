//! Events about a WorkshopRepository; the reason is the condition's.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

use super::Cluster;
use crate::crd::conditions::{Reason, cut_message};

/// Whether an event tells of something good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Cluster {
    /// Sends an event; one that cannot be sent is logged and lost, because nothing may depend on events.
    pub async fn send_event(
        &self,
        regarding: &ObjectReference,
        severity: Severity,
        reason: Reason,
        action: &str,
        message: &str,
    ) {
        let event = Event {
            type_: match severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: reason.as_str().to_owned(),
            note: Some(cut_message(message)),
            action: action.to_owned(),
            secondary: None,
        };
        let sent = self.call("send an event", self.recorder.publish(&event, regarding));
        if let Err(error) = sent.await {
            tracing::debug!(%error, reason = %reason, "an event was lost");
        }
    }
}
