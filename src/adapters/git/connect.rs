//! Opening a connection to a repository: options, credentials and limits of time.
//!
//! Credentials go into headers of our own or into files that only we can read; nothing is asked of the user.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use base64::Engine as _;
use gix::protocol::transport::client::blocking_io::http;
use gix::remote::Direction;

use super::error::{GitError, Problem};
use crate::domain::source::{GitUrl, Scheme};

/// What a private repository is opened with; never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user name for HTTP.
    pub username: Option<String>,
    /// The password or token for HTTP.
    pub password: Option<String>,
    /// A token that goes into `Authorization: Bearer`.
    pub bearer_token: Option<String>,
    /// The private key for SSH, in OpenSSH's format.
    pub identity: Option<String>,
    /// The lines of `known_hosts` that are accepted for SSH.
    pub known_hosts: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// Reads the keys of a secret: `username`, `password`, `bearerToken`, `identity`, `known_hosts`.
    pub fn from_secret(read: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            username: read("username"),
            password: read("password"),
            bearer_token: read("bearerToken"),
            identity: read("identity"),
            known_hosts: read("known_hosts"),
        }
    }
}

/// Everything that a connection needs besides the repository; holds the key files while it lives.
pub(super) struct Access {
    /// Settings for gix, in the form of `git -c`.
    pub overrides: Vec<String>,
    _files: Option<tempfile::TempDir>,
}

impl Access {
    /// Turns credentials into settings; a URL's own are used where the secret has none.
    pub fn new(url: &GitUrl, credentials: &Credentials) -> Result<Self, GitError> {
        let mut overrides = vec![
            format!("gitoxide.userAgent=workshop/{}", env!("CARGO_PKG_VERSION")),
            "protocol.version=2".to_owned(),
            "clone.rejectShallow=true".to_owned(),
            "pack.threads=1".to_owned(),
        ];
        let mut files = None;
        match url.scheme() {
            Scheme::Https | Scheme::Http => overrides.extend(authorization(url, credentials)?),
            Scheme::Ssh => {
                let (command, directory) = ssh_command(url, credentials)?;
                overrides.push(format!("core.sshCommand={command}"));
                files = directory;
            }
            Scheme::File => {}
        }
        Ok(Self { overrides, _files: files })
    }

    /// Options that let gix see nothing but the mirror and these settings.
    pub fn options(&self) -> gix::open::Options {
        gix::open::Options::isolated().config_overrides(self.overrides.iter().map(String::as_str))
    }
}

/// The header that proves who we are. It is sent at once: asking first would cost a request at every poll.
fn authorization(url: &GitUrl, credentials: &Credentials) -> Result<Option<String>, GitError> {
    let value = if let Some(token) = &credentials.bearer_token {
        Some(format!("Bearer {}", token.trim()))
    } else {
        let own = url.credentials();
        let user = credentials.username.clone().or_else(|| own.map(|own| own.user.clone()));
        let password = credentials.password.clone().or_else(|| own.map(|own| own.password.clone()));
        (user.is_some() || password.is_some()).then(|| {
            let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        })
    };
    let Some(value) = value else { return Ok(None) };
    if value.chars().any(char::is_control) {
        return Err(GitError::new(url.address(), Problem::InvalidCredentials("a token has a line break in it")));
    }
    if url.scheme() == Scheme::Http && !is_loopback(url.address()) {
        return Err(GitError::new(url.address(), Problem::PlainCredentials));
    }
    Ok(Some(format!("http.extraHeader=Authorization: {value}")))
}

fn is_loopback(address: &str) -> bool {
    match url::Url::parse(address).ok().as_ref().and_then(url::Url::host) {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The ssh program with files for key and known hosts; without a key the user's own set-up is used.
fn ssh_command(url: &GitUrl, credentials: &Credentials) -> Result<(String, Option<tempfile::TempDir>), GitError> {
    let mut command = "ssh -o BatchMode=yes -o ConnectTimeout=20".to_owned();
    if credentials.identity.is_none() && credentials.known_hosts.is_none() {
        return Ok((command, None));
    }
    let failed = |error: std::io::Error| GitError::mirror(url.address(), "write the key files beside", error);
    let directory = tempfile::Builder::new().prefix("workshop-ssh-").tempdir().map_err(failed)?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    // The command is split at spaces again, so the path must need no quoting.
    let path = directory
        .path()
        .to_str()
        .filter(|path| path.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-')));
    let Some(path) = path else {
        return Err(GitError::new(
            url.address(),
            Problem::InvalidCredentials("the directory for temporary files has special characters in its name"),
        ));
    };
    let write = |name: &str, text: &str| -> Result<(), GitError> {
        let mut builder = tempfile::Builder::new();
        let mut file = builder
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(directory.path())
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        // OpenSSH refuses a key without its last line break.
        if !text.ends_with('\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        file.persist(directory.path().join(name)).map_err(|error| failed(error.error))?;
        Ok(())
    };
    if let Some(identity) = &credentials.identity {
        write("identity", identity)?;
        command.push_str(&format!(" -o IdentitiesOnly=yes -i {path}/identity"));
    }
    if let Some(known_hosts) = &credentials.known_hosts {
        write("known_hosts", known_hosts)?;
        command.push_str(&format!(
            " -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile={path}/known_hosts"
        ));
    }
    Ok((command, Some(directory)))
}

/// A connection of gix.
pub(super) type Connection<'remote, 'repo> = gix::remote::Connection<
    'remote,
    'static,
    'repo,
    Box<dyn gix::protocol::transport::client::blocking_io::Transport + Send>,
>;

/// Connects `remote`, giving up on any single request after `limit`.
pub(super) fn connect<'remote, 'repo>(
    repository: &gix::Repository,
    remote: &'remote gix::Remote<'repo>,
    limit: Duration,
) -> Result<Connection<'remote, 'repo>, gix::Error> {
    let mut connection = remote.connect(Direction::Fetch)?;
    // Without a closure gix would ask the terminal after a 401.
    connection.set_credentials(|_| Ok(None));
    let url = remote.url(Direction::Fetch).map(|url| url.to_bstring()).unwrap_or_default();
    if let Some(mut options) = repository.transport_options(url.as_slice(), None)? {
        if let Some(options) = options.downcast_mut::<http::Options>() {
            let backend = http::reqwest::Options {
                configure_client: Some(Box::new(move |client| {
                    Ok(client.timeout(limit).connect_timeout(limit.min(Duration::from_secs(20))))
                })),
                configure_request: None,
            };
            options.backend = Some(std::sync::Arc::new(std::sync::Mutex::new(backend)));
        }
        connection.set_transport_options(options);
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(url: &str, credentials: &Credentials) -> Result<Vec<String>, String> {
        let url = GitUrl::parse(url).unwrap();
        Access::new(&url, credentials).map(|access| access.overrides).map_err(|error| error.to_string())
    }

    fn header(url: &str, credentials: &Credentials) -> Option<String> {
        access(url, credentials).unwrap().into_iter().find(|setting| setting.starts_with("http.extraHeader"))
    }

    #[test]
    fn credentials_become_a_header_and_a_secret_wins_over_the_url() {
        let none = Credentials::default();
        assert_eq!(header("https://host/a", &none), None);
        assert_eq!(
            header("https://me:pw@host/a", &none).as_deref(),
            Some("http.extraHeader=Authorization: Basic bWU6cHc=")
        );
        let secret = Credentials { bearer_token: Some("abc\n".into()), ..none };
        assert_eq!(
            header("https://me:pw@host/a", &secret).as_deref(),
            Some("http.extraHeader=Authorization: Bearer abc")
        );
        assert_eq!(format!("{secret:?}"), "Credentials(…)");
    }

    #[test]
    fn credentials_never_travel_in_clear_text_to_another_machine() {
        let secret = Credentials { password: Some("pw".into()), ..Credentials::default() };
        let refused = access("http://example.test/a", &secret).unwrap_err();
        assert!(refused.starts_with("credentials are not sent over http://"), "{refused}");
        assert!(header("http://127.0.0.1:1/a", &secret).is_some());
    }

    #[test]
    fn key_files_are_readable_by_us_alone_and_vanish() {
        let secret =
            Credentials { identity: Some("key".into()), known_hosts: Some("h k".into()), ..Default::default() };
        let (command, directory) = ssh_command(&GitUrl::parse("git@host:a").unwrap(), &secret).unwrap();
        let path = directory.as_ref().unwrap().path().to_owned();
        for name in ["identity", "known_hosts"] {
            assert_eq!(std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(command.contains(path.join(name).to_str().unwrap()), "{command}");
        }
        drop(directory);
        assert!(!path.exists());
    }
}
