//! Keeps workspace and management API in step: the claim of an epoch, progress, activity and what changes outside.
//!
//! All of it runs beside the requests and tries again for ever; nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::domain::management::{Instance, Phase};

use super::app::{App, now};
use super::management::Management;

/// The shortest time between two snapshots.
const SNAPSHOTS: Duration = Duration::from_secs(2);
/// The shortest time between two reports of activity.
const ACTIVITY: Duration = Duration::from_secs(15);
/// The first and the longest wait after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Waits that grow with each failure.
#[derive(Debug, Default)]
pub struct BackOff(u32);

impl BackOff {
    /// Waits.
    pub async fn wait(&mut self) {
        let wait = BACK_OFF.0.saturating_mul(1 << self.0.min(16)).min(BACK_OFF.1);
        self.0 += 1;
        tokio::time::sleep(wait).await;
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Runs until the program ends; at once over where there is no management API.
pub async fn run(app: Arc<App>) {
    let Some(management) = app.management.get() else { return };
    let version = begin(&app, management).await;
    tokio::join!(follow(&app, management, version), snapshots(&app), activity(&app, management));
}

/// Claims the epoch and takes over what is known of this workspace.
async fn begin(app: &App, management: &Management) -> String {
    let mut back_off = BackOff::default();
    loop {
        match management.begin().await {
            Ok(session) => {
                let version = session.instance.version.clone();
                let taken = app.with(|live| {
                    live.merge(&session.progress, session.custom_state);
                    live.epoch = Some(session.epoch);
                    live.instance = Some(session.instance);
                    let custom = live.custom.clone();
                    custom.iter().try_for_each(|(key, value)| live.store.set_custom(key, Some(value)))?;
                    live.ledger.enter(&live.step, &now());
                    live.store.save_progress(&live.ledger)
                });
                if let Some(Err(error)) = taken {
                    tracing::warn!(error = %super::chain(&error), "the progress so far cannot be kept in the working copy");
                }
                tracing::info!(epoch = session.epoch, "the session began");
                app.begin_session();
                app.mark_changed();
                app.tell(&["state", "steps", "progress"]);
                return version;
            }
            Err(error) => {
                tracing::warn!(error = %super::chain(&error), "no session yet");
                back_off.wait().await;
            }
        }
    }
}

/// Waits for changes of the instance and tells them.
async fn follow(app: &App, management: &Management, mut version: String) {
    let mut back_off = BackOff::default();
    loop {
        match management.wait(&version).await {
            Ok(instance) => {
                back_off.reset();
                if instance.version == version {
                    // A server that answers at once would make this loop spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                version.clone_from(&instance.version);
                if take(app, instance) {
                    // Whoever comes next asks for it within a second or two.
                    app.hand_over().await;
                }
            }
            Err(error) => {
                tracing::debug!(error = %super::chain(&error), "no news of the instance");
                back_off.wait().await;
            }
        }
    }
}

/// Takes in what the instance is now; true where the learner moves on from here.
fn take(app: &App, instance: Instance) -> bool {
    let told = app.with(|live| {
        let before = live.phase();
        let is_moving = instance.phase == Phase::Transitioning || instance.step != live.step;
        let transition = (is_moving && (before != instance.phase || before != Phase::Running)).then(
            || json!({ "from": live.step, "to": instance.step, "phase": instance.phase, "message": instance.message }),
        );
        live.instance = Some(instance);
        (is_moving, transition)
    });
    let (is_moving, transition) = told.unwrap_or_default();
    if let Some(transition) = transition {
        app.events.send("transition", &transition);
    }
    app.tell(&["state"]);
    is_moving
}

async fn snapshots(app: &App) {
    let mut back_off = BackOff::default();
    loop {
        app.changed.notified().await;
        while !app.hand_over().await {
            back_off.wait().await;
        }
        back_off.reset();
        tokio::time::sleep(SNAPSHOTS).await;
    }
}

async fn activity(app: &App, management: &Management) {
    let mut reported = 0;
    loop {
        let used = app.used();
        if used != reported {
            let at = jiff::Timestamp::from_second(used).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
            match management.report_activity(at).await {
                Ok(()) => reported = used,
                Err(error) => tracing::debug!(error = %super::chain(&error), "activity is not reported yet"),
            }
            tokio::time::sleep(ACTIVITY).await;
        } else {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
