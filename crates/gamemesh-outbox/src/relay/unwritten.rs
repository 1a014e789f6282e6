use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::marked_lately::MarkedLately;
use crate::store::Left;

/// The most events that are left alone by their ids: claims carry them as parameters, 16 bytes each.
const KNOWN_MAX: usize = 4_096;
/// How long every batch is rehearsed after the outcome of an event could not be written.
const CAREFUL_FOR: Duration = Duration::from_secs(60);
/// What takes longer than this to be written and does not end well may not end at all: others go first.
pub(super) const HUNG: Duration = Duration::from_secs(4);
/// How long an event is remembered after it may be claimed again: somebody else may have settled it.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// After so many events in a row, and so long, nothing can be written: where others are written, one of them is by then.
const IN_A_ROW: u32 = 3;
const NOTHING_FOR: Duration = Duration::from_secs(5);
/// An event whose row waits is somebody else's when it has not come so long after its time.
const LATE: Duration = Duration::from_secs(5);

/// What the workers know of outcomes that could not be written.
#[derive(Debug)]
pub(super) struct UnwrittenEvents {
    state: Mutex<State>,
    /// Opens while nothing can be written.
    pub(super) breaker: Breaker,
}

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Uuid, Known>,
    trust: Trust,
    careful_until: Option<Instant>,
    /// How many events could not be settled since one could, and since when.
    in_a_row: u32,
    refused_since: Option<Instant>,
    /// How many settlements in a row failed as a whole although they were rehearsed.
    failed_all_the_same: u32,
    /// Whether the next claim leaves nothing alone.
    looks_at_all: bool,
    marked: MarkedLately,
}

/// What is expected of the next settlement.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Trust {
    /// There was none yet.
    #[default]
    Unknown,
    /// The last one failed.
    Lost,
    Good,
}

#[derive(Debug)]
struct Known {
    tries: u32,
    until: Instant,
    /// Whether its row waits in the table, so that it may be forgotten where room is needed.
    waits: bool,
}

impl UnwrittenEvents {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { state: Mutex::default(), breaker: Breaker::new(backoff) }
    }

    /// Lists the events to leave alone now.
    pub(super) fn left_alone(&self) -> Vec<Uuid> {
        let now = Instant::now();
        self.lock().known.iter().filter(|(_, known)| known.until > now).map(|(id, _)| *id).collect()
    }

    /// Forgets the events that did not come again, and lists them.
    pub(super) fn forget_old(&self) -> Vec<Uuid> {
        let now = Instant::now();
        let mut state = self.lock();
        state.known.extract_if(.., |_, known| known.until + REMEMBERED_FOR < now).map(|(id, _)| id).collect()
    }

    /// Says how many of these events, the first ones, are to be rehearsed before any is published.
    pub(super) fn in_doubt(&self, ids: &[Uuid]) -> usize {
        let state = self.lock();
        let is_careful = state.careful_until.is_some_and(|until| until > Instant::now())
            || state.nothing_is()
            || state.marked.has_any(ids)
            || ids.iter().any(|id| state.known.contains_key(id));
        match state.trust {
            _ if is_careful => ids.len(),
            Trust::Lost => ids.len(),
            // Where one can be written, most can.
            Trust::Unknown => 1,
            Trust::Good => 0,
        }
    }

    /// Notes an event whose outcome was not written, and returns for how long it is left alone.
    pub(super) fn refused(&self, id: Uuid, left: Left, backoff: Backoff) -> Duration {
        let now = Instant::now();
        let mut state = self.lock();
        state.careful_until = Some(now + CAREFUL_FOR);
        let tries = state.known.get(&id).map_or(0, |known| known.tries);
        state.refused_since.get_or_insert(now);
        if tries == 0 {
            state.in_a_row = state.in_a_row.saturating_add(1);
            state.make_room();
        }
        let pause = backoff.after(tries);
        if tries > 0 || state.known.len() < KNOWN_MAX {
            let known = Known { tries: tries.saturating_add(1), until: now + pause, waits: left == Left::Waiting };
            state.known.insert(id, known);
        }
        pause
    }

    /// Notes that the row of an event waits, which was not certain before.
    pub(super) fn waits(&self, id: Uuid) {
        if let Some(known) = self.lock().known.get_mut(&id) {
            known.waits = true;
        }
    }

    /// Notes events whose outcomes were written, and lists those that were known not to be.
    pub(super) fn written(&self, ids: &[Uuid]) -> Vec<Uuid> {
        if ids.is_empty() {
            return Vec::new();
        }
        let mut state = self.lock();
        if state.nothing_is() || ids.iter().any(|id| state.known.contains_key(id)) {
            // What could not be written can be: what else waits for that is rehearsed again.
            state.known.values_mut().for_each(|known| known.until = Instant::now());
        }
        state.marked.note(ids);
        (state.trust, state.in_a_row, state.refused_since) = (Trust::Good, 0, None);
        state.failed_all_the_same = 0;
        if state.known.is_empty() {
            return Vec::new();
        }
        ids.iter().copied().filter(|id| state.known.remove(id).is_some()).collect()
    }

    /// Notes that a settlement failed as a whole, which began then. Where it hung, others may hang over the same events while
    /// some end well.
    pub(super) fn failed(&self, began: Instant) {
        let mut state = self.lock();
        state.trust = Trust::Lost;
        if began.elapsed() > HUNG {
            state.careful_until = Some(Instant::now() + CAREFUL_FOR);
        }
    }

    /// Notes that one failed although it was rehearsed, and says whether the one before did as well: once, a connection may have
    /// been lost.
    pub(super) fn fails_all_the_same(&self) -> bool {
        let mut state = self.lock();
        state.failed_all_the_same = state.failed_all_the_same.saturating_add(1);
        state.failed_all_the_same > 1
    }

    /// Says whether the next claim is to leave nothing alone. While nothing can be written that is every other one, which sees
    /// whether that is over, and whether those that were left alone are there still; those between look for others.
    pub(super) fn looks_at_all(&self) -> bool {
        let mut state = self.lock();
        state.looks_at_all = state.nothing_is() && !state.looks_at_all;
        state.looks_at_all
    }

    /// Says whether no more events can be left alone.
    pub(super) fn is_full(&self) -> bool {
        self.lock().known.len() >= KNOWN_MAX
    }

    /// Notes that nothing is due though nothing was left alone, and lists the events that are gone, if that is the end of it.
    pub(super) fn nothing_left(&self) -> Option<Vec<Uuid>> {
        let now = Instant::now();
        let mut state = self.lock();
        if !state.nothing_is() || state.known.values().any(|known| known.waits && known.until + LATE > now) {
            return None;
        }
        (state.in_a_row, state.refused_since) = (0, None);
        Some(std::mem::take(&mut state.known).into_keys().collect())
    }

    /// Says whether nothing was written of so many events that it is not their doing.
    pub(super) fn nothing_is(&self) -> bool {
        self.lock().nothing_is()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

impl State {
    fn nothing_is(&self) -> bool {
        self.in_a_row >= IN_A_ROW && self.refused_since.is_some_and(|since| since.elapsed() >= NOTHING_FOR)
    }

    /// Forgets an event that waits anyway, if there are too many.
    fn make_room(&mut self) {
        if self.known.len() < KNOWN_MAX {
            return;
        }
        if let Some(id) = self.known.iter().find(|(_, known)| known.waits).map(|(id, _)| *id) {
            self.known.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(2), max: Duration::from_secs(600) };

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_left_alone_for_longer_each_time_until_it_is_written() {
        let unwritten = UnwrittenEvents::new(BACKOFF);
        let pause = unwritten.refused(id(1), Left::Refused, BACKOFF);
        assert_eq!(unwritten.left_alone(), [id(1)]);
        tokio::time::advance(pause).await;
        assert!(unwritten.left_alone().is_empty());
        assert!(unwritten.refused(id(1), Left::Refused, BACKOFF) >= Duration::from_secs(4));
        assert!(!unwritten.nothing_is(), "it is one event, however often");
        assert_eq!(unwritten.written(&[id(2), id(1)]), [id(1)]);
        assert!(unwritten.left_alone().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_waited_while_nothing_could_be_written_is_tried_at_once_when_something_is() {
        let unwritten = UnwrittenEvents::new(BACKOFF);
        for number in 1..=4 {
            unwritten.refused(id(number), Left::Refused, BACKOFF);
        }
        assert!(!unwritten.nothing_is() && unwritten.left_alone().len() == 4, "others may be written yet");
        tokio::time::advance(NOTHING_FOR).await;
        for number in 1..=4 {
            unwritten.refused(id(number), Left::Refused, BACKOFF);
        }
        assert!(unwritten.nothing_is() && unwritten.left_alone().len() == 4);
        unwritten.written(&[id(9)]);
        assert!(unwritten.left_alone().is_empty());
        assert_eq!(unwritten.in_doubt(&[id(1)]), 1, "it is rehearsed before it is published");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_doubt_is_rehearsed() {
        let unwritten = UnwrittenEvents::new(BACKOFF);
        let ids = [id(1), id(2), id(3)];
        assert_eq!(unwritten.in_doubt(&ids), 1, "nothing was settled yet");
        unwritten.written(&[id(5)]);
        assert_eq!(unwritten.in_doubt(&ids), 0);
        assert_eq!(unwritten.in_doubt(&[id(6), id(5)]), 2, "one of them was marked a moment ago, and is here again");
        unwritten.failed(Instant::now());
        assert_eq!(unwritten.in_doubt(&ids), 3, "the last settlement failed");
        unwritten.written(&[id(4)]);
        unwritten.refused(id(9), Left::Refused, BACKOFF);
        assert_eq!(unwritten.in_doubt(&ids), 3, "there may be more of that kind");
        tokio::time::advance(CAREFUL_FOR).await;
        assert_eq!(unwritten.in_doubt(&ids), 0);
        assert_eq!(unwritten.in_doubt(&[id(8), id(9)]), 2, "one of them is known");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_does_not_come_again_is_forgotten() {
        let unwritten = UnwrittenEvents::new(BACKOFF);
        let pause = unwritten.refused(id(1), Left::Refused, BACKOFF);
        tokio::time::advance(pause + REMEMBERED_FOR).await;
        assert!(unwritten.forget_old().is_empty());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(unwritten.forget_old(), [id(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_can_be_written_every_other_claim_looks_at_all_and_finds_out_that_they_are_gone() {
        let unwritten = UnwrittenEvents::new(BACKOFF);
        unwritten.refused(id(1), Left::Refused, BACKOFF);
        assert!(!unwritten.looks_at_all() && unwritten.nothing_left().is_none(), "others are written");
        for number in 2..=4 {
            unwritten.refused(id(number), Left::Refused, BACKOFF);
        }
        tokio::time::advance(NOTHING_FOR).await;
        assert_eq!([(); 4].map(|()| unwritten.looks_at_all()), [true, false, true, false]);
        unwritten.refused(id(4), Left::Waiting, BACKOFF);
        assert!(unwritten.nothing_left().is_none(), "one of them may come yet");
        tokio::time::advance(4 * BACKOFF.initial + LATE).await;
        assert_eq!(unwritten.nothing_left().unwrap().len(), 4);
        assert!(!unwritten.nothing_is() && !unwritten.looks_at_all());
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_known_and_those_that_wait_make_room() {
        let unwritten = UnwrittenEvents::new(BACKOFF);
        for number in 0..KNOWN_MAX as u128 {
            let left = if number == 7 { Left::Waiting } else { Left::Refused };
            unwritten.refused(id(number), left, BACKOFF);
        }
        assert!(!unwritten.nothing_is());
        unwritten.refused(id(10_000), Left::Refused, BACKOFF);
        unwritten.refused(id(10_001), Left::Refused, BACKOFF);
        let left_alone = unwritten.left_alone();
        assert_eq!(left_alone.len(), KNOWN_MAX);
        assert!(left_alone.contains(&id(10_000)) && !left_alone.contains(&id(7)) && !left_alone.contains(&id(10_001)));
    }
}
