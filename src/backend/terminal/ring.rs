//! The last output of a terminal, addressed by absolute offsets.
//!
//! Pure bytes: who reads them and how far they are is known elsewhere.

use std::collections::VecDeque;

/// How far a place to begin at is searched.
const SEARCH: usize = 4096;

/// The last bytes of a stream; offsets count from the stream's beginning and never go back.
#[derive(Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    start: u64,
}

impl Ring {
    /// An empty ring that keeps at most `capacity` bytes; memory is taken as it fills.
    pub fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity, start: 0 }
    }

    /// The offset of the oldest byte that is there.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset behind the newest byte.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Adds bytes at the end; the oldest go where there are more than the capacity.
    pub fn push(&mut self, bytes: &[u8]) {
        let end = self.end() + bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let over = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
        self.start = end - self.bytes.len() as u64;
    }

    /// At most `most` bytes from `offset` on, in up to two pieces; nothing where the offset is not in the ring.
    pub fn read(&self, offset: u64, most: usize) -> (&[u8], &[u8]) {
        let Some(skipped) = offset.checked_sub(self.start).and_then(|skipped| usize::try_from(skipped).ok()) else {
            return (&[], &[]);
        };
        if skipped >= self.bytes.len() {
            return (&[], &[]);
        }
        let last = self.bytes.len().min(skipped.saturating_add(most));
        let (front, back) = self.bytes.as_slices();
        if last <= front.len() {
            (&front[skipped..last], &[])
        } else if skipped >= front.len() {
            (&back[skipped - front.len()..last - front.len()], &[])
        } else {
            (&front[skipped..], &back[..last - front.len()])
        }
    }

    /// The first sensible place at or behind `offset` for somebody who has not seen what is before: the stream's
    /// beginning, behind a line's end, or at least not inside a character.
    pub fn begin_at(&self, offset: u64) -> u64 {
        let offset = offset.max(self.start).min(self.end());
        if offset == 0 {
            return 0;
        }
        let (front, back) = self.read(offset, SEARCH);
        let bytes = || front.iter().chain(back);
        let skipped = match bytes().position(|byte| *byte == b'\n') {
            Some(line_end) => line_end + 1,
            None => bytes().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count(),
        };
        offset + skipped as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(capacity: usize, contents: &str) -> Ring {
        let mut ring = Ring::new(capacity);
        ring.push(contents.as_bytes());
        ring
    }

    fn check_begin(ring: &Ring, offset: u64, expected: u64) {
        assert_eq!(ring.begin_at(offset), expected, "{ring:?} from {offset}");
    }

    #[test]
    fn one_begins_behind_a_line_and_never_inside_a_character() {
        check_begin(&ring(100, "one\ntwo\n"), 0, 0);
        check_begin(&ring(100, "one\ntwo\n"), 1, 4);
        check_begin(&ring(4, "one\ntwo\n"), 0, 8);
        check_begin(&ring(6, "one\ntwo\n"), 0, 4);
        check_begin(&ring(100, "aä€b"), 2, 3);
        check_begin(&ring(100, "aä€b"), 4, 6);
        check_begin(&ring(100, "aä€b"), 6, 6);
        check_begin(&ring(100, "ab"), 9, 2);
        check_begin(&ring(100, ""), 5, 0);
    }

    proptest! {
        #[test]
        fn a_ring_gives_the_end_of_its_stream(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            capacity in 1..64_usize, offset in 0..900_u64, most in 0..80_usize,
        ) {
            let mut ring = Ring::new(capacity);
            for piece in &pieces {
                ring.push(piece);
            }
            let stream = pieces.concat();
            let start = stream.len().saturating_sub(capacity);
            prop_assert_eq!((ring.start(), ring.end()), (start as u64, stream.len() as u64));
            let (front, back) = ring.read(offset, most);
            let from = usize::try_from(offset).unwrap();
            let expected = if from < start { &[][..] } else {
                let from = from.min(stream.len());
                &stream[from..stream.len().min(from + most)]
            };
            prop_assert_eq!([front, back].concat(), expected);
            let begin = ring.begin_at(offset);
            prop_assert!(ring.start() <= begin && begin <= ring.end());
        }
    }
}
