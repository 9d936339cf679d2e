//! ttyd's protocol, as a client of ttyd 1.7.7 speaks it.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::{DEADLINE, PROMPT, Server, bash, connect, script};

/// A frame of a client: masked with zeros, which leaves the bytes as they are.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short frame");
    assert!(length < 126);
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

async fn read_exactly(stream: &mut TcpStream, expected: &[u8]) {
    let mut found = vec![0; expected.len()];
    let read = timeout(DEADLINE, stream.read_exact(&mut found)).await.expect("in time");
    read.unwrap_or_else(|error| panic!("{error} instead of {:?}", String::from_utf8_lossy(expected)));
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttyd_client_shakes_hands_byte_by_byte() {
    let server = Server::start(script("stty -echo; read -r line; stty size; echo \"<$line>\"; exit 0")).await;
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: tty\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("to send");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(DEADLINE, stream.read_u8()).await.expect("in time").expect("a byte"));
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nsec-websocket-protocol: tty\r\n"), "{head}");
    assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(!head.contains("extensions"), "nothing is compressed: {head}");

    // What comes before the first object is dropped, as ttyd does, which has no process yet.
    stream.write_all(&masked(2, b"0early\n")).await.expect("to send");
    let open = br#"{"AuthToken":"","columns":100,"rows":30}"#;
    stream.write_all(&masked(2, open)).await.expect("to send");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let title = format!("1bash ({host})");
    let length = u8::try_from(title.len()).expect("a short name");
    read_exactly(&mut stream, &[&[0x82, length], title.as_bytes()].concat()).await;
    read_exactly(&mut stream, &[0x82, 4, b'2', b'{', b' ', b'}']).await;
    stream.write_all(&masked(2, b"1{\"columns\":101,\"rows\":31}")).await.expect("to send");
    stream.write_all(&masked(2, b"0typed\r")).await.expect("to send");
    // The shell may write both lines at once or one by one.
    let mut output = String::new();
    while !output.ends_with("<typed>\r\n") {
        let mut header = [0; 3];
        timeout(DEADLINE, stream.read_exact(&mut header)).await.expect("in time").expect("a frame");
        assert_eq!((header[0], header[2]), (0x82, b'0'), "after {output:?}");
        let mut bytes = vec![0; usize::from(header[1]) - 1];
        stream.read_exact(&mut bytes).await.expect("the rest");
        output.push_str(std::str::from_utf8(&bytes).expect("text"));
    }
    assert!(output.starts_with("31 101\r\n"), "{output:?}");
    // A close frame of 1000, for an exit with 0.
    read_exactly(&mut stream, &[0x88, 2, 0x03, 0xe8]).await;
}

async fn open(server: &Server) -> WebSocketStream<TcpStream> {
    let mut socket = connect(server.address, "/ws", "tty").await;
    // Text frames are taken too: clients in other languages send them.
    socket.send(Message::text(r#"{"columns":80,"rows":24}"#)).await.expect("to send");
    socket
}

/// Output until it ends with a text; the last message if the connection ends before.
async fn read_to(socket: &mut WebSocketStream<TcpStream>, text: &str) -> Result<String, Option<Message>> {
    let mut output = Vec::new();
    while !output.ends_with(text.as_bytes()) {
        match timeout(DEADLINE, socket.next()).await.expect("in time") {
            Some(Ok(Message::Binary(frame))) if frame[0] == b'0' => output.extend_from_slice(&frame[1..]),
            Some(Ok(Message::Binary(_) | Message::Ping(_))) => {}
            Some(Ok(other)) => return Err(Some(other)),
            Some(Err(_)) | None => return Err(None),
        }
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_with_another_code_breaks_the_connection_and_the_next_finds_a_shell() {
    let server = Server::start(bash()).await;
    let mut socket = open(&server).await;
    read_to(&mut socket, PROMPT).await.expect("a prompt");
    socket.send(Message::binary(&b"0exit 1\n"[..])).await.expect("to send");
    assert_eq!(read_to(&mut socket, "nothing").await, Err(None));
    let mut socket = open(&server).await;
    read_to(&mut socket, PROMPT).await.expect("what was there before");
    socket.send(Message::binary(&b"0echo n''ew\n"[..])).await.expect("to send");
    read_to(&mut socket, &format!("new\r\n{PROMPT}")).await.expect("a new shell");
    socket.send(Message::binary(&b"0exit\n"[..])).await.expect("to send");
    let Err(Some(Message::Close(Some(frame)))) = read_to(&mut socket, "nothing").await else {
        panic!("no close frame");
    };
    assert_eq!(frame.code, CloseCode::Normal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_client_gets_nothing_until_it_resumes() {
    let server = Server::start(bash()).await;
    let mut socket = open(&server).await;
    read_to(&mut socket, PROMPT).await.expect("a prompt");
    socket.send(Message::binary(&b"2"[..])).await.expect("to send");
    socket.send(Message::binary(&b"0echo a''b\n"[..])).await.expect("to send");
    // An answer to the ping comes behind all that was sent before it, so silence until then is silence.
    socket.send(Message::Ping(axum::body::Bytes::from_static(b"now"))).await.expect("to send");
    let pong = loop {
        match timeout(DEADLINE, socket.next()).await.expect("in time").expect("a message").expect("no error") {
            Message::Ping(_) => {}
            other => break other,
        }
    };
    assert_eq!(pong, Message::Pong(axum::body::Bytes::from_static(b"now")));
    socket.send(Message::binary(&b"3"[..])).await.expect("to send");
    read_to(&mut socket, &format!("ab\r\n{PROMPT}")).await.expect("what was held back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_neither_protocol_is_refused() {
    use tokio_tungstenite::tungstenite::{Error, client::IntoClientRequest};
    let server = Server::start(bash()).await;
    let stream = TcpStream::connect(server.address).await.expect("a connection");
    let request = format!("ws://{}/ws", server.address).into_client_request().expect("a request");
    let Err(Error::Http(response)) = tokio_tungstenite::client_async(request, stream).await else {
        panic!("it was let in");
    };
    assert_eq!(response.status(), 400);
}
