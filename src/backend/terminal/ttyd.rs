//! The wire protocol of ttyd 1.7.7, subprotocol `tty`: frames to values and back.
//!
//! Pure: knows neither sockets nor terminals.

use serde::{Deserialize, Serialize};

use super::size::Size;

/// The name that clients ask for.
pub const PROTOCOL: &str = "tty";
/// Objects of this protocol have two numbers and a token.
const LONGEST_JSON: usize = 4096;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// The first frame: it wants the terminal, of this size.
    Open(Size),
    /// Bytes that somebody typed.
    Input(&'a [u8]),
    /// Its window has another size.
    Resize(Size),
    /// Send nothing until told.
    Pause,
    /// Send again.
    Resume,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// Bytes of the shell.
    Output(&'a [u8]),
    /// The title of the window.
    Title(&'a str),
    /// Options of the client, a JSON object.
    Preferences(&'a str),
}

/// Why a frame means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It has no byte, so no kind.
    #[error("a frame is empty")]
    Empty,
    /// Its kind is not of this protocol.
    #[error("no frame begins with byte {0}")]
    Kind(u8),
    /// What follows the kind is not what the kind needs.
    #[error("the contents of a frame of kind {0} are wrong")]
    Contents(u8),
}

#[derive(Serialize, Deserialize)]
struct OpenWire {
    #[serde(rename = "AuthToken", default)]
    auth_token: String,
    #[serde(flatten)]
    size: Size,
}

impl<'a> FromClient<'a> {
    /// What a frame says.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (&kind, rest) = frame.split_first().ok_or(FrameError::Empty)?;
        match kind {
            b'{' => Ok(Self::Open(parse_json::<OpenWire>(kind, frame)?.size)),
            b'0' => Ok(Self::Input(rest)),
            b'1' => Ok(Self::Resize(parse_json(kind, rest)?)),
            b'2' => Ok(Self::Pause),
            b'3' => Ok(Self::Resume),
            other => Err(FrameError::Kind(other)),
        }
    }

    /// The frame that says it.
    pub fn build(&self) -> Vec<u8> {
        match self {
            Self::Open(size) => to_json(&OpenWire { auth_token: String::new(), size: *size }),
            Self::Input(bytes) => with_kind(b'0', bytes),
            Self::Resize(size) => with_kind(b'1', &to_json(size)),
            Self::Pause => vec![b'2'],
            Self::Resume => vec![b'3'],
        }
    }
}

impl<'a> FromServer<'a> {
    /// What a frame says.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (&kind, rest) = frame.split_first().ok_or(FrameError::Empty)?;
        let text = || std::str::from_utf8(rest).map_err(|_| FrameError::Contents(kind));
        match kind {
            b'0' => Ok(Self::Output(rest)),
            b'1' => Ok(Self::Title(text()?)),
            b'2' => Ok(Self::Preferences(text()?)),
            other => Err(FrameError::Kind(other)),
        }
    }

    /// The frame that says it.
    pub fn build(&self) -> Vec<u8> {
        match self {
            Self::Output(bytes) => with_kind(b'0', bytes),
            Self::Title(title) => with_kind(b'1', title.as_bytes()),
            Self::Preferences(json) => with_kind(b'2', json.as_bytes()),
        }
    }
}

/// A value of one of the two protocols from JSON of a bounded length.
pub(super) fn parse_json<'a, T: Deserialize<'a>>(kind: u8, json: &'a [u8]) -> Result<T, FrameError> {
    if json.len() > LONGEST_JSON {
        return Err(FrameError::Contents(kind));
    }
    serde_json::from_slice(json).map_err(|_| FrameError::Contents(kind))
}

pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, texts and nulls are JSON")
}

pub(super) fn with_kind(kind: u8, contents: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1 + contents.len());
    frame.push(kind);
    frame.extend_from_slice(contents);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(frame: &[u8], expected: Result<FromClient<'_>, FrameError>) {
        assert_eq!(FromClient::parse(frame), expected, "{:?}", String::from_utf8_lossy(frame));
    }

    #[test]
    fn frames_of_a_ttyd_client_are_understood() {
        let size = Size { columns: 100, rows: 30 };
        check(br#"{"AuthToken":"","columns":100,"rows":30}"#, Ok(FromClient::Open(size)));
        check(br#"{"AuthToken":"abc"}"#, Ok(FromClient::Open(Size::default())));
        check(b"0ls\r", Ok(FromClient::Input(b"ls\r")));
        check(b"0", Ok(FromClient::Input(b"")));
        check(br#"1{"columns":100,"rows":30}"#, Ok(FromClient::Resize(size)));
        check(b"2", Ok(FromClient::Pause));
        check(b"3", Ok(FromClient::Resume));
        check(b"", Err(FrameError::Empty));
        check(b"9", Err(FrameError::Kind(b'9')));
        check(b"1{", Err(FrameError::Contents(b'1')));
        check(b"{\"columns\":\"x\"}", Err(FrameError::Contents(b'{')));
        check(&with_kind(b'1', &vec![b' '; LONGEST_JSON + 1]), Err(FrameError::Contents(b'1')));
    }

    #[test]
    fn frames_of_the_server_are_those_of_ttyd() {
        assert_eq!(FromServer::Output(b"\x1b[1m").build(), b"0\x1b[1m");
        assert_eq!(FromServer::Title("bash (host)").build(), b"1bash (host)");
        assert_eq!(FromServer::Preferences("{ }").build(), b"2{ }");
    }

    proptest! {
        #[test]
        fn no_frame_of_a_client_panics(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = FromClient::parse(&frame);
            let _ = FromServer::parse(&frame);
        }

        #[test]
        fn no_json_of_a_client_panics(text in "[{1]?[\\[\\]{}\":,a-z0-9.eE+-]{0,60}") {
            let _ = FromClient::parse(text.as_bytes());
        }

        #[test]
        fn every_frame_comes_back(
            bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,40}",
            columns in 1..=2000_u16, rows in 1..=2000_u16,
        ) {
            let size = Size { columns, rows };
            for value in [
                FromClient::Open(size), FromClient::Input(&bytes), FromClient::Resize(size),
                FromClient::Pause, FromClient::Resume,
            ] {
                let frame = value.build();
                prop_assert_eq!(FromClient::parse(&frame), Ok(value.clone()));
            }
            for value in [FromServer::Output(&bytes), FromServer::Title(&text), FromServer::Preferences(&text)] {
                let frame = value.build();
                prop_assert_eq!(FromServer::parse(&frame), Ok(value.clone()));
            }
        }
    }
}
