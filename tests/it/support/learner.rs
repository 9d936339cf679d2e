//! A learner at the gateway, without a browser: cookies, the workspace's API, and the terminal as a ttyd client.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::local::PATIENCE;

/// Somebody with a browser's cookies at one gateway.
pub struct Learner {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    /// The gateway's address without a slash at its end.
    pub base: String,
    cookies: BTreeMap<String, String>,
}

/// What the gateway or a workspace answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Learner {
    /// Somebody without any cookie.
    pub fn stranger(base: &str) -> Self {
        // Another test may have installed it already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            client: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
            base: base.to_owned(),
            cookies: BTreeMap::new(),
        }
    }

    /// The owner of the machine, who opened the address that `up` printed.
    pub fn owner(address: &str) -> Self {
        let (base, key) = address.split_once("#key=").expect("an address with a key");
        let mut owner = Self::stranger(base.trim_end_matches('/'));
        let answer = owner.post("/session", &json!({ "key": key }));
        assert_eq!(answer.status, 204, "{answer:?}");
        owner
    }

    /// Somebody who opened the address of one workspace, with its token.
    pub fn holder(address: &str) -> Self {
        let (page, token) = address.split_once("#token=").expect("an address with a token");
        let (base, name) = page.trim_end_matches('/').split_once("/w/").expect("an address of a workspace");
        let mut holder = Self::stranger(base);
        let answer = holder.post(&format!("/w/{name}/session"), &json!({ "token": token }));
        assert_eq!(answer.status, 204, "{answer:?}");
        holder
    }

    /// Opens a workspace's page, as a click on it does.
    pub fn open(&mut self, name: &str) {
        let answer = self.get(&format!("/w/{name}/"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The cookies at hand, by name.
    pub fn cookies(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.cookies
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None)
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body))
    }

    /// Sends a request and keeps the cookies of the answer.
    pub fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).timeout(PATIENCE);
        if !self.cookies.is_empty() {
            request = request.header(COOKIE, self.cookie_header());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let (answer, cookies) = self.runtime.block_on(async {
            let response: Response = request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
            let status = response.status().as_u16();
            let cookies: Vec<String> = response
                .headers()
                .get_all(SET_COOKIE)
                .iter()
                .filter_map(|value| Some(value.to_str().ok()?.split(';').next()?.to_owned()))
                .collect();
            (Answer { status, text: response.text().await.unwrap_or_default() }, cookies)
        });
        for cookie in cookies {
            let (name, value) = cookie.split_once('=').expect("a cookie has a value");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    fn cookie_header(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Asks a workspace's API until it answers well: a switch or a restart may be under way.
    pub fn api(&mut self, name: &str, method: &Method, path: &str, body: Option<&Value>) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.send(method.clone(), &format!("/w/{name}/api/v1/{path}"), &[], body);
            if (200..300).contains(&answer.status) {
                return answer.json();
            }
            assert!(
                [502, 503, 504].contains(&answer.status) && Instant::now() < deadline,
                "{method} {path} of {name}: {answer:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types a line into the terminal and reads until `expected` comes.
    pub fn type_line(&mut self, name: &str, line: &str, expected: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline {
            match self.try_line(name, line, expected) {
                Ok(output) => return output,
                Err(output) => last = output,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("\"{line}\" in {name} never gave \"{expected}\": {last}");
    }

    fn try_line(&self, name: &str, line: &str, expected: &str) -> Result<String, String> {
        let address = format!("{}/w/{name}/ws", self.base.replacen("http", "ws", 1));
        let mut request = address.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("cookie", self.cookie_header().parse().unwrap());
        headers.insert("origin", self.base.parse().unwrap());
        headers.insert("sec-websocket-protocol", "tty".parse().unwrap());
        self.runtime.block_on(async {
            let (mut socket, _) =
                tokio_tungstenite::connect_async(request).await.map_err(|error| format!("no terminal: {error}"))?;
            let hello = json!({ "AuthToken": "", "columns": 120, "rows": 30 }).to_string();
            let broken = |error: tokio_tungstenite::tungstenite::Error| format!("the terminal broke off: {error}");
            socket.send(Message::binary(hello.into_bytes())).await.map_err(broken)?;
            socket.send(Message::binary(format!("0{line}\r").into_bytes())).await.map_err(broken)?;
            let mut output = String::new();
            let wait = async {
                while let Some(message) = socket.next().await {
                    let Ok(message) = message else { break };
                    let data = message.into_data();
                    if data.first() == Some(&b'0') {
                        output.push_str(&String::from_utf8_lossy(&data[1..]));
                    }
                    if output.contains(expected) {
                        return true;
                    }
                }
                false
            };
            let found = tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or(false);
            if found { Ok(output) } else { Err(output) }
        })
    }
}
