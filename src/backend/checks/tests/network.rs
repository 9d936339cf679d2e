//! Checks of what listens, answers and resolves, against servers that the tests themselves run.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::check;

/// A server that answers each request by what it asks for; gives its port.
async fn serve_http() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => request.extend_from_slice(&buffer[..read]),
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                if path == "/silent" {
                    // Until the client gives up.
                    let _ = stream.read(&mut buffer).await;
                    return;
                }
                let (status, head, body) = match path {
                    "/moved" => ("302 Found", "Location: /\r\n".to_owned(), String::new()),
                    "/echo" => ("200 OK", String::new(), request.clone()),
                    "/large" => ("200 OK", String::new(), "x".repeat(5 << 20)),
                    "/" => (
                        "200 OK",
                        "Content-Type: text/plain\r\nx-made-by: test\r\n".to_owned(),
                        "hello\nworld\n".to_owned(),
                    ),
                    _ => ("404 Not Found", String::new(), "nothing\n".to_owned()),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn http_answers_are_compared() {
    let port = serve_http().await;
    check(
        &format!(
            "http:
  http://127.0.0.1:{port}/: {{status: 200, headers: ['Content-Type: text/plain', '/^X-Made-By: t/'], body: [hello, '!bye']}}
  http://127.0.0.1:{port}/nothing: {{status: 404, body: \"nothing\\n\"}}
  http://127.0.0.1:{port}/moved: {{status: 200, body: [world]}}
  stays: {{url: 'http://127.0.0.1:{port}/moved', no-follow-redirects: true, status: 302, headers: ['Location: /']}}
  echo:
    url: http://127.0.0.1:{port}/echo
    method: put
    username: me
    password: secret
    request-headers: ['X-Asked: yes', 'Host: example.org']
    request-body: content
    status: 200
    body: ['PUT /echo', '/(?i)^x-asked: yes$/', '/(?i)^host: example.org$/', '/(?i)^authorization: Basic bWU6c2VjcmV0$/']
  http://127.0.0.1:{port}/large: {{status: 200, body: [x]}}
  http://127.0.0.1:{port}/silent: {{status: 200, body: [x], timeout: 300}}
  http://127.0.0.1:1/: {{status: 200, body: [x]}}
  not an address: {{status: 200}}
"
        ),
        &[
            "status passed",
            "headers passed",
            "body passed",
            "status passed",
            "body passed",
            "status passed",
            "body passed",
            "status passed",
            "headers passed",
            "status passed",
            "body passed",
            "status passed",
            "body failed",
            "status failed",
            "body skipped",
            "status failed",
            "body skipped",
            "status error",
        ],
    )
    .await;
}

#[tokio::test]
async fn ports_and_addresses_are_found_while_something_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    check(
        &format!(
            "port:
  tcp:{port}: {{listening: true, ip: [127.0.0.1]}}
  all: {{port: 'tcp:{port}', listening: true, ip: {{consist-of: [127.0.0.1]}}}}
  udp:{port}: {{listening: false, ip: [0.0.0.0]}}
addr:
  tcp://127.0.0.1:{port}: {{reachable: true, timeout: 30000}}
  tcp://127.0.0.1:1: {{reachable: false}}
"
        ),
        &[
            "listening passed",
            "ip passed",
            "listening passed",
            "ip passed",
            "listening passed",
            "ip skipped",
            "reachable passed",
            "reachable passed",
        ],
    )
    .await;
}

/// A DNS server with the records of one zone; gives its port.
async fn serve_dns() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    port
}

/// Names as the wire has them.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| std::iter::once(u8::try_from(label.len()).unwrap()).chain(label.bytes())).collect();
    bytes.push(0);
    bytes
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + query.get(12..)?.iter().position(|&byte| byte == 0)? + 1;
    let question = query.get(12..end + 4)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let name = question[..question.len() - 4].to_ascii_lowercase();
    let prefixed = |number: u16, name: &str| [&number.to_be_bytes()[..], &wire(name)].concat();
    let text = |text: &str| std::iter::once(u8::try_from(text.len()).unwrap()).chain(text.bytes()).collect::<Vec<u8>>();
    let records: Vec<Vec<u8>> = if name == wire("www.test") {
        match kind {
            1 => vec![Ipv4Addr::new(192, 0, 2, 2).octets().to_vec(), Ipv4Addr::new(192, 0, 2, 1).octets().to_vec()],
            28 => vec!["2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec()],
            5 => vec![wire("real.test")],
            2 => vec![wire("ns.test")],
            15 => vec![prefixed(10, "mail.test")],
            16 => vec![[text("v=spf1"), text("-all")].concat()],
            33 => vec![[&[0, 1, 0, 2][..], &prefixed(443, "real.test")].concat()],
            257 => vec![[&[128, 5][..], b"issueca.test"].concat()],
            _ => Vec::new(),
        }
    } else if name == wire("1.2.0.192.in-addr.arpa") && kind == 12 {
        vec![wire("www.test")]
    } else if name == wire("silent.test") {
        return None;
    } else {
        Vec::new()
    };
    let known = !records.is_empty() || name == wire("www.test");
    let mut answer = query[..2].to_vec();
    answer.extend([0x85, if known { 0x80 } else { 0x83 }, 0, 1]);
    answer.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    answer.extend([0, 0, 0, 0]);
    answer.extend(question);
    for record in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        answer.extend(record);
    }
    Some(answer)
}

#[tokio::test]
async fn names_are_resolved_by_the_server_that_is_named() {
    let port = serve_dns().await;
    let server = format!("server: '127.0.0.1:{port}', timeout: 20000");
    check(
        &format!(
            "dns:
  www.test: {{resolvable: true, addrs: {{consist-of: [192.0.2.1, 192.0.2.2, '2001:db8::1']}}, {server}}}
  A:www.test: {{resolvable: true, addrs: {{equal: [192.0.2.1, 192.0.2.2]}}, {server}}}
  AAAA:www.test: {{resolvable: true, addrs: ['2001:db8::1'], {server}}}
  CNAME:www.test: {{resolvable: true, addrs: [real.test.], {server}}}
  NS:www.test: {{resolvable: true, addrs: [ns.test.], {server}}}
  MX:www.test: {{resolvable: true, addrs: [10 mail.test.], {server}}}
  TXT:www.test: {{resolvable: true, addrs: [v=spf1, -all], {server}}}
  SRV:www.test: {{resolvable: true, addrs: [1 2 443 real.test.], {server}}}
  CAA:www.test: {{resolvable: true, addrs: [128 issue ca.test], {server}}}
  PTR:192.0.2.1: {{resolvable: true, addrs: [www.test.], {server}}}
  missing.test: {{resolvable: false, addrs: [x], {server}}}
  MX:missing.test: {{resolveable: false, {server}}}
  silent.test: {{resolvable: true, server: '127.0.0.1:{port}', timeout: 300}}
  XYZ:www.test: {{resolvable: true, {server}}}
  localhost: {{resolvable: true, addrs: [127.0.0.1], timeout: 20000}}
"
        ),
        &[
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs passed",
            "resolvable passed",
            "addrs skipped",
            "resolveable passed",
            "resolvable failed",
            "resolvable error",
            "resolvable passed",
            "addrs passed",
        ],
    )
    .await;
}
