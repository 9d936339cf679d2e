//! What can go wrong between us and a repository, told apart by what there is to do about it.
//!
//! Every message names the repository without credentials.

use std::error::Error;

/// A failure at the repository `url`.
#[derive(Debug, thiserror::Error)]
#[error("{problem} (repository {url})")]
pub struct GitError {
    /// The repository's address without credentials.
    pub url: String,
    /// What is wrong.
    pub problem: Problem,
    /// The underlying failure, as far as one exists.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// What is wrong at a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// 401: no credentials, or ones that are not accepted.
    #[error("the server asked for credentials or did not accept those given")]
    Unauthenticated,
    /// 403.
    #[error("the server refused access")]
    Forbidden,
    /// 404, or no repository at a path.
    #[error("there is no repository at this address")]
    NotFound,
    /// 429.
    #[error("the server asked to slow down")]
    TooManyRequests,
    /// No connection.
    #[error("could not reach the server")]
    Unreachable,
    /// TLS without a trusted certificate.
    #[error("the server's certificate is not trusted")]
    Certificate,
    /// SSH with another host key than the known one.
    #[error("the server's SSH host key is not known")]
    HostKey,
    /// No answer in time.
    #[error("no answer within {0} s")]
    Timeout(u64),
    /// Something the server or the connection did, which may pass.
    #[error("could not {0}")]
    Failed(&'static str),
    /// A repository without any commit.
    #[error("the repository is empty")]
    Empty,
    /// The followed name does not exist.
    #[error("there is no {0}")]
    MissingRef(String),
    /// No tag lies in the range.
    #[error("no tag is a version in the range \"{0}\"")]
    NoVersion(String),
    /// The server has no such commit, or none that it gives away.
    #[error("there is no commit {0}, or no branch or tag leads to it")]
    MissingCommit(String),
    /// The name stands for something else than a commit.
    #[error("{0} is no commit")]
    NoCommit(String),
    /// The text of the name is not valid.
    #[error("{0}")]
    InvalidRef(String),
    /// The repository uses SHA-256 object ids.
    #[error("the repository uses SHA-256 object ids, which are not supported")]
    Sha256,
    /// The repository itself is a shallow clone.
    #[error("the repository on the server is a shallow clone, its history is incomplete")]
    Shallow,
    /// Credentials would travel in clear text.
    #[error("credentials are not sent over http:// to another machine")]
    PlainCredentials,
    /// The credentials themselves cannot be used.
    #[error("the credentials cannot be used: {0}")]
    InvalidCredentials(&'static str),
    /// The mirror in the state directory cannot be used.
    #[error("could not {0} the mirror in the state directory")]
    Mirror(&'static str),
    /// More entries than any honest repository has.
    #[error("the commit has more than {0} files")]
    TooManyFiles(usize),
}

impl GitError {
    /// A failure without an underlying one.
    pub(super) fn new(url: &str, problem: Problem) -> Self {
        Self { url: url.to_owned(), problem, source: None }
    }

    /// A failure of our own mirror.
    pub(super) fn mirror(url: &str, what: &'static str, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { url: url.to_owned(), problem: Problem::Mirror(what), source: Some(error.into()) }
    }

    /// Finds out what a failure of gix while it tried to `attempted` means.
    pub(super) fn remote(url: &str, attempted: &'static str, error: gix::Error) -> Self {
        // The address must not be taken for a reason.
        let texts: Vec<String> = error.iter_errors().map(|error| error.to_string().replace(url, "…")).collect();
        let status = texts.iter().find_map(|text| text.split("HTTP status ").nth(1)?.get(..3)?.parse::<u16>().ok());
        let lower = texts.join("\n").to_lowercase();
        let says = |words: &[&str]| words.iter().any(|words| lower.contains(words));
        let problem = match status {
            Some(401) => Problem::Unauthenticated,
            Some(403) => Problem::Forbidden,
            Some(404 | 410) => Problem::NotFound,
            Some(429) => Problem::TooManyRequests,
            Some(_) => Problem::Failed(attempted),
            None if error.is_unauthenticated() || says(&["permission denied (publickey"]) => Problem::Unauthenticated,
            None if says(&["host key verification failed"]) => Problem::HostKey,
            None if says(&["invalid peer certificate"]) => Problem::Certificate,
            None if says(&["object format", "hash sized 64"]) => Problem::Sha256,
            None if says(&["shallow"]) => Problem::Shallow,
            None if says(&["valid git directory", "not appear to be a git repository", "repository not found"]) => {
                Problem::NotFound
            }
            None if error.is_permission_denied() => Problem::Forbidden,
            None if says(&[
                "(connect)",
                "connection refused",
                "resolve host",
                "no route",
                "network is unreachable",
            ]) =>
            {
                Problem::Unreachable
            }
            None => Problem::Failed(attempted),
        };
        Self { url: url.to_owned(), problem, source: Some(Box::new(Chain(texts.join(": ")))) }
    }

    /// True when the same attempt may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.problem {
            Problem::TooManyRequests
            | Problem::Unreachable
            | Problem::Timeout(_)
            | Problem::Failed(_)
            | Problem::Mirror(_)
            // Credentials are renewed, repositories are filled and names are pushed without us noticing.
            | Problem::Certificate
            | Problem::HostKey
            | Problem::Unauthenticated
            | Problem::Forbidden
            | Problem::NotFound
            | Problem::Empty
            | Problem::MissingRef(_)
            | Problem::NoVersion(_)
            | Problem::MissingCommit(_) => true,
            Problem::NoCommit(_)
            | Problem::InvalidRef(_)
            | Problem::Sha256
            | Problem::Shallow
            | Problem::PlainCredentials
            | Problem::InvalidCredentials(_)
            | Problem::TooManyFiles(_) => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self.problem {
            Problem::Unauthenticated => {
                "name a secret with valid credentials, and check that they may read the repository"
            }
            Problem::Forbidden => "give the credentials the right to read the repository",
            Problem::NotFound => "check the address; servers also answer so when credentials are missing",
            Problem::TooManyRequests => "poll less often; it is tried again later",
            Problem::Unreachable => "check the host name, the port and the network",
            Problem::Certificate => "check the host name and the certificate; SSL_CERT_FILE names other authorities",
            Problem::HostKey => "put the server's key into known_hosts of the secret",
            Problem::Timeout(_) => "check the server, or allow more time",
            Problem::Failed(_) => "it is tried again; if it stays so, look at the server",
            Problem::Empty => "push a first commit",
            Problem::MissingRef(_) => "push it, or follow another branch or tag",
            Problem::NoVersion(_) => "push a tag such as v1.0.0, or widen the range",
            Problem::MissingCommit(_) => "push it on some branch, and give all 40 digits of its id",
            Problem::NoCommit(_) => "follow a branch, or a tag of a commit",
            Problem::InvalidRef(_) => "correct the name",
            Problem::Sha256 => "use a repository with SHA-1 object ids",
            Problem::Shallow => "run git fetch --unshallow in the repository on the server",
            Problem::PlainCredentials => "use https:// or ssh://",
            Problem::InvalidCredentials(_) => "correct the secret",
            Problem::Mirror(_) => "check space and rights of the state directory; deleting its mirrors/ is safe",
            Problem::TooManyFiles(_) => "split the repository",
        }
    }
}

/// The texts of a chain of failures as one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Chain(String);
