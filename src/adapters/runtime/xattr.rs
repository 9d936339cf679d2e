//! Extended attributes of one file, links not followed.
//!
//! Which of them belong into a layer is decided here, because the kernel's own ones must never leave the machine.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lgetxattr_query, llistxattr, llistxattr_query, lsetxattr};
use rustix::io::Errno;

/// Marks a directory of an overlay layer that hides what the layers below have at its path.
pub const OPAQUE: &str = "trusted.overlay.opaque";

/// True for an attribute that a layer may carry.
pub fn belongs_into_layer(name: &[u8]) -> bool {
    !(name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") || name == b"security.selinux")
}

/// All attributes that a layer may carry.
pub fn read(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut attributes = BTreeMap::new();
    let size = match llistxattr_query(path) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(attributes),
        other => other?,
    };
    let mut names = vec![0_u8; size];
    let length = llistxattr(path, names.as_mut_slice())?;
    names.truncate(length);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && belongs_into_layer(name)) {
        let size = lgetxattr_query(path, name)?;
        let mut value = vec![0_u8; size];
        let length = if size == 0 { 0 } else { lgetxattr(path, name, value.as_mut_slice())? };
        value.truncate(length);
        attributes.insert(name.to_vec(), value);
    }
    Ok(attributes)
}

/// Sets one attribute.
pub fn write(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(lsetxattr(path, name, value, XattrFlags::empty())?)
}

/// True for a directory that hides what lies below it in other layers.
pub fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 2];
    matches!(lgetxattr(path, OPAQUE, value.as_mut_slice()), Ok(1) if value[0] == b'y')
}
