//! What a user names as SOURCE: a Git URL, a directory, an artifact file or `oci://REF`.
//!
//! Pure text: whether anything is there is found out elsewhere. Credentials inside a URL are split off at once and no
//! text made here shows them. Addresses that could become options of another program are refused.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::digest::Digest;

/// A SOURCE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A repository behind a URL.
    Git(GitUrl),
    /// A directory: a bare repository, a working tree or a plain folder.
    Directory(PathBuf),
    /// An artifact file (`*.db`).
    Artifact(PathBuf),
    /// An artifact in a registry: what follows `oci://`.
    Oci(String),
}

/// Why a text is no SOURCE; the texts never quote credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    /// Nothing at all.
    #[error("the source is empty")]
    Empty,
    /// A line break, NUL or the like.
    #[error("the source contains a control character")]
    ControlCharacter,
    /// Longer than any honest address.
    #[error("the source is longer than 2048 characters")]
    TooLong,
    /// A scheme that is not spoken.
    #[error(
        "sources of the form \"{0}\" are not supported; use https://, http://, ssh://, file://, git@host:path, oci:// or a path"
    )]
    Scheme(String),
    /// Not a URL.
    #[error("the source is no valid URL: {0}")]
    Url(String),
    /// A URL without host or path.
    #[error("the URL \"{url}\" has no {part}")]
    Missing {
        /// The URL without credentials.
        url: String,
        /// What is missing.
        part: &'static str,
    },
    /// A host, user or path that another program would read as an option.
    #[error("the {part} of the source begins with a hyphen")]
    LooksLikeOption {
        /// Which part.
        part: &'static str,
    },
    /// A host, user or path with characters that no real one has.
    #[error("the {part} of the source has characters that are not allowed in it")]
    Characters {
        /// Which part.
        part: &'static str,
    },
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Smart HTTP over TLS.
    Https,
    /// Smart HTTP without TLS.
    Http,
    /// SSH.
    Ssh,
    /// A repository on this machine.
    File,
}

/// User and password that stood in a URL; never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UrlCredentials {
    /// The user name, decoded.
    pub user: String,
    /// The password, decoded.
    pub password: String,
}

impl fmt::Debug for UrlCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlCredentials(…)")
    }
}

/// The address of a Git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    scheme: Scheme,
    address: String,
    credentials: Option<UrlCredentials>,
}

impl Source {
    /// Reads a SOURCE as users write it.
    pub fn parse(text: &str) -> Result<Self, InvalidSource> {
        if text.is_empty() {
            return Err(InvalidSource::Empty);
        }
        if text.len() > 2048 {
            return Err(InvalidSource::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidSource::ControlCharacter);
        }
        if let Some(reference) = text.strip_prefix("oci://") {
            return match reference {
                "" => Err(InvalidSource::Missing { url: "oci://".to_owned(), part: "reference" }),
                _ if reference.starts_with('-') => Err(InvalidSource::LooksLikeOption { part: "reference" }),
                _ => Ok(Self::Oci(reference.to_owned())),
            };
        }
        if text.contains("://") || is_scp_like(text) {
            return GitUrl::parse(text).map(Self::Git);
        }
        if text.contains("::") && !text.starts_with(['.', '/']) {
            // Git would run a program named by what stands before the colons.
            return Err(InvalidSource::Scheme(format!("{}::", text.split("::").next().unwrap_or_default())));
        }
        let path = PathBuf::from(text);
        match path.extension() {
            Some(extension) if extension == "db" && !text.ends_with('/') => Ok(Self::Artifact(path)),
            _ => Ok(Self::Directory(path)),
        }
    }

    /// The text that may be shown, stored and hashed: no credentials.
    #[must_use]
    pub fn without_credentials(&self) -> String {
        match self {
            Self::Git(url) => url.to_string(),
            Self::Directory(path) | Self::Artifact(path) => path.display().to_string(),
            Self::Oci(reference) => format!("oci://{reference}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_credentials())
    }
}

/// `[user@]host:path`: a colon before the first slash, as Git decides it.
fn is_scp_like(text: &str) -> bool {
    !text.contains("::")
        && match (text.find(':'), text.find('/')) {
            (Some(colon), slash) => colon > 0 && slash.is_none_or(|slash| colon < slash),
            _ => false,
        }
}

impl GitUrl {
    /// Reads the URL of a repository.
    pub fn parse(text: &str) -> Result<Self, InvalidSource> {
        if text.chars().any(char::is_control) {
            return Err(InvalidSource::ControlCharacter);
        }
        if text.contains("://") { Self::parse_url(text) } else { Self::parse_scp(text) }
    }

    /// The address of a repository on this machine, by its absolute path.
    pub fn from_path(path: &str) -> Result<Self, InvalidSource> {
        if path.chars().any(char::is_control) {
            return Err(InvalidSource::ControlCharacter);
        }
        if !path.starts_with('/') {
            return Err(InvalidSource::Missing { url: format!("file://{path}"), part: "absolute path" });
        }
        Ok(Self { scheme: Scheme::File, address: format!("file://{path}"), credentials: None })
    }

    fn parse_url(text: &str) -> Result<Self, InvalidSource> {
        let scheme = text.split("://").next().unwrap_or_default();
        if scheme.eq_ignore_ascii_case("file") {
            let path = &text["file://".len()..];
            return Self::from_path(
                path.strip_prefix("localhost").filter(|rest| rest.starts_with('/')).unwrap_or(path),
            );
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
            other => return Err(InvalidSource::Scheme(format!("{}://", other.chars().take(20).collect::<String>()))),
        };
        // The parser's message names a rule and never the text.
        let mut url = Url::parse(text).map_err(|error| InvalidSource::Url(error.to_string()))?;
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let user = decode(url.username());
        let password = url.password().map(decode);
        let not_allowed = InvalidSource::Characters { part: "user name" };
        if user.chars().any(char::is_control) || password.iter().any(|text| text.chars().any(char::is_control)) {
            return Err(not_allowed);
        }
        check_part("user name", &user)?;
        check_part("host", &url.host_str().map(decode).unwrap_or_default())?;
        check_part("path", decode(url.path()).trim_start_matches('/'))?;
        url.set_password(None).map_err(|()| InvalidSource::Url("no host".to_owned()))?;
        if scheme != Scheme::Ssh {
            // Over HTTP the user name alone may be a token.
            url.set_username("").map_err(|()| InvalidSource::Url("no host".to_owned()))?;
        }
        url.set_query(None);
        url.set_fragment(None);
        let address = url.as_str().trim_end_matches('/').to_owned();
        let missing = |part| Err(InvalidSource::Missing { url: address.clone(), part });
        if url.host_str().is_none_or(str::is_empty) {
            return missing("host");
        }
        if url.path().trim_matches('/').is_empty() {
            return missing("path");
        }
        let credentials = match (scheme, user, password) {
            (Scheme::Https | Scheme::Http, user, password) if !user.is_empty() || password.is_some() => {
                Some(UrlCredentials { user, password: password.unwrap_or_default() })
            }
            _ => None,
        };
        Ok(Self { scheme, address, credentials })
    }

    fn parse_scp(text: &str) -> Result<Self, InvalidSource> {
        let missing = |part| InvalidSource::Missing { url: text.to_owned(), part };
        let (authority, path) = text.split_once(':').ok_or_else(|| missing("host"))?;
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        check_part("user name", user)?;
        check_part("host", host)?;
        check_part("path", path)?;
        if host.is_empty() {
            return Err(missing("host"));
        }
        if path.trim_matches('/').is_empty() {
            return Err(missing("path"));
        }
        if user.contains(':') {
            // A password has no place here, and showing it would leak it.
            return Err(InvalidSource::Characters { part: "user name" });
        }
        Ok(Self { scheme: Scheme::Ssh, address: text.trim_end_matches('/').to_owned(), credentials: None })
    }

    /// How the repository is reached.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The address without credentials, as it is given to Git.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The path of a repository on this machine.
    #[must_use]
    pub fn local_path(&self) -> Option<&str> {
        self.address.strip_prefix("file://").filter(|_| self.scheme == Scheme::File)
    }

    /// The credentials that stood in the URL.
    #[must_use]
    pub fn credentials(&self) -> Option<&UrlCredentials> {
        self.credentials.as_ref()
    }

    /// The name of the repository's mirror: hex digits of the address without credentials.
    #[must_use]
    pub fn mirror_name(&self) -> String {
        Digest::of(self.address.as_bytes()).hex()[..32].to_owned()
    }
}

/// The address without credentials.
impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// Refuses what `ssh` or `git` could take for an option or a second argument.
fn check_part(part: &'static str, text: &str) -> Result<(), InvalidSource> {
    if text.starts_with('-') {
        return Err(InvalidSource::LooksLikeOption { part });
    }
    let forbidden = |c: char| {
        c.is_control()
            || match part {
                "path" => matches!(c, '\'' | '"' | '`' | '$' | ';' | '|' | '<' | '>' | '\\'),
                "host" => !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']')),
                _ => c.is_whitespace() || matches!(c, '\'' | '`' | '"' | ';' | '|' | '<' | '>'),
            }
    };
    if text.chars().any(forbidden) {
        return Err(InvalidSource::Characters { part });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match Source::parse(text) {
            Ok(Source::Git(url)) => format!("git {:?} {url}", url.scheme()),
            Ok(Source::Directory(path)) => format!("directory {}", path.display()),
            Ok(Source::Artifact(path)) => format!("artifact {}", path.display()),
            Ok(Source::Oci(reference)) => format!("oci {reference}"),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn every_form_of_a_source_is_recognised() {
        check("https://host/team/a.git", "git Https https://host/team/a.git");
        check("HTTPS://Host:8443/a/", "git Https https://host:8443/a");
        check("http://127.0.0.1:8080/a.git", "git Http http://127.0.0.1:8080/a.git");
        check("ssh://git@host:2222/a.git", "git Ssh ssh://git@host:2222/a.git");
        check("git@host:team/a.git", "git Ssh git@host:team/a.git");
        check("file:///srv/a.git", "git File file:///srv/a.git");
        check("file://localhost/srv/a.git", "git File file:///srv/a.git");
        check("workshops", "directory workshops");
        check("./a:b", "directory ./a:b");
        check("/srv/x.db/", "directory /srv/x.db/");
        check("out/first.db", "artifact out/first.db");
        check("oci://registry/team/a:v1", "oci registry/team/a:v1");
    }

    #[test]
    fn credentials_are_split_off_and_never_shown() {
        let Ok(Source::Git(url)) = Source::parse("https://me:p%40ss@host/a.git") else { panic!("no git url") };
        assert_eq!(url.credentials(), Some(&UrlCredentials { user: "me".into(), password: "p@ss".into() }));
        assert_eq!(url.to_string(), "https://host/a.git");
        let debug = format!("{url:?}");
        assert!(!debug.contains("p@ss") && !debug.contains("p%40ss"), "{debug}");
        let Ok(Source::Git(token)) = Source::parse("https://ghp_secret@host/a.git") else { panic!("no git url") };
        assert!(!format!("{token} {token:?}").contains("ghp_secret"));
        assert_eq!(url.mirror_name(), GitUrl::parse("https://host/a.git").unwrap().mirror_name());
    }

    #[test]
    fn addresses_that_could_become_options_are_refused() {
        check("ssh://-oProxyCommand=evil/x", "error: the host of the source begins with a hyphen");
        check("ssh://-oProxyCommand%3Devil/x", "error: the host of the source begins with a hyphen");
        check("ssh://-oProxyCommand=x@host/x", "error: the user name of the source begins with a hyphen");
        check("-oProxyCommand=evil:x", "error: the host of the source begins with a hyphen");
        check("host:-x", "error: the path of the source begins with a hyphen");
        check("ssh://host/-x", "error: the path of the source begins with a hyphen");
        check("ssh://host/x';id;'", "error: the path of the source has characters that are not allowed in it");
        check("https://host/a\nb", "error: the source contains a control character");
        check("ssh://host/a%0ab", "error: the path of the source has characters that are not allowed in it");
    }

    #[test]
    fn unknown_and_incomplete_addresses_are_refused() {
        check("", "error: the source is empty");
        check("https://host", "error: the URL \"https://host\" has no path");
        check("oci://", "error: the URL \"oci://\" has no reference");
        check("file://relative", "error: the URL \"file://relative\" has no absolute path");
        let unsupported = |form| {
            format!(
                "error: sources of the form \"{form}\" are not supported; \
                 use https://, http://, ssh://, file://, git@host:path, oci:// or a path"
            )
        };
        check("git://host/a", &unsupported("git://"));
        check("ext::sh -c id", &unsupported("ext::"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = Source::parse(&text);
            let _ = super::super::revision::split_revision(&text);
        }

        #[test]
        fn a_shown_git_url_reads_back_as_itself(host in "[a-z]{1,8}", path in "[a-z]{1,8}(/[a-z.]{1,8}[a-z])?", secret in "[a-z0-9]{8,12}") {
            let url = GitUrl::parse(&format!("https://user:{secret}@{host}.test/{path}")).unwrap();
            prop_assert_eq!(GitUrl::parse(&url.to_string()).unwrap().to_string(), url.to_string());
        }
    }
}
