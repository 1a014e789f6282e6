//! Finds the rows of a batch that cannot be written, by halving, so that one among hundreds costs a handful of statements.

use std::collections::VecDeque;
use std::ops::Range;

/// After so many single rows that could not be written, and none that could, the others are not tried.
const SINGLES_MAX: usize = 16;
/// With so many parts refused and none written, single rows are tried: perhaps each part has a bad one.
const PARTS_MAX: usize = 15;

/// What is left to try, and what was refused. Parts are places in the batch.
#[derive(Debug)]
pub(super) struct Sieve {
    left: VecDeque<Range<usize>>,
    refused: Vec<(usize, String)>,
    /// Whether anything could be written.
    written: bool,
    parts_refused: usize,
}

impl Sieve {
    /// Begins with a whole batch, which was refused.
    pub(super) fn of(count: usize, reason: &str) -> Self {
        let mut sieve = Self { left: VecDeque::new(), refused: Vec::new(), written: false, parts_refused: 0 };
        sieve.refused(0..count, reason);
        sieve
    }

    /// Returns the next part to try.
    pub(super) fn next_part(&mut self) -> Option<Range<usize>> {
        self.left.pop_front()
    }

    /// Notes that the part was written.
    pub(super) fn written(&mut self) {
        self.written = true;
    }

    /// Notes that the part was refused, and that nothing of it is written.
    pub(super) fn refused(&mut self, part: Range<usize>, reason: &str) {
        self.parts_refused += 1;
        let Range { start, end } = part;
        match end - start {
            0 => {}
            1 => {
                self.refused.push((start, reason.to_owned()));
                if !self.written && self.refused.len() >= SINGLES_MAX {
                    self.give_up(reason);
                }
            }
            count if !self.written && self.parts_refused > PARTS_MAX => {
                // Anywhere in it: the bad ones may lie as evenly as the parts do. (Knuth's multiplicative hash.)
                let anywhere = self.parts_refused.wrapping_mul(2_654_435_761) >> 16;
                let single = start + anywhere % count;
                self.left.push_front(single..single + 1);
                self.left.extend([start..single, single + 1..end].into_iter().filter(|part| !part.is_empty()));
            }
            count => {
                let middle = start + count / 2;
                self.left.extend([start..middle, middle..end]);
            }
        }
    }

    /// Counts what is left as refused, untried.
    pub(super) fn give_up(&mut self, reason: &str) {
        for part in std::mem::take(&mut self.left) {
            self.refused.extend(part.map(|place| (place, reason.to_owned())));
        }
    }

    /// Returns what cannot be written, in order, each with its reason.
    pub(super) fn into_refused(mut self) -> Vec<(usize, String)> {
        self.refused.sort_by_key(|(place, _)| *place);
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is found and how many parts were tried.
    fn sift(count: usize, is_bad: impl Fn(usize) -> bool) -> (Vec<usize>, usize) {
        let mut sieve = Sieve::of(count, "no");
        let mut tries = 1;
        while let Some(part) = sieve.next_part() {
            tries += 1;
            if part.clone().any(&is_bad) { sieve.refused(part, "no") } else { sieve.written() }
        }
        (sieve.into_refused().into_iter().map(|(place, _)| place).collect(), tries)
    }

    #[test]
    fn one_among_hundreds_is_found_in_a_handful_of_tries() {
        for bad in [0, 1, 49, 250, 499] {
            let (found, tries) = sift(500, |place| place == bad);
            assert_eq!(found, [bad]);
            assert!(tries <= 19, "{tries} tries for {bad}");
        }
    }

    #[test]
    fn exactly_the_bad_ones_are_found_however_they_lie() {
        for count in [1, 2, 3, 16, 31, 100, 500] {
            for step in [2, 7, 20, 31] {
                let bad: Vec<usize> = (0..count).filter(|place| place % step == 0).collect();
                assert_eq!(sift(count, |place| place % step == 0).0, bad, "{count} rows, every {step}th bad");
            }
            let head = count.div_ceil(4);
            assert_eq!(sift(count, |place| place < head).0.len(), head, "{count} rows, the first {head} bad");
        }
    }

    #[test]
    fn where_nothing_can_be_written_few_tries_show_it() {
        let (found, tries) = sift(500, |_| true);
        assert_eq!(found, (0..500).collect::<Vec<_>>());
        assert!(tries <= 50, "{tries} tries");
    }
}
