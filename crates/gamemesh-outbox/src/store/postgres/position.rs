use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::place::QueuePlace;
use super::server_time::ServerTime;

/// A look from the start of the queue walks over everything that is held, and over dead index entries that an old
/// transaction keeps alive. It gets at most this share of the time: one part in twenty.
pub(super) const REST_PER_LOOK: u32 = 20;
/// A look from the start that is over sooner costs nobody anything.
pub(super) const CHEAP: Duration = Duration::from_millis(10);

/// Where in the queue the next claim begins. Clones share it.
///
/// While a backlog is carried, each claim goes on where the one before ended. What may lie behind (events given back,
/// events of another replica that crashed, commits of transactions that began earlier) is found by looks from the start,
/// which come as often as they are cheap. A hint, never a cursor: it only ever decides where to look first.
#[derive(Clone, Debug)]
pub(super) struct Position(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The end of the last claim.
    after: QueuePlace,
    /// When the next look begins at the start, if the last one was dear or there is a backlog.
    start_at: Instant,
    /// Whether the last claim left more to do.
    backlog: bool,
    /// Whether the last look from the start took long.
    dear: bool,
    /// When something was last found.
    found_at: Instant,
    /// The looks under way, each with the first place of what was given back since it began.
    looks: BTreeMap<u64, Option<QueuePlace>>,
    begun: u64,
}

/// A look for what is due, under way.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) from: QueuePlace,
    number: u64,
    position: Position,
}

/// What [`outbox_wait_for_due`](super::sql::WAIT_FOR_DUE) has to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looking {
    pub(super) after: QueuePlace,
    pub(super) start_in: Duration,
    pub(super) quiet: Duration,
}

impl Position {
    /// Knows nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            after: QueuePlace::START,
            start_at: now,
            backlog: false,
            dear: false,
            found_at: now,
            looks: BTreeMap::new(),
            begun: 0,
        })))
    }

    /// Begins a look where the next claim begins.
    pub(super) fn next(&self, now: Instant) -> Look {
        let mut state = self.lock();
        let from = if now >= state.start_at || !(state.backlog || state.dear) {
            // The other workers do not all look from the start now.
            state.start_at = now + REST_PER_LOOK * CHEAP;
            QueuePlace::START
        } else {
            state.after
        };
        Look { from, number: state.begin(), position: self.clone() }
    }

    /// Begins a look at a place.
    pub(super) fn look(&self, from: QueuePlace) -> Look {
        Look { from, number: self.lock().begin(), position: self.clone() }
    }

    /// Notes a claim that ended at `last` and `took` so long.
    pub(super) fn claimed(&self, now: Instant, look: &Look, last: QueuePlace, more_due: bool, took: Duration) {
        let mut state = self.lock();
        state.found_at = now;
        state.backlog = more_due;
        let after = if more_due {
            last
        } else {
            // Who keeps up looks a second further back, for transactions that took longer than others.
            QueuePlace { at: last.at.a_second_before(), ..QueuePlace::START }
        };
        // What was given back meanwhile it did not see.
        let unseen = state.looks.get(&look.number).copied().flatten();
        state.after = state.after.max(unseen.map_or(after, |place| place.min(after)));
        state.looked(now, look.from, took);
    }

    /// Notes a claim that found nothing.
    pub(super) fn nothing_due(&self, now: Instant, look: &Look, took: Duration) {
        let mut state = self.lock();
        state.backlog = false;
        state.looked(now, look.from, took);
    }

    /// The next claims begin at `place`, or before it: what lies there was held, and was passed by while it was.
    pub(super) fn back_to(&self, place: QueuePlace) {
        self.lock().back_to(place);
    }

    /// The next claim begins at the start: something may be free again that was claimed.
    pub(super) fn forget(&self, now: Instant) {
        let mut state = self.lock();
        state.back_to(QueuePlace::START);
        state.start_at = now;
    }

    pub(super) fn looking(&self, now: Instant) -> Looking {
        let state = self.lock();
        let start_in = if state.dear { state.start_at.saturating_duration_since(now) } else { Duration::ZERO };
        Looking { after: state.after, start_in, quiet: now.saturating_duration_since(state.found_at) }
    }

    /// Notes what a wait found, and how long its last look from the start took.
    pub(super) fn waited(&self, now: Instant, found: Option<ServerTime>, start_look: Option<Duration>) {
        let mut state = self.lock();
        if let Some(took) = start_look {
            state.looked(now, QueuePlace::START, took);
        }
        if found.is_some_and(|at| at < state.after.at) {
            state.start_at = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl State {
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.looks.insert(self.begun, None);
        self.begun
    }

    fn back_to(&mut self, place: QueuePlace) {
        self.after = self.after.min(place);
        self.looks.values_mut().for_each(|unseen| *unseen = Some(unseen.map_or(place, |other| other.min(place))));
    }

    fn looked(&mut self, now: Instant, from: QueuePlace, took: Duration) {
        if from == QueuePlace::START {
            self.start_at = now + REST_PER_LOOK * took;
            self.dear = took > CHEAP;
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.position.lock().looks.remove(&self.number);
    }
}

/// Forgets the position unless its claim comes to a good end.
#[derive(Debug)]
pub(super) struct Unsettled(Option<Position>);

impl Unsettled {
    pub(super) fn new(position: Position) -> Self {
        Self(Some(position))
    }

    /// Nothing of the claim is free again, but what it held and left from `beyond` on.
    pub(super) fn settled(mut self, beyond: Option<QueuePlace>) {
        if let Some((position, place)) = self.0.take().zip(beyond) {
            position.back_to(place);
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(position) = self.0.take() {
            position.forget(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn place(micros: i64) -> QueuePlace {
        QueuePlace { at: ServerTime::at(micros), id: Uuid::nil() }
    }

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn who_keeps_up_always_begins_at_the_start() {
        let now = Instant::now();
        let position = Position::new(now);
        for due in 1..5 {
            assert_eq!(position.next(now).from, QueuePlace::START);
            position.claimed(now, &position.look(QueuePlace::START), place(due), false, SHORT);
        }
    }

    #[test]
    fn a_backlog_is_carried_from_place_to_place_with_looks_from_the_start_between() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(7), true, LONG);
        assert_eq!(position.next(now).from, place(7));
        position.claimed(now, &position.look(place(7)), place(9), true, SHORT);
        assert_eq!(position.next(now).from, place(9));
        position.claimed(now, &position.look(QueuePlace::START), place(9), true, Duration::ZERO);
        assert_eq!(position.next(now).from, QueuePlace::START, "a look that cost nothing is due again");
    }

    #[test]
    fn dear_looks_are_rare_even_without_a_backlog() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(9_000_000), false, LONG);
        assert_eq!(position.next(now).from, place(8_000_000), "a second further back");
        assert!(position.looking(now).start_in > SHORT);
        position.waited(now, Some(ServerTime::at(8_500_000)), None);
        assert_eq!(position.next(now).from, place(8_000_000));
        position.waited(now, Some(ServerTime::at(1)), None);
        assert_eq!(position.next(now).from, QueuePlace::START, "what lies behind is fetched");
    }

    #[test]
    fn what_a_claim_held_and_left_is_looked_for_again_though_others_passed_it_by() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(7), true, LONG);
        let held = Unsettled::new(position.clone());
        position.claimed(now, &position.look(place(7)), place(20), true, SHORT);
        held.settled(Some(place(8)));
        assert_eq!(position.next(now).from, place(8));
        position.back_to(place(9));
        assert_eq!(position.next(now).from, place(8), "what lies before it is not forgotten");
    }

    #[test]
    fn a_look_does_not_move_past_what_was_given_back_while_it_was_under_way() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(7), true, LONG);
        let (first, second) = (position.look(place(7)), position.look(place(7)));
        position.back_to(place(9));
        position.back_to(place(8));
        position.claimed(now, &first, place(20), true, SHORT);
        assert_eq!(position.next(now).from, place(8));
        position.claimed(now, &position.look(place(8)), place(15), true, SHORT);
        assert_eq!(position.next(now).from, place(15), "a look that began later saw it");
        position.claimed(now, &second, place(30), true, SHORT);
        assert_eq!(position.next(now).from, place(15), "an older look did not see what lies behind");
    }

    #[test]
    fn a_claim_that_is_not_settled_is_looked_for_again() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(7), true, LONG);
        Unsettled::new(position.clone()).settled(None);
        assert_eq!(position.next(now).from, place(7));
        drop(Unsettled::new(position.clone()));
        assert_eq!(position.next(now).from, QueuePlace::START);
    }
}
