//! Content keys: when two steps have the same key, their images have the same content.
//!
//! A key is made of what goes in (parent, files, environment, commands, options that change bytes), never of what comes
//! out, of the platform or of a name. Looking keys up is the pipeline's matter.

use super::digest::{Digest, FramedHasher};
use super::names::FORMAT_VERSION;
use super::recipe::{ImageFile, ImageFileKind};

/// The tag prefix of images named by their key.
pub const TAG_PREFIX: &str = "key-";

/// What a step lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The first step: the manifest digest of the base.
    Base(Digest),
    /// The key of the step before.
    Step(Digest),
}

/// Options of a build that change its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// The architecture in OCI's words, e.g. `amd64`.
    pub architecture: String,
    /// The time stamp that nothing in a layer is later than, in seconds since 1970.
    pub epoch: u64,
    /// The compression of layers.
    pub compression: &'static str,
}

/// The key of the content that `files` (sorted by path, one entry per path), `env` (sorted by name) and `commands` make
/// on top of `parent`.
#[must_use]
pub fn step_key(
    parent: Parent,
    files: &[ImageFile],
    env: &[(String, String)],
    commands: &[String],
    options: &BuildOptions,
) -> Digest {
    let mut hasher = FramedHasher::new("workshop.step");
    hasher.number(FORMAT_VERSION);
    match parent {
        Parent::Base(digest) => hasher.part("base").part(digest.to_string()),
        Parent::Step(key) => hasher.part("step").part(key.to_string()),
    };
    hasher.part(&options.architecture).number(options.epoch).part(options.compression);
    hasher.part(files_digest(files).to_string());
    // Each list is preceded by its length, so that an element never passes for one of the next list.
    hasher.number(env.len() as u64);
    for (name, value) in env {
        hasher.part(name).part(value);
    }
    hasher.number(commands.len() as u64);
    for command in commands {
        hasher.part(command);
    }
    hasher.finish()
}

/// The digest of files (sorted by path, one entry per path) with all that an image keeps of them.
#[must_use]
pub fn files_digest(files: &[ImageFile]) -> Digest {
    let mut hasher = FramedHasher::new("workshop.files");
    for file in files {
        hasher.part(&file.path).number(u64::from(file.mode)).number(u64::from(file.uid)).number(u64::from(file.gid));
        match &file.kind {
            ImageFileKind::Directory => hasher.part("directory"),
            ImageFileKind::File(bytes) => hasher.part("file").part(Digest::of(bytes).to_string()),
            ImageFileKind::Link(target) => hasher.part("link").part(target),
        };
    }
    hasher.finish()
}

/// The tag that names the image of a key: it never moves.
#[must_use]
pub fn key_tag(key: Digest) -> String {
    format!("{TAG_PREFIX}{}", &key.hex()[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> BuildOptions {
        BuildOptions { architecture: "amd64".into(), epoch: 0, compression: "gzip" }
    }

    fn file(path: &str, text: &str, mode: u32) -> ImageFile {
        ImageFile { path: path.into(), kind: ImageFileKind::File(text.as_bytes().into()), mode, uid: 0, gid: 0 }
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn base() -> Parent {
        Parent::Base(Digest::of(b"base"))
    }

    #[test]
    fn every_part_of_a_step_changes_its_key() {
        let plain = || (base(), vec![file("/a", "1", 0o644)], vec![pair("A", "1")], vec!["true".to_owned()], options());
        let keys: Vec<Digest> = [
            plain(),
            {
                let mut step = plain();
                step.0 = Parent::Base(Digest::of(b"other"));
                step
            },
            {
                let mut step = plain();
                step.0 = Parent::Step(Digest::of(b"base"));
                step
            },
            {
                let mut step = plain();
                step.1[0].path = "/b".into();
                step
            },
            {
                let mut step = plain();
                step.1[0].kind = ImageFileKind::File(b"2"[..].into());
                step
            },
            {
                let mut step = plain();
                step.1[0].kind = ImageFileKind::Link("1".into());
                step
            },
            {
                let mut step = plain();
                step.1[0].kind = ImageFileKind::Directory;
                step
            },
            {
                let mut step = plain();
                step.1[0].mode = 0o755;
                step
            },
            {
                let mut step = plain();
                step.1[0].uid = 1;
                step
            },
            {
                let mut step = plain();
                step.1[0].gid = 1;
                step
            },
            {
                let mut step = plain();
                step.1.clear();
                step
            },
            {
                let mut step = plain();
                step.2 = vec![pair("A", "2")];
                step
            },
            {
                let mut step = plain();
                step.2 = vec![pair("B", "1")];
                step
            },
            {
                let mut step = plain();
                step.2.clear();
                step
            },
            {
                let mut step = plain();
                step.3 = vec!["false".into()];
                step
            },
            {
                let mut step = plain();
                step.3.push("true".into());
                step
            },
            {
                let mut step = plain();
                step.3.clear();
                step
            },
            {
                let mut step = plain();
                step.4.architecture = "arm64".into();
                step
            },
            {
                let mut step = plain();
                step.4.epoch = 1;
                step
            },
            {
                let mut step = plain();
                step.4.compression = "zstd";
                step
            },
        ]
        .iter()
        .map(|(parent, files, env, commands, options)| step_key(*parent, files, env, commands, options))
        .collect();
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "row {index}");
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = |env: &[(String, String)], commands: &[&str]| {
            let commands: Vec<String> = commands.iter().map(|command| (*command).to_owned()).collect();
            step_key(base(), &[], env, &commands, &options())
        };
        assert_ne!(key(&[pair("A", "1=B")], &[]), key(&[pair("A=1", "B")], &[]));
        assert_ne!(key(&[pair("A", "B")], &[]), key(&[], &["A", "B"]));
        assert_ne!(key(&[], &["a", "b"]), key(&[], &["a\nb"]));
        assert_ne!(key(&[], &[""]), key(&[], &[]));
    }

    #[test]
    fn a_key_is_the_same_on_every_machine() {
        let key =
            step_key(base(), &[file("/etc/motd", "hello\n", 0o644)], &[pair("A", "1")], &["true".into()], &options());
        assert_eq!(key_tag(key), "key-c7d2e55a6ed81ed5f090e284b492c6fa");
        assert!(key_tag(key).len() <= 128);
    }

    #[test]
    fn an_empty_step_has_a_key_of_its_own() {
        let first = step_key(base(), &[], &[], &[], &options());
        assert_ne!(step_key(Parent::Step(first), &[], &[], &[], &options()), first);
    }
}
