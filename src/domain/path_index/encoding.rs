//! The index as bytes, for the cache: sorted paths, each without what it shares with the one before, and a digest at
//! the end so that a damaged file is noticed.

use sha2::{Digest as _, Sha256};

use super::{Node, PathIndex};

const MAGIC: &[u8] = b"workshop path index 1\n";

/// Bytes that are no index, or a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path index is damaged or of another version")]
pub struct InvalidIndex;

impl PathIndex {
    /// The index as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut before: &[u8] = b"";
        for (path, node) in &self.nodes {
            let shared = path.iter().zip(before).take_while(|(left, right)| left == right).count();
            let (kind, target): (u64, &[u8]) = match node {
                Node::Directory => (0, b""),
                Node::Leaf => (1, b""),
                Node::Link(target) => (2, target),
            };
            // The kind shares its number with the length: one byte each for all but very long names.
            put_number(&mut out, shared as u64);
            put_number(&mut out, ((path.len() - shared) as u64) << 2 | kind);
            out.extend_from_slice(&path[shared..]);
            if kind == 2 {
                put_number(&mut out, target.len() as u64);
                out.extend_from_slice(target);
            }
            before = path;
        }
        let digest = Sha256::digest(&out);
        out.extend_from_slice(&digest);
        out
    }

    /// The index that [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidIndex> {
        let (body, digest) = bytes.split_at_checked(bytes.len().saturating_sub(32)).ok_or(InvalidIndex)?;
        if Sha256::digest(body).as_slice() != digest {
            return Err(InvalidIndex);
        }
        let mut rest = body.strip_prefix(MAGIC).ok_or(InvalidIndex)?;
        let mut index = Self::default();
        let mut path: Vec<u8> = Vec::new();
        while !rest.is_empty() {
            let shared = take_number(&mut rest)?;
            let packed = take_number(&mut rest)?;
            path.truncate(usize::try_from(shared).map_err(|_| InvalidIndex)?);
            path.extend_from_slice(take(&mut rest, packed >> 2)?);
            let node = match packed & 3 {
                0 => Node::Directory,
                1 => Node::Leaf,
                2 => {
                    let length = take_number(&mut rest)?;
                    Node::Link(take(&mut rest, length)?.into())
                }
                _ => return Err(InvalidIndex),
            };
            index.nodes.insert(path.as_slice().into(), node);
        }
        Ok(index)
    }
}

/// Seven bits a byte, lowest first; the high bit says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Result<u64, InvalidIndex> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(InvalidIndex)?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(InvalidIndex)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], InvalidIndex> {
    let length = usize::try_from(length).map_err(|_| InvalidIndex)?;
    let (taken, tail) = rest.split_at_checked(length).ok_or(InvalidIndex)?;
    *rest = tail;
    Ok(taken)
}
