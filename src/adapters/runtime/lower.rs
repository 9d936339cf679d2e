//! Looking at the tree that a stack of unpacked layers makes, as overlay would show it, without mounting it.
//!
//! Read-only. Paths are relative to the root, without `.`, `..` or leading slash.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::xattr;

/// True for the entry by which an overlay layer hides a name of the layers below: character device 0:0.
pub fn is_whiteout(data: &Metadata) -> bool {
    data.file_type().is_char_device() && data.rdev() == 0
}

/// What one layer says about a path.
enum Found {
    /// It holds an entry there.
    Here(PathBuf, Metadata),
    /// It hides whatever lies below.
    Hidden,
    /// It says nothing; the layers below decide.
    Nothing,
}

fn look(layer: &Path, path: &Path) -> Found {
    let mut here = layer.to_owned();
    let mut opaque = false;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        here.push(component);
        let Ok(data) = fs::symlink_metadata(&here) else {
            return if opaque { Found::Hidden } else { Found::Nothing };
        };
        if is_whiteout(&data) {
            return Found::Hidden;
        }
        if components.peek().is_none() {
            return Found::Here(here, data);
        }
        if !data.is_dir() {
            return Found::Hidden;
        }
        opaque |= xattr::is_opaque(&here);
    }
    match fs::symlink_metadata(&here) {
        Ok(data) => Found::Here(here, data),
        Err(_) => Found::Nothing,
    }
}

/// The entry at `path`, links not followed; layers are given bottom first.
pub fn lookup(layers: &[PathBuf], path: &Path) -> Option<(PathBuf, Metadata)> {
    for layer in layers.iter().rev() {
        match look(layer, path) {
            Found::Here(place, data) => return Some((place, data)),
            Found::Hidden => return None,
            Found::Nothing => {}
        }
    }
    None
}

/// The names in the directory at `path`; empty where there is none.
pub fn names(layers: &[PathBuf], path: &Path) -> BTreeSet<OsString> {
    let mut names = BTreeSet::new();
    let mut hidden = BTreeSet::new();
    for layer in layers.iter().rev() {
        let (place, data) = match look(layer, path) {
            Found::Here(place, data) => (place, data),
            Found::Hidden => break,
            Found::Nothing => continue,
        };
        if !data.is_dir() {
            break;
        }
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if entry.metadata().is_ok_and(|data| is_whiteout(&data)) {
                hidden.insert(name);
            } else if !hidden.contains(&name) {
                names.insert(name);
            }
        }
        if xattr::is_opaque(&place) || covered_by_opaque(layer, path) {
            break;
        }
    }
    names
}

/// True when a directory above `path` is opaque in this layer, which hides all layers below for what is in it.
fn covered_by_opaque(layer: &Path, path: &Path) -> bool {
    path.ancestors().skip(1).any(|above| xattr::is_opaque(&layer.join(above)))
}
