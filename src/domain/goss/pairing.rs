//! Which expected elements have a found element of their own: the largest pairing of both.
//!
//! What an element must be is the matchers' matter; here is only the counting.

use serde_json::Value as Json;

use super::evaluate::test;
use super::matcher::Matcher;

/// The most comparisons and steps of one pairing.
const MAX_WORK: usize = 4_000_000;

/// A largest pairing.
#[derive(Debug)]
pub struct Pairing<'m> {
    matchers: &'m [Matcher],
    found: Vec<Json>,
    /// The matcher of each found element.
    matcher_of: Vec<Option<usize>>,
}

impl<'m> Pairing<'m> {
    /// Pairs; the error says that there are too many elements.
    pub fn new(matchers: &'m [Matcher], found: &[Json]) -> Result<Self, String> {
        let too_many = || format!("{} expected and {} found elements are too many", matchers.len(), found.len());
        if matchers.len().saturating_mul(found.len()) > MAX_WORK {
            return Err(too_many());
        }
        // An element that a matcher cannot judge is none that it accepts.
        let accepted: Vec<Vec<usize>> = matchers
            .iter()
            .map(|matcher| (0..found.len()).filter(|&index| test(matcher, &found[index]) == Ok(true)).collect())
            .collect();
        let mut pairing = Self { matchers, found: found.to_vec(), matcher_of: vec![None; found.len()] };
        let mut work = 0;
        for matcher in 0..matchers.len() {
            pairing.place(matcher, &accepted, &mut work);
            if work > MAX_WORK {
                return Err(too_many());
            }
        }
        Ok(pairing)
    }

    /// Finds an element for `first`, moving others to where they fit as well; breadth first, without recursion.
    fn place(&mut self, first: usize, accepted: &[Vec<usize>], work: &mut usize) {
        // Through which matcher each element was reached.
        let mut reached: Vec<Option<usize>> = vec![None; self.found.len()];
        let mut queue = vec![first];
        let mut next = 0;
        while let Some(&matcher) = queue.get(next) {
            next += 1;
            for &element in &accepted[matcher] {
                *work += 1;
                if reached[element].is_some() {
                    continue;
                }
                reached[element] = Some(matcher);
                if let Some(occupant) = self.matcher_of[element] {
                    queue.push(occupant);
                    continue;
                }
                self.move_along(first, element, &reached);
                return;
            }
        }
    }

    /// Gives `free` to the matcher that reached it, that one's former element to the one before, and so on.
    fn move_along(&mut self, first: usize, free: usize, reached: &[Option<usize>]) {
        let mut element = free;
        while let Some(matcher) = reached[element] {
            let former = self.matcher_of.iter().position(|&of| of == Some(matcher));
            self.matcher_of[element] = Some(matcher);
            match former {
                Some(former) if matcher != first => {
                    self.matcher_of[former] = None;
                    element = former;
                }
                _ => return,
            }
        }
    }

    fn paired(&self, matcher: usize) -> bool {
        self.matcher_of.contains(&Some(matcher))
    }

    /// The expected elements that have none.
    #[must_use]
    pub fn missing(&self) -> Vec<Json> {
        (0..self.matchers.len())
            .filter(|&index| !self.paired(index))
            .map(|index| self.matchers[index].to_json())
            .collect()
    }

    /// The expected elements that have one.
    #[must_use]
    pub fn found(&self) -> Vec<Json> {
        (0..self.matchers.len())
            .filter(|&index| self.paired(index))
            .map(|index| self.matchers[index].to_json())
            .collect()
    }

    /// The found elements that belong to nothing expected.
    #[must_use]
    pub fn extra(&self) -> Vec<Json> {
        let free = self.matcher_of.iter().zip(&self.found).filter(|(matcher, _)| matcher.is_none());
        free.map(|(_, element)| element.clone()).collect()
    }
}
