//! References to images: where a workshop's step images go, and what its first step is built on.
//!
//! Which bytes a reference stands for is found out elsewhere.

use std::fmt;

use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};

/// The registry of references that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// Why a text is no reference; reads as the rest of a sentence that begins with the quoted text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" {reason}")]
pub struct InvalidReference {
    /// The refused text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidReference {
    fn new(text: &str, reason: impl Into<String>) -> Self {
        Self { text: text.to_owned(), reason: reason.into() }
    }
}

/// The image repository of a workshop (`workshop.image`), to which the step ids are appended as tags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    registry: Option<String>,
    repository: String,
}

impl ImageName {
    /// Reads `[REGISTRY/]REPOSITORY`; the first component is a registry when it has a `.` or `:` or is `localhost`.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.contains('@') {
            return Err(InvalidReference::new(text, "has a digest; step ids are appended to it as tags"));
        }
        let (registry, repository) = match text.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, text),
        };
        if repository.contains(':') {
            return Err(InvalidReference::new(text, "has a tag; step ids are appended to it as tags"));
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidReference::new(text, "has capital letters, which no repository may have"));
        }
        // The longest tag is that of a step key; the grammar of the name is the distribution specification's.
        let reference = Reference::try_from(format!("{}/{repository}", registry.unwrap_or(DEFAULT_REGISTRY)));
        match reference {
            Ok(reference) if reference.digest().is_none() => {
                Ok(Self { registry: registry.map(str::to_owned), repository: repository.to_owned() })
            }
            Ok(_) => Err(InvalidReference::new(text, "is no image repository")),
            Err(error) => Err(InvalidReference::new(text, format!("is no image repository ({error})"))),
        }
    }

    /// The registry that the name itself carries.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The name without its registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `REGISTRY/REPOSITORY`: the name's own registry, else `registry` (a host with or without a path), else Docker
    /// Hub.
    #[must_use]
    pub fn full(&self, registry: Option<&str>) -> String {
        let prefix = self.registry().or(registry).unwrap_or(DEFAULT_REGISTRY).trim_end_matches('/');
        format!("{prefix}/{}", self.repository)
    }
}

fn is_registry(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.registry {
            Some(registry) => write!(f, "{registry}/{}", self.repository),
            None => f.write_str(&self.repository),
        }
    }
}

impl TryFrom<String> for ImageName {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        Self::parse(&text)
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.to_string()
    }
}

/// What the first step is built on (`base.image`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BaseImage {
    /// An image of a registry, with registry, repository and tag or digest written out:
    /// `docker.io/library/debian:bookworm`.
    Registry(String),
    /// An image in an OCI layout directory.
    OciLayout {
        /// The layout's directory.
        dir: String,
        /// The image's name in it; none where it holds one image only.
        tag: Option<String>,
    },
    /// An image in a tar file of an OCI layout.
    OciArchive {
        /// The tar file.
        file: String,
        /// The image's name in it; none where it holds one image only.
        tag: Option<String>,
    },
    /// An image in a file that `docker save` wrote.
    DockerArchive {
        /// The tar file.
        file: String,
    },
    /// Nothing at all.
    Scratch,
}

/// The transports of other tools that name places this program does not read from.
const FOREIGN_TRANSPORTS: [&str; 8] =
    ["docker-daemon", "containers-storage", "dir", "ostree", "sif", "tarball", "atomic", "http"];

impl BaseImage {
    /// Reads a reference with an optional transport; `docker://` is the default.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text == "scratch" {
            return Ok(Self::Scratch);
        }
        if let Some(reference) = text.strip_prefix("docker://") {
            return parse_registry(text, reference);
        }
        let Some((transport, rest)) = text.split_once(':') else {
            return parse_registry(text, text);
        };
        let missing = |what: &str| InvalidReference::new(text, format!("names no {what} after `{transport}:`"));
        match transport {
            "oci" | "oci-archive" => {
                let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag.to_owned())));
                if tag.as_deref() == Some("") {
                    return Err(InvalidReference::new(text, "ends with `:` without a tag"));
                }
                match (transport, path.to_owned()) {
                    ("oci", path) if path.is_empty() => Err(missing(&format!("directory{path}"))),
                    ("oci", dir) => Ok(Self::OciLayout { dir, tag }),
                    (_, path) if path.is_empty() => Err(missing("file")),
                    (_, file) => Ok(Self::OciArchive { file, tag }),
                }
            }
            "docker-archive" if rest.is_empty() => Err(missing("file")),
            "docker-archive" => Ok(Self::DockerArchive { file: rest.to_owned() }),
            _ if FOREIGN_TRANSPORTS.contains(&transport) || rest.starts_with("//") => Err(InvalidReference::new(
                text,
                "has a transport other than docker://, oci:, oci-archive: and docker-archive:",
            )),
            _ => parse_registry(text, text),
        }
    }

    /// The registry reference, for an image of a registry.
    #[must_use]
    pub fn registry_reference(&self) -> Option<&str> {
        match self {
            Self::Registry(reference) => Some(reference),
            _ => None,
        }
    }
}

fn parse_registry(text: &str, reference: &str) -> Result<BaseImage, InvalidReference> {
    Reference::try_from(reference)
        .map(|reference| BaseImage::Registry(reference.whole()))
        .map_err(|error| InvalidReference::new(text, format!("is no image reference ({error})")))
}

/// The canonical text, which reads back to the same value.
impl fmt::Display for BaseImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(reference),
            Self::OciLayout { dir: path, tag: None } => write!(f, "oci:{path}"),
            Self::OciLayout { dir: path, tag: Some(tag) } => write!(f, "oci:{path}:{tag}"),
            Self::OciArchive { file: path, tag: None } => write!(f, "oci-archive:{path}"),
            Self::OciArchive { file: path, tag: Some(tag) } => write!(f, "oci-archive:{path}:{tag}"),
            Self::DockerArchive { file } => write!(f, "docker-archive:{file}"),
            Self::Scratch => f.write_str("scratch"),
        }
    }
}

impl TryFrom<String> for BaseImage {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        Self::parse(&text)
    }
}

impl From<BaseImage> for String {
    fn from(base: BaseImage) -> Self {
        base.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str, registry: Option<&str>) -> Result<String, String> {
        ImageName::parse(text).map(|name| name.full(registry)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_registry_is_put_before_names_that_carry_none() {
        for (text, registry, expected) in [
            ("team/first", None, "docker.io/team/first"),
            ("team/first", Some("127.0.0.1:5000"), "127.0.0.1:5000/team/first"),
            ("team/first", Some("ghcr.io/school/"), "ghcr.io/school/team/first"),
            ("localhost/first", Some("ghcr.io"), "localhost/first"),
            ("registry:5000/a/b", Some("ghcr.io"), "registry:5000/a/b"),
            ("quay.io/first", Some("ghcr.io"), "quay.io/first"),
            ("first", Some("ghcr.io"), "ghcr.io/first"),
        ] {
            assert_eq!(full(text, registry).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn image_names_without_room_for_a_tag_are_refused() {
        for (text, reason) in [
            ("", "is no image repository"),
            ("team/first:v1", "has a tag"),
            ("team/first@sha256:00", "has a digest"),
            ("Team/first", "has capital letters"),
            ("team//first", "is no image repository"),
            ("team/first/", "is no image repository"),
            ("a b", "is no image repository"),
            ("https://ghcr.io/a", "is no image repository"),
        ] {
            let error = full(text, None).expect_err(text);
            assert!(error.contains(reason), "{error}");
        }
    }

    fn base(text: &str, expected: Result<&str, &str>) {
        match (BaseImage::parse(text), expected) {
            (Ok(base), Ok(expected)) => {
                assert_eq!(base.to_string(), expected);
                assert_eq!(BaseImage::parse(expected), Ok(base));
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{text}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn bases_are_written_out_in_one_form() {
        base("scratch", Ok("scratch"));
        base("debian", Ok("docker.io/library/debian:latest"));
        base("debian:bookworm", Ok("docker.io/library/debian:bookworm"));
        base("docker://debian:bookworm", Ok("docker.io/library/debian:bookworm"));
        base("localhost:5000/a:1", Ok("localhost:5000/a:1"));
        let digest = "a".repeat(64);
        base(&format!("quay.io/a@sha256:{digest}"), Ok(&format!("quay.io/a@sha256:{digest}")));
        base("oci:images/base:v1", Ok("oci:images/base:v1"));
        base("oci:images/base", Ok("oci:images/base"));
        base("oci-archive:base.tar", Ok("oci-archive:base.tar"));
        base("docker-archive:base.tar", Ok("docker-archive:base.tar"));
    }

    #[test]
    fn bases_that_nothing_can_be_read_from_are_refused() {
        base("", Err("is no image reference"));
        base("oci:", Err("names no directory"));
        base("oci-archive:", Err("names no file"));
        base("docker-archive:", Err("names no file"));
        base("oci:dir:", Err("without a tag"));
        base("docker-daemon:debian:1", Err("transport"));
        base("https://ghcr.io/a", Err("transport"));
        base("Debian", Err("is no image reference"));
        base("debian@sha256:00", Err("is no image reference"));
    }

    proptest! {
        #[test]
        fn what_is_read_shows_as_a_text_that_reads_to_the_same(text in "(oci:|oci-archive:|docker://)?[a-z0-9./:@-]{0,30}") {
            if let Ok(base) = BaseImage::parse(&text) {
                prop_assert_eq!(BaseImage::parse(&base.to_string()), Ok(base));
            }
            if let Ok(name) = ImageName::parse(&text) {
                prop_assert_eq!(ImageName::parse(&name.to_string()), Ok(name));
            }
        }
    }
}
