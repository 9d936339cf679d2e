//! One connection: frames of its client to the shell, frames of the hub to its client, pings.
//!
//! Keeps nothing of its own but the frame on its way, so a slow client costs no memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{sleep_until, timeout, timeout_at};

use super::hub::{Opening, Step};
use super::{Access, CLOSING, LONGEST_INPUT, Protocol, Shared, see_off, ttyd, v1};

/// How long a client may take for its first frame.
const OPENING: Duration = Duration::from_secs(10);
const PING: Duration = Duration::from_secs(5);
/// A client that gave no sign of life for so long is hung up.
const SILENCE: Duration = Duration::from_secs(15);

type Sink = SplitSink<WebSocket, Message>;
type Stream = SplitStream<WebSocket>;

/// Serves a connection until it or the terminal ends.
pub async fn serve(shared: &Arc<Shared>, socket: WebSocket, protocol: Protocol, access: Access) {
    let (mut sink, mut stream) = socket.split();
    let (size, resume) = match timeout(OPENING, first_frame(&mut stream, protocol)).await {
        Ok(Ok(opening)) => opening,
        Ok(Err(code)) => return close(&mut sink, &mut stream, code).await,
        Err(_) => return close(&mut sink, &mut stream, Some(close_code::POLICY)).await,
    };
    let viewer = Viewer {
        shared,
        protocol,
        access,
        id: shared.hub().attach(Opening { protocol, access, size, resume }, Instant::now()),
    };
    (shared.activity)();
    viewer.tell();
    let code = tokio::select! {
        code = viewer.receive(&mut stream) => code,
        code = viewer.send(&mut sink) => code,
    };
    // Before closing: whoever waits for this one need not wait for its goodbye.
    drop(viewer);
    close(&mut sink, &mut stream, code).await;
}

/// A connection that has opened the terminal; leaves when dropped.
struct Viewer<'a> {
    shared: &'a Shared,
    protocol: Protocol,
    access: Access,
    id: u64,
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        self.shared.hub().detach(self.id, Instant::now());
        self.tell();
    }
}

impl Viewer<'_> {
    /// Everyone should look at the hub again.
    fn tell(&self) {
        self.shared.nudge.notify_one();
        self.shared.tell_viewers();
    }

    /// Takes frames until the client goes or falls silent; gives the code to close with.
    async fn receive(&self, stream: &mut Stream) -> Option<u16> {
        loop {
            let heard = self.shared.hub().heard(self.id)?;
            let message = match timeout_at((heard + SILENCE).into(), stream.next()).await {
                Ok(message) => message?.ok()?,
                // Sending is a sign of life too, so there may have been one meanwhile.
                Err(_) if self.shared.hub().heard(self.id)? > heard => continue,
                Err(_) => return None,
            };
            self.shared.hub().hear(self.id, Instant::now());
            let frame = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => return Some(close_code::NORMAL),
            };
            let taken = match self.protocol {
                Protocol::Ttyd => self.take_ttyd(&frame),
                Protocol::V1 => self.take_v1(&frame),
            };
            if let Err(code) = taken {
                return Some(code);
            }
        }
    }

    fn take_ttyd(&self, frame: &Bytes) -> Result<(), u16> {
        match ttyd::FromClient::parse(frame).map_err(|_| close_code::PROTOCOL)? {
            // ttyd has started its process by then and ignores it.
            ttyd::FromClient::Open(_) => {}
            ttyd::FromClient::Input(bytes) => return self.input(frame.slice_ref(bytes)),
            ttyd::FromClient::Resize(size) => self.resize(size),
            ttyd::FromClient::Pause => self.pause(true),
            ttyd::FromClient::Resume => self.pause(false),
        }
        Ok(())
    }

    fn take_v1(&self, frame: &Bytes) -> Result<(), u16> {
        match v1::FromClient::parse(frame).map_err(|_| close_code::PROTOCOL)? {
            v1::FromClient::Open(_) => return Err(close_code::PROTOCOL),
            v1::FromClient::Input(bytes) => return self.input(frame.slice_ref(bytes)),
            v1::FromClient::Resize(size) => self.resize(size),
            v1::FromClient::Acknowledge(offset) => {
                self.shared.hub().acknowledge(self.id, offset);
                self.tell();
            }
        }
        Ok(())
    }

    fn input(&self, bytes: Bytes) -> Result<(), u16> {
        if bytes.is_empty() || self.access == Access::ReadOnly {
            return Ok(());
        }
        if self.shared.input_waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() > LONGEST_INPUT {
            self.shared.input_waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
            // The frames behind it may be acknowledgements, so it cannot wait in the connection instead.
            return Err(close_code::SIZE);
        }
        self.shared.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.shared.hub().type_by(self.id);
        // The supervisor is gone only when the terminal is over.
        let _ = self.shared.input.send(bytes);
        (self.shared.activity)();
        self.tell();
        Ok(())
    }

    fn resize(&self, size: super::Size) {
        if self.access == Access::ReadWrite {
            self.shared.hub().resize(self.id, size);
            (self.shared.activity)();
            self.tell();
        }
    }

    fn pause(&self, paused: bool) {
        self.shared.hub().pause(self.id, paused);
        self.tell();
    }

    /// Sends what the hub has for this viewer, and pings; gives the code to close with.
    async fn send(&self, sink: &mut Sink) -> Option<u16> {
        let mut changed = self.shared.changed.subscribe();
        let mut next_ping = Instant::now() + PING;
        loop {
            if Instant::now() >= next_ping {
                next_ping = Instant::now() + PING;
                sink.send(Message::Ping(Bytes::new())).await.ok()?;
            }
            // Before looking: what happens from here on wakes the wait below.
            changed.mark_unchanged();
            let step = self.shared.hub().next(self.id);
            match step {
                Step::Send(frame) => {
                    sink.send(Message::Binary(frame.into())).await.ok()?;
                    self.shared.hub().sent(self.id, Instant::now());
                    if self.protocol == Protocol::Ttyd {
                        self.shared.nudge.notify_one();
                    }
                }
                Step::Wait => {
                    tokio::select! {
                        change = changed.changed() => change.ok()?,
                        () = sleep_until(next_ping.into()) => {}
                    }
                }
                Step::Close(code) => return code,
            }
        }
    }
}

/// The size and the place that a client opens the terminal with, or the code to close with.
async fn first_frame(
    stream: &mut Stream,
    protocol: Protocol,
) -> Result<(super::Size, Option<v1::Resume>), Option<u16>> {
    loop {
        let frame = match stream.next().await.ok_or(None)?.map_err(|_| None)? {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return Err(None),
        };
        match protocol {
            Protocol::Ttyd => match ttyd::FromClient::parse(&frame) {
                Ok(ttyd::FromClient::Open(size)) => return Ok((size, None)),
                // ttyd has no process yet and drops it.
                Ok(_) => {}
                Err(_) => return Err(Some(close_code::PROTOCOL)),
            },
            Protocol::V1 => match v1::FromClient::parse(&frame) {
                Ok(v1::FromClient::Open(open)) => return Ok((open.size, open.resume)),
                Ok(_) | Err(_) => return Err(Some(close_code::PROTOCOL)),
            },
        }
    }
}

/// Says goodbye with a code, or breaks the connection where there is none.
async fn close(sink: &mut Sink, stream: &mut Stream, code: Option<u16>) {
    let Some(code) = code else { return };
    let frame = CloseFrame { code, reason: "".into() };
    let goodbye = async {
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            see_off(stream).await;
        }
    };
    let _ = timeout(CLOSING, goodbye).await;
}
