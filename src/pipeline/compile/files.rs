//! A step's files as the entries of a layer: each where the image below really has its directory.
//!
//! Pure. Only directories that do not exist are among the entries, because an entry would replace the attributes of one
//! that does.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use crate::domain::layer::{Entry, Kind, LayerBlob, LayerError, LayerWriter, Workers, order};
use crate::domain::path_index::{PathIndex, PlaceError};
use crate::domain::recipe::{ImageFile, ImageFileKind};

/// An entry with the bytes of a file.
type PlacedFile = (Entry, Option<Arc<[u8]>>);

/// Entries in the order of a layer, with the bytes of files.
pub type Placed = Vec<PlacedFile>;

/// Lays `files` (sorted by path, one entry per path) on an image of this tree.
pub fn place_files(files: &[ImageFile], index: &PathIndex) -> Result<Placed, PlaceError> {
    let mut placed: BTreeMap<String, PlacedFile> = BTreeMap::new();
    for file in files {
        let place = match file.kind {
            ImageFileKind::Directory => index.resolve_directory(&file.path)?,
            ImageFileKind::File(_) | ImageFileKind::Link(_) => index.resolve(&file.path)?,
        };
        for missing in &place.missing {
            placed.entry(missing.clone()).or_insert_with(|| (Entry::directory(missing, 0o755), None));
        }
        let (entry, bytes) = match &file.kind {
            ImageFileKind::Directory if place.exists => continue,
            ImageFileKind::Directory => (Entry::directory(&place.path, file.mode), None),
            ImageFileKind::File(bytes) => {
                (Entry::file(&place.path, file.mode, bytes.len() as u64), Some(Arc::clone(bytes)))
            }
            ImageFileKind::Link(target) => (Entry::symlink(&place.path, target), None),
        };
        placed.insert(place.path, (entry.owned_by(file.uid, file.gid), bytes));
    }
    // Paths that differ in the recipe may meet in the image, by its links.
    for path in placed.keys() {
        let mut above = path.match_indices('/').map(|(end, _)| &path[..end]);
        let is_file = |above: &&str| placed.get(*above).is_some_and(|(entry, _)| entry.kind != Kind::Directory);
        if let Some(parent) = above.find(is_file) {
            return Err(PlaceError::ParentIsFile { path: format!("/{path}"), parent: format!("/{parent}") });
        }
    }
    let mut placed: Placed = placed.into_values().collect();
    placed.sort_by(|left, right| order(&left.0, &right.0));
    Ok(placed)
}

/// Writes the layer of placed files.
pub fn write_layer<W: Write>(
    placed: &Placed,
    out: W,
    epoch: u64,
    workers: Workers,
) -> Result<(W, LayerBlob), LayerError> {
    let mut writer = LayerWriter::new(out, epoch, workers);
    for (entry, bytes) in placed {
        writer.append(entry, bytes.as_deref().unwrap_or_default())?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, kind: ImageFileKind, mode: u32, uid: u32) -> ImageFile {
        ImageFile { path: path.into(), kind, mode, uid, gid: uid }
    }

    fn text(path: &str) -> ImageFile {
        file(path, ImageFileKind::File(b"x"[..].into()), 0o644, 7)
    }

    fn listing(files: &[ImageFile], tree: &[Entry]) -> Result<Vec<String>, PlaceError> {
        let mut index = PathIndex::default();
        index.add_entries(tree);
        let placed = place_files(files, &index)?;
        write_layer(&placed, Vec::new(), 0, Workers::Here).unwrap();
        Ok(placed.iter().map(|(entry, _)| format!("{} {:o} {}", entry.display_path(), entry.mode, entry.uid)).collect())
    }

    #[test]
    fn files_land_where_the_image_has_their_directories() {
        let merged =
            [Entry::directory("usr/sbin", 0o755), Entry::symlink("sbin", "usr/sbin"), Entry::directory("tmp", 0o1777)];
        let directory = |path: &str| file(path, ImageFileKind::Directory, 0o755, 7);
        let link = |path: &str| file(path, ImageFileKind::Link("x".into()), 0o777, 7);
        let rows: [(Vec<ImageFile>, &[&str]); 6] = [
            (vec![text("/sbin/tool")], &["/usr/sbin/tool 644 7"]),
            (vec![text("/tmp/a")], &["/tmp/a 644 7"]),
            (vec![text("/a/b/c"), text("/a/d")], &["/a 755 0", "/a/b 755 0", "/a/b/c 644 7", "/a/d 644 7"]),
            (vec![directory("/opt"), text("/opt/x")], &["/opt 755 7", "/opt/x 644 7"]),
            (vec![directory("/tmp"), text("/tmp/x")], &["/tmp/x 644 7"]),
            (vec![link("/sbin/l")], &["/usr/sbin/l 777 7"]),
        ];
        for (files, expected) in rows {
            assert_eq!(listing(&files, &merged).unwrap(), expected);
        }
    }

    #[test]
    fn two_names_of_one_directory_do_not_make_a_file_with_something_below_it() {
        let merged = [Entry::directory("usr/bin", 0o755), Entry::symlink("bin", "usr/bin")];
        let link = file("/usr/bin/x", ImageFileKind::Link("/etc".into()), 0o777, 0);
        for files in [vec![text("/bin/x/y"), link], vec![text("/bin/x"), text("/usr/bin/x/y")]] {
            let error = listing(&files, &merged).unwrap_err().to_string();
            assert!(error.contains("\"/usr/bin/x/y\"") && error.contains("\"/usr/bin/x\""), "{error}");
        }
    }

    #[test]
    fn one_real_path_is_written_once() {
        let merged = [Entry::directory("usr/bin", 0o755), Entry::symlink("bin", "usr/bin")];
        assert_eq!(listing(&[text("/bin/x"), text("/usr/bin/x")], &merged).unwrap(), ["/usr/bin/x 644 7"]);
    }

    #[test]
    fn a_file_never_replaces_a_directory_nor_the_other_way_round() {
        let tree = [Entry::directory("etc", 0o755), Entry::file("etc/passwd", 0o644, 1)];
        for path in ["/etc", "/etc/passwd/x"] {
            assert!(listing(&[text(path)], &tree).is_err(), "{path}");
        }
    }
}
