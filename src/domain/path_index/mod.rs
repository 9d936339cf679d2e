//! What paths an image has, and where a file written to one of them must go in the next layer.
//!
//! Only names, kinds and link targets are kept: no contents, no attributes. Links are followed as they would be
//! inside of the image, whose root nothing leaves.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Bound;

use super::layer::{Entry, Kind, LayerReadError, Limits, read_entries};

mod encoding;
#[cfg(test)]
mod tests;

pub use encoding::InvalidIndex;

/// The most links that one look-up follows, as in Linux.
const MAX_LINKS: usize = 40;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    /// A file, device or anything else without entries below it.
    Leaf,
    Link(Box<[u8]>),
}

/// The tree of an image by path; directories that only their content implies are in it too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathIndex {
    nodes: BTreeMap<Box<[u8]>, Node>,
}

/// Where something belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The real path from the root, without a leading slash; empty for the root itself.
    pub path: String,
    /// The parent directories that do not exist yet, outermost first.
    pub missing: Vec<String>,
    /// True when something is there already (for a directory: when a directory is).
    pub exists: bool,
}

/// Why nothing can be written to a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A parent exists and is no directory.
    #[error("\"{path}\" cannot be written: \"{parent}\" is a file in the image")]
    ParentIsFile {
        /// The target.
        path: String,
        /// Its parent's real path.
        parent: String,
    },
    /// Links that go in a circle.
    #[error("\"{0}\" goes through more than {MAX_LINKS} links of the image")]
    TooManyLinks(String),
    /// A directory of the image has this name.
    #[error("\"{path}\" cannot be written: \"{directory}\" is a directory in the image")]
    IsDirectory {
        /// The target.
        path: String,
        /// Its real path.
        directory: String,
    },
    /// A link of the image leads to a name that is no text.
    #[error("\"{0}\" goes through a link of the image whose target is not valid UTF-8")]
    NotText(String),
}

impl PathIndex {
    /// Adds a layer in its tar form on top of what is there.
    pub fn add_layer(&mut self, tar: impl Read, limits: Limits) -> Result<(), LayerReadError> {
        let mut entries = Vec::new();
        read_entries::<LayerReadError>(tar, limits, |entry, _| {
            entries.push(Entry { xattrs: BTreeMap::new(), ..entry.clone() });
            Ok(())
        })?;
        self.add_entries(&entries);
        Ok(())
    }

    /// Adds a layer's entries on top of what is there. Removals concern what was there before, wherever they stand.
    pub fn add_entries(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry.kind {
                Kind::Whiteout => {
                    self.remove(&entry.path);
                }
                Kind::Opaque => self.remove_below(&entry.path),
                _ => {}
            }
        }
        for entry in entries {
            let node = match &entry.kind {
                Kind::Whiteout => continue,
                Kind::Opaque | Kind::Directory => Node::Directory,
                Kind::Symlink { target } => Node::Link(target.as_slice().into()),
                _ => Node::Leaf,
            };
            self.insert(&entry.path, node);
        }
    }

    fn insert(&mut self, path: &[u8], node: Node) {
        if path.is_empty() {
            return;
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            // As containerd does: a parent that is no directory is replaced by one.
            if self.nodes.get(&path[..at]) != Some(&Node::Directory) {
                self.nodes.insert(path[..at].into(), Node::Directory);
            }
        }
        if node != Node::Directory && self.nodes.get(path) == Some(&Node::Directory) {
            self.remove_below(path);
        }
        self.nodes.insert(path.into(), node);
    }

    fn remove(&mut self, path: &[u8]) {
        if self.nodes.remove(path) == Some(Node::Directory) {
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        if path.is_empty() {
            self.nodes.clear();
            return;
        }
        let prefix = [path, b"/"].concat();
        let below: Vec<_> = self
            .nodes
            .range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded))
            .take_while(|(below, _)| below.starts_with(&prefix))
            .map(|(below, _)| below.clone())
            .collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// The number of paths.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True for the index of an image without a file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a file or link for `target` (absolute or not) goes: links among its parents are followed, the last
    /// component is not (a link there is replaced). A directory there is an error.
    pub fn resolve(&self, target: &str) -> Result<Placement, PlaceError> {
        let placement = self.walk(target, false)?;
        if self.nodes.get(placement.path.as_bytes()) == Some(&Node::Directory) || placement.path.is_empty() {
            let directory = format!("/{}", placement.path);
            return Err(PlaceError::IsDirectory { path: target.to_owned(), directory });
        }
        Ok(placement)
    }

    /// Where a directory for `target` is or goes: a link that leads to a directory is followed at the end, too.
    pub fn resolve_directory(&self, target: &str) -> Result<Placement, PlaceError> {
        let placement = self.walk(target, true)?;
        match self.nodes.get(placement.path.as_bytes()) {
            Some(Node::Leaf | Node::Link(_)) => {
                Err(PlaceError::ParentIsFile { path: target.to_owned(), parent: format!("/{}", placement.path) })
            }
            _ => Ok(placement),
        }
    }

    fn walk(&self, target: &str, follow_last: bool) -> Result<Placement, PlaceError> {
        let mut pending: Vec<Box<[u8]>> = components(target.as_bytes()).rev().map(Into::into).collect();
        let mut real: Vec<u8> = Vec::new();
        let mut missing: Vec<usize> = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            if &*component == b".." {
                // The root's parent is the root.
                real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                missing.retain(|end| *end <= real.len());
                continue;
            }
            let before = real.len();
            if !real.is_empty() {
                real.push(b'/');
            }
            real.extend_from_slice(&component);
            let last = pending.is_empty();
            match self.nodes.get(real.as_slice()) {
                Some(Node::Link(to)) if !last || follow_last => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(PlaceError::TooManyLinks(target.to_owned()));
                    }
                    real.truncate(if to.starts_with(b"/") { 0 } else { before });
                    missing.retain(|end| *end <= real.len());
                    pending.extend(components(to).rev().map(Box::from));
                }
                Some(Node::Leaf) if !last => {
                    let parent = format!("/{}", String::from_utf8_lossy(&real));
                    return Err(PlaceError::ParentIsFile { path: target.to_owned(), parent });
                }
                None if !last => missing.push(real.len()),
                _ => {}
            }
        }
        let exists = real.is_empty() || self.nodes.contains_key(real.as_slice());
        let path = String::from_utf8(real).map_err(|_| PlaceError::NotText(target.to_owned()))?;
        let missing = missing.into_iter().filter(|end| *end < path.len()).map(|end| path[..end].to_owned()).collect();
        Ok(Placement { path, missing, exists })
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !matches!(*component, b"" | b"."))
}
