//! Our wire protocol, subprotocol `workshop.tty.v1`: frames to values and back.
//!
//! Output carries its offset, so that a client can say how far it is and go on there after a break. Pure: knows
//! neither sockets nor terminals.

use serde::{Deserialize, Serialize};

use super::size::Size;
use super::ttyd::{FrameError, parse_json, to_json, with_kind};

/// The name that clients ask for.
pub const PROTOCOL: &str = "workshop.tty.v1";
/// Bytes of an offset on the wire.
const OFFSET: usize = size_of::<u64>();

/// Where a client wants to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The session of the [`Hello`] that it had.
    pub session: String,
    /// The offset behind the last byte it has.
    pub offset: u64,
}

/// The first frame of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Its size.
    #[serde(flatten)]
    pub size: Size,
    /// What it already has; absent or `null`: nothing.
    #[serde(default)]
    pub resume: Option<Resume>,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// The first frame.
    Open(Open),
    /// Bytes that somebody typed.
    Input(&'a [u8]),
    /// Its window has another size.
    Resize(Size),
    /// All output below this offset is on its screen.
    Acknowledge(u64),
}

/// The answer to the first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The one process that counts offsets this way.
    pub session: String,
    /// Output follows from here.
    pub offset: u64,
    /// The size that the shell has.
    #[serde(flatten)]
    pub size: Size,
    /// How many look at the terminal, this one included.
    pub viewers: usize,
    /// Bytes are missing before the offset: what is on the screen must go.
    pub reset: bool,
}

/// How a shell ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; `null` when a signal ended it.
    pub code: Option<i32>,
    /// The signal without `SIG`; `null` when it exited.
    pub signal: Option<String>,
    /// Whether a new one starts by itself; otherwise the next key starts it.
    pub restarting: bool,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// The answer to the first frame.
    Hello(Hello),
    /// Bytes of the shell, the first at this offset.
    Output(u64, &'a [u8]),
    /// The title of the window.
    Title(&'a str),
    /// The shell ended.
    Exit(Exit),
    /// Output goes on at this offset, bytes before it are lost to this client, whose screen must go.
    Resynchronised(u64),
    /// The size that the shell has now.
    Size(Size),
}

#[derive(Serialize, Deserialize)]
struct Offset {
    offset: u64,
}

impl<'a> FromClient<'a> {
    /// What a frame says.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (&kind, rest) = frame.split_first().ok_or(FrameError::Empty)?;
        match kind {
            b'{' => Ok(Self::Open(parse_json(kind, frame)?)),
            b'0' => Ok(Self::Input(rest)),
            b'1' => Ok(Self::Resize(parse_json(kind, rest)?)),
            b'4' => match split_offset(kind, rest)? {
                (offset, []) => Ok(Self::Acknowledge(offset)),
                _ => Err(FrameError::Contents(kind)),
            },
            other => Err(FrameError::Kind(other)),
        }
    }

    /// The frame that says it.
    pub fn build(&self) -> Vec<u8> {
        match self {
            Self::Open(open) => to_json(open),
            Self::Input(bytes) => with_kind(b'0', bytes),
            Self::Resize(size) => with_kind(b'1', &to_json(size)),
            Self::Acknowledge(offset) => with_kind(b'4', &offset.to_be_bytes()),
        }
    }
}

impl<'a> FromServer<'a> {
    /// What a frame says.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (&kind, rest) = frame.split_first().ok_or(FrameError::Empty)?;
        match kind {
            b'7' => Ok(Self::Hello(parse_json(kind, rest)?)),
            b'0' => split_offset(kind, rest).map(|(offset, bytes)| Self::Output(offset, bytes)),
            b'1' => std::str::from_utf8(rest).map(Self::Title).map_err(|_| FrameError::Contents(kind)),
            b'5' => Ok(Self::Exit(parse_json(kind, rest)?)),
            b'6' => Ok(Self::Resynchronised(parse_json::<Offset>(kind, rest)?.offset)),
            b'8' => Ok(Self::Size(parse_json(kind, rest)?)),
            other => Err(FrameError::Kind(other)),
        }
    }

    /// The frame that says it.
    pub fn build(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => with_kind(b'7', &to_json(hello)),
            Self::Output(offset, bytes) => {
                let mut frame = Vec::with_capacity(1 + OFFSET + bytes.len());
                frame.push(b'0');
                frame.extend_from_slice(&offset.to_be_bytes());
                frame.extend_from_slice(bytes);
                frame
            }
            Self::Title(title) => with_kind(b'1', title.as_bytes()),
            Self::Exit(exit) => with_kind(b'5', &to_json(exit)),
            Self::Resynchronised(offset) => with_kind(b'6', &to_json(&Offset { offset: *offset })),
            Self::Size(size) => with_kind(b'8', &to_json(size)),
        }
    }
}

fn split_offset(kind: u8, contents: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let (offset, rest) = contents.split_first_chunk::<OFFSET>().ok_or(FrameError::Contents(kind))?;
    Ok((u64::from_be_bytes(*offset), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(frame: &[u8], expected: Result<FromClient<'_>, FrameError>) {
        assert_eq!(FromClient::parse(frame), expected, "{:?}", String::from_utf8_lossy(frame));
    }

    #[test]
    fn frames_of_a_client_are_understood() {
        let size = Size { columns: 100, rows: 30 };
        check(br#"{"columns":100,"rows":30}"#, Ok(FromClient::Open(Open { size, resume: None })));
        check(br#"{"columns":100,"rows":30,"resume":null}"#, Ok(FromClient::Open(Open { size, resume: None })));
        let resume = Some(Resume { session: "a".into(), offset: 123 });
        check(
            br#"{"columns":100,"rows":30,"resume":{"session":"a","offset":123}}"#,
            Ok(FromClient::Open(Open { size, resume })),
        );
        check(b"4\0\0\0\0\0\0\x01\0", Ok(FromClient::Acknowledge(256)));
        check(b"4\0\0\0\0\0\0\x01", Err(FrameError::Contents(b'4')));
        check(b"4\0\0\0\0\0\0\x01\0\0", Err(FrameError::Contents(b'4')));
        check(br#"{"resume":{"offset":-1}}"#, Err(FrameError::Contents(b'{')));
        check(b"2", Err(FrameError::Kind(b'2')));
        check(b"", Err(FrameError::Empty));
    }

    #[test]
    fn frames_of_the_server_have_the_documented_bytes() {
        assert_eq!(FromServer::Output(258, b"ab").build(), b"0\0\0\0\0\0\0\x01\x02ab");
        let exit = Exit { code: None, signal: Some("KILL".into()), restarting: true };
        assert_eq!(FromServer::Exit(exit).build(), br#"5{"code":null,"signal":"KILL","restarting":true}"#);
        assert_eq!(FromServer::Resynchronised(9).build(), br#"6{"offset":9}"#);
        assert_eq!(FromServer::Size(Size { columns: 1, rows: 2 }).build(), br#"8{"columns":1,"rows":2}"#);
        let hello =
            Hello { session: "s".into(), offset: 7, size: Size { columns: 1, rows: 2 }, viewers: 3, reset: false };
        assert_eq!(
            String::from_utf8_lossy(&FromServer::Hello(hello).build()),
            r#"7{"session":"s","offset":7,"columns":1,"rows":2,"viewers":3,"reset":false}"#
        );
    }

    proptest! {
        #[test]
        fn no_frame_panics(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = FromClient::parse(&frame);
            let _ = FromServer::parse(&frame);
        }

        #[test]
        fn no_json_panics(text in "[{15678]?[\\[\\]{}\":,a-z0-9.eE+-]{0,60}") {
            let _ = FromClient::parse(text.as_bytes());
            let _ = FromServer::parse(text.as_bytes());
        }

        #[test]
        fn every_frame_comes_back(
            bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,40}", offset in any::<u64>(),
            columns in 1..=2000_u16, rows in 1..=2000_u16, flag in any::<bool>(), code in any::<Option<i32>>(),
        ) {
            let size = Size { columns, rows };
            let resume = flag.then(|| Resume { session: text.clone(), offset });
            for value in [
                FromClient::Open(Open { size, resume }), FromClient::Input(&bytes), FromClient::Resize(size),
                FromClient::Acknowledge(offset),
            ] {
                let frame = value.build();
                prop_assert_eq!(FromClient::parse(&frame), Ok(value.clone()));
            }
            let exit = Exit { code, signal: flag.then(|| text.clone()), restarting: flag };
            let hello = Hello { session: text.clone(), offset, size, viewers: bytes.len(), reset: flag };
            for value in [
                FromServer::Hello(hello), FromServer::Output(offset, &bytes), FromServer::Title(&text),
                FromServer::Exit(exit), FromServer::Resynchronised(offset), FromServer::Size(size),
            ] {
                let frame = value.build();
                prop_assert_eq!(FromServer::parse(&frame), Ok(value.clone()));
            }
        }
    }
}
