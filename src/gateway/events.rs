//! Streams of what changed, as server-sent events: the whole new value each time, and only where it differs.
//!
//! Nothing is kept for those who were not listening; a new stream begins with how things are.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::server::Gateway;

/// How often a silent stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Events = Sse<axum::response::sse::KeepAliveStream<stream::BoxStream<'static, Result<Event, Infallible>>>>;

/// `instance` whenever the instance changed, and `deleted` at its end.
pub fn of_instance(gateway: Gateway, uid: String) -> Events {
    let changes = gateway.workspaces().watch_instance(&uid);
    stream_of(gateway, changes, move |gateway| {
        let uid = uid.clone();
        async move {
            let view = gateway.workspaces().by_uid(&uid).await.ok()?;
            Some(match view {
                Some(view) => vec![("instance", json!(view))],
                None => vec![("deleted", json!({}))],
            })
        }
    })
}

/// `instances` and `workshops` whenever one of them changed.
pub fn of_everything(gateway: Gateway) -> Events {
    let changes = gateway.workspaces().changes();
    stream_of(gateway, changes, |gateway| async move {
        let instances = gateway.workspaces().list().await.ok()?;
        let workshops = gateway.workspaces().templates().await.ok()?;
        Some(vec![("instances", json!({ "instances": instances })), ("workshops", json!({ "workshops": workshops }))])
    })
}

/// The events that `read` gives at each change, without those that say nothing new.
fn stream_of<F, R>(gateway: Gateway, changes: watch::Receiver<u64>, read: F) -> Events
where
    F: Fn(Gateway) -> R + Send + 'static,
    R: Future<Output = Option<Vec<(&'static str, Value)>>> + Send + 'static,
{
    let stop = gateway.settings().stop.clone();
    let events = fresh(WatchStream::new(changes).filter_map(move |_| read(gateway.clone())));
    Sse::new(events.take_until(stop.cancelled_owned()).boxed()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn fresh(
    values: impl Stream<Item = Vec<(&'static str, Value)>> + Send + 'static,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let mut last: Vec<(&'static str, Value)> = Vec::new();
    values.flat_map(move |values| {
        let news: Vec<_> = values.iter().filter(|value| !last.contains(value)).cloned().collect();
        last = values;
        stream::iter(news.into_iter().map(|(name, value)| Ok(Event::default().event(name).data(value.to_string()))))
    })
}
