use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::place::{Part, QueuePlace};
use super::server_time::ServerTime;
use super::sweep::{After, BITE_MAX, Sweep};

/// A look from the start of the queue walks over everything that is held, and over dead index entries that an old
/// transaction keeps alive. It gets at most this share of the time: one part in twenty.
pub(super) const REST_PER_LOOK: u32 = 20;
/// A look from the start that is over sooner costs nobody anything.
pub(super) const CHEAP: Duration = Duration::from_millis(10);
/// The longest rest: what commits late lies behind, and waits for it. A look after which more would be due is taken in bites.
pub(super) const REST_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(BITE_MAX.as_millis() * REST_PER_LOOK as u128 == REST_MAX.as_millis());
/// Who keeps up looks this much further back, in microseconds, for transactions that took longer than others.
const FURTHER_BACK: i64 = 1_000_000;

/// After something was found, looks follow each other closely for this long.
const AWAKE: Duration = Duration::from_secs(5);
/// The shortest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The pause while awake is this part of the time in which nothing was found.
const PAUSE_PER_QUIET: u32 = 50;

/// Where in the queue the next claim begins, and when somebody who waits looks next. Clones share it.
///
/// While a backlog is carried, each claim goes on where the one before ended. What may lie behind (events given back,
/// events of another replica that crashed, commits of transactions that began earlier) is found by looks from the start,
/// which come as often as they are cheap; where they are dear, by a [`Sweep`]. A hint, never a cursor: it only ever decides
/// where to look first.
#[derive(Clone, Debug)]
pub(super) struct Position(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The end of the last claim.
    after: QueuePlace,
    /// When the next look begins at the start, or is a bite, if the last one was dear or there is a backlog.
    start_at: Instant,
    /// Whether the last claim left more to do.
    backlog: bool,
    /// Whether the last look from the start took long.
    dear: bool,
    /// Whether the last look took longer than any may. That is believed when the next one does so as well: it may have waited
    /// for a lock.
    suspected: bool,
    /// The way back, where looks from the start are too dear.
    sweep: Option<Sweep>,
    /// When something was last found.
    found_at: Instant,
    /// When somebody who waits looked last.
    looked_at: Instant,
    /// When an event of this relay is due again that is waiting now.
    due_at: Option<Instant>,
    /// The looks under way, each with the first place of what was given back since it began.
    looks: BTreeMap<u64, Option<QueuePlace>>,
    begun: u64,
}

/// A look for what is due, under way.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) part: Part,
    number: u64,
    position: Position,
}

/// Where a look of somebody who waits begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looking {
    pub(super) after: QueuePlace,
    /// Whether it begins at the start all the same.
    pub(super) from_start: bool,
    /// Whether it may take long, as the last one did.
    pub(super) dear: bool,
}

/// What a look cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) time: Duration,
    /// The server's time, where the look was so dear that it matters.
    pub(super) at: Option<ServerTime>,
}

impl Took {
    /// Says whether it was longer than any look may take.
    pub(super) fn too_long(time: Duration) -> bool {
        time > BITE_MAX
    }

    /// Returns where the newest events are.
    fn newest(&self) -> Option<QueuePlace> {
        self.at.map(newest)
    }
}

/// Where the newest events are, by the server's time.
fn newest(at: ServerTime) -> QueuePlace {
    QueuePlace { at: at.before(FURTHER_BACK), ..QueuePlace::START }
}

impl Position {
    /// Knows nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            after: QueuePlace::START,
            start_at: now,
            backlog: false,
            dear: false,
            suspected: false,
            sweep: None,
            found_at: now,
            looked_at: now,
            due_at: None,
            looks: BTreeMap::new(),
            begun: 0,
        })))
    }

    /// Begins a look where the next claim begins.
    pub(super) fn next(&self, now: Instant) -> Look {
        let mut state = self.lock();
        let part = if state.is_start_due(now) {
            // The other workers do not all look there now.
            state.start_at = now + REST_PER_LOOK * CHEAP;
            state.sweep.map_or(Part::ALL, |sweep| sweep.bite())
        } else {
            Part::behind(state.after)
        };
        Look { part, number: state.begin(), position: self.clone() }
    }

    /// Begins the look that follows one that found nothing, if anything can be left.
    pub(super) fn following(&self, look: &Look) -> Option<Look> {
        let mut state = self.lock();
        let part = match look.part {
            part if part.is_bite() => Part::behind(state.after),
            _ if state.sweep.is_some() => return None,
            Part::ALL => return None,
            _ => Part::ALL,
        };
        Some(Look { part, number: state.begin(), position: self.clone() })
    }

    /// Notes a claim that ended at `last`.
    pub(super) fn claimed(&self, now: Instant, look: &Look, last: QueuePlace, more_due: bool, took: Took) {
        let mut state = self.lock();
        state.found_at = now;
        if look.part.is_bite() {
            return state.bitten(now, look.part, took, more_due);
        }
        state.backlog = more_due;
        let after = if more_due { last } else { QueuePlace { at: last.at.before(FURTHER_BACK), ..QueuePlace::START } };
        // What was given back meanwhile it did not see.
        let unseen = state.looks.get(&look.number).copied().flatten();
        state.after = state.after.max(unseen.map_or(after, |place| place.min(after)));
        if look.part == Part::ALL {
            let newest = Some(state.after);
            state.looked(now, QueuePlace::START, took.time, newest);
        }
    }

    /// Notes a claim that found nothing.
    pub(super) fn nothing_due(&self, now: Instant, look: &Look, took: Took) {
        let mut state = self.lock();
        if look.part.is_bite() {
            return state.bitten(now, look.part, took, false);
        }
        state.backlog = false;
        state.looked(now, look.part.from, took.time, took.newest());
    }

    /// Notes a look that the server ended because it took too long. Returns where to look instead; nowhere
    /// where nothing can have been in its way.
    pub(super) fn ran_out_of_time(&self, now: Instant, look: &Look, took: Took) -> Option<Look> {
        let mut state = self.lock();
        state.start_at = now + (REST_PER_LOOK * took.time).min(REST_MAX);
        if let (true, Some(sweep)) = (look.part.is_bite(), &mut state.sweep) {
            sweep.too_large();
        } else {
            let at = took.at?;
            let now = QueuePlace { at, ..QueuePlace::START };
            // Even the last second may hold more than can be walked over.
            let newest = [newest(at), now].into_iter().find(|place| *place > look.part.from)?;
            state.begin_sweep(newest);
        }
        Some(Look { part: Part::behind(state.after), number: state.begin(), position: self.clone() })
    }

    /// The next claims begin at `place`, or before it: what lies there was held, and was passed by while it was.
    pub(super) fn back_to(&self, place: QueuePlace) {
        self.lock().back_to(place);
    }

    /// What was claimed in `part`, from `first` to `last`, may be free again: the next claim begins there or before it.
    pub(super) fn forget(&self, now: Instant, part: Part, first: QueuePlace, last: QueuePlace) {
        let mut state = self.lock();
        state.start_at = now;
        match &mut state.sweep {
            None => state.back_to(QueuePlace::START),
            Some(_) if !part.is_bite() => state.back_to(first),
            Some(sweep) => sweep.again(QueuePlace { at: last.at.before(-1), ..QueuePlace::START }),
        }
    }

    /// Something that was claimed is due again in `wait`.
    pub(super) fn due_in(&self, now: Instant, wait: Duration) {
        let Some(due_at) = now.checked_add(wait) else { return };
        let mut state = self.lock();
        state.due_at = Some(state.due_at.map_or(due_at, |other| other.min(due_at)));
    }

    // --- For those who wait ------------------------------------------------------------------------------------------

    /// Says when to look next, at least every `every`.
    pub(super) fn look_at(&self, every: Duration) -> Instant {
        let state = self.lock();
        let since = state.looked_at.max(state.found_at);
        let quiet = since.saturating_duration_since(state.found_at);
        let pause = if quiet < AWAKE { (quiet / PAUSE_PER_QUIET).max(PAUSE_MIN).min(every) } else { every };
        let look_at = since + pause;
        state.due_at.map_or(look_at, |due_at| look_at.min(due_at))
    }

    /// Says whether the next look is one that only a claim can do.
    pub(super) fn is_bite_due(&self, now: Instant) -> bool {
        let state = self.lock();
        state.sweep.is_some() && now >= state.start_at
    }

    pub(super) fn looking(&self, now: Instant) -> Looking {
        let mut state = self.lock();
        state.looked_at = now;
        state.due_at = state.due_at.filter(|due_at| *due_at > now);
        let from_start = state.sweep.is_none() && (!state.dear || now >= state.start_at);
        Looking { after: state.after, from_start, dear: state.dear || state.suspected }
    }

    /// Notes what such a look found.
    pub(super) fn waited(&self, now: Instant, looking: &Looking, found: Option<ServerTime>, took: Took) {
        let mut state = self.lock();
        match found {
            Some(at) if at < state.after.at => state.start_at = now,
            Some(_) => {}
            None => {
                let from = if looking.from_start { QueuePlace::START } else { looking.after };
                state.looked(now, from, took.time, took.newest());
            }
        }
    }

    /// A mistake of a test: the next look from the start is at that time.
    #[cfg(test)]
    pub(super) fn rests(&self, until: Instant) {
        let mut state = self.lock();
        (state.start_at, state.dear) = (until, true);
    }

    #[cfg(test)]
    pub(super) fn knows_a_place(&self) -> bool {
        self.lock().after != QueuePlace::START
    }

    #[cfg(test)]
    pub(super) fn is_sweeping(&self) -> bool {
        self.lock().sweep.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl State {
    fn is_start_due(&self, now: Instant) -> bool {
        now >= self.start_at || !(self.backlog || self.dear || self.sweep.is_some())
    }

    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.looks.insert(self.begun, None);
        self.begun
    }

    fn back_to(&mut self, place: QueuePlace) {
        self.after = self.after.min(place);
        self.looks.values_mut().for_each(|unseen| *unseen = Some(unseen.map_or(place, |other| other.min(place))));
    }

    /// Notes what a look from a place cost. Where that is too much, claims begin at `newest` from now on.
    fn looked(&mut self, now: Instant, from: QueuePlace, time: Duration, newest: Option<QueuePlace>) {
        if from != QueuePlace::START && self.sweep.is_none() {
            return;
        }
        let too_long = Took::too_long(time);
        if let (true, true, Some(newest)) = (too_long, self.suspected, newest) {
            self.start_at = now + REST_MAX;
            return self.begin_sweep(newest);
        }
        self.suspected = too_long;
        if from == QueuePlace::START {
            // What is not believed yet is tried again soon.
            self.start_at = now + REST_PER_LOOK * if too_long { CHEAP } else { time };
            self.dear = time > CHEAP;
        }
    }

    /// From now on claims begin at `newest`, and what lies before it is looked through in bites.
    fn begin_sweep(&mut self, newest: QueuePlace) {
        (self.suspected, self.dear) = (false, true);
        self.after = self.after.max(newest);
        self.sweep = Some(Sweep::from(self.after));
    }

    fn bitten(&mut self, now: Instant, part: Part, took: Took, left: bool) {
        self.start_at = now + (REST_PER_LOOK * took.time).min(REST_MAX);
        // Another worker may have taken the same bite.
        let Some(sweep) = self.sweep.filter(|sweep| sweep.bite() == part) else { return };
        self.sweep = match sweep.taken(took.time, left, self.after) {
            After::Bite(sweep) => Some(sweep),
            After::Cheap(took) => {
                (self.dear, self.start_at) = (took > CHEAP, now + REST_PER_LOOK * took);
                None
            }
        };
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.position.lock().looks.remove(&self.number);
    }
}

/// Forgets the position unless its claim comes to a good end.
#[derive(Debug)]
pub(super) struct Unsettled(Option<Claimed>);

/// Where what is claimed stands.
#[derive(Debug)]
struct Claimed {
    position: Position,
    part: Part,
    first: QueuePlace,
    last: QueuePlace,
}

impl Unsettled {
    pub(super) fn new(look: &Look, first: QueuePlace, last: QueuePlace) -> Self {
        Self(Some(Claimed { position: look.position.clone(), part: look.part, first, last }))
    }

    /// Nothing of the claim is free again, but what it held and left from `beyond` on. Some of it may be due again in `wait`.
    pub(super) fn settled(mut self, beyond: Option<QueuePlace>, wait: Option<Duration>) {
        let Some(Claimed { position, part, .. }) = self.0.take() else { return };
        if let Some(wait) = wait {
            position.due_in(Instant::now(), wait);
        }
        // What a bite left is taken with the next one.
        if let (Some(place), false) = (beyond, part.is_bite()) {
            position.back_to(place);
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(Claimed { position, part, first, last }) = self.0.take() {
            position.forget(Instant::now(), part, first, last);
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
    /// Dear, and not more than a look may take.
    const LONG: Duration = Duration::from_millis(200);
    const TOO_LONG: Duration = Duration::from_secs(3);

    fn took(time: Duration) -> Took {
        Took { time, at: Some(ServerTime::at(100_000_000)) }
    }

    fn from(look: &Look) -> QueuePlace {
        assert!(!look.part.is_bite());
        look.part.from
    }

    fn look(position: &Position, from: QueuePlace) -> Look {
        let mut look = position.next(Instant::now());
        look.part = Part::behind(from);
        look
    }

    #[test]
    fn who_keeps_up_always_begins_at_the_start() {
        let now = Instant::now();
        let position = Position::new(now);
        for due in 1..5 {
            assert_eq!(from(&position.next(now)), QueuePlace::START);
            position.claimed(now, &look(&position, QueuePlace::START), place(due), false, took(SHORT));
        }
    }

    #[test]
    fn a_backlog_is_carried_from_place_to_place_with_looks_from_the_start_between() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(7), true, took(LONG));
        assert_eq!(from(&position.next(now)), place(7));
        position.claimed(now, &look(&position, place(7)), place(9), true, took(SHORT));
        assert_eq!(from(&position.next(now)), place(9));
        position.claimed(now, &look(&position, QueuePlace::START), place(9), true, took(Duration::ZERO));
        assert_eq!(from(&position.next(now)), QueuePlace::START, "a look that cost nothing is due again");
    }

    #[test]
    fn dear_looks_are_rare_even_without_a_backlog() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(9_000_000), false, took(LONG));
        assert_eq!(from(&position.next(now)), place(8_000_000), "a second further back");
        let looking = position.looking(now);
        assert!(!looking.from_start);
        position.waited(now, &looking, Some(ServerTime::at(8_500_000)), took(SHORT));
        assert_eq!(from(&position.next(now)), place(8_000_000));
        position.waited(now, &looking, Some(ServerTime::at(1)), took(SHORT));
        assert_eq!(from(&position.next(now)), QueuePlace::START, "what lies behind is fetched");
        assert!(position.looking(now + REST_PER_LOOK * LONG).from_start);
    }

    #[test]
    fn one_look_that_waited_for_a_lock_is_not_believed() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(9_000_000), false, took(TOO_LONG));
        let soon = now + REST_PER_LOOK * CHEAP;
        assert_eq!(from(&position.next(soon)), QueuePlace::START, "it is tried again soon");
        position.claimed(soon, &look(&position, QueuePlace::START), place(9_500_000), false, took(SHORT));
        assert_eq!(from(&position.next(soon)), QueuePlace::START);
        assert!(!position.is_sweeping());
    }

    #[test]
    fn looks_that_are_too_dear_are_taken_in_bites_until_they_are_cheap() {
        let now = Instant::now();
        let position = Position::new(now);
        for _ in 0..2 {
            position.nothing_due(now, &look(&position, QueuePlace::START), took(TOO_LONG));
        }
        let newest = place(99_000_000);
        assert_eq!(from(&position.next(now)), newest);
        assert!(!position.looking(now).from_start);
        let mut now = now;
        while position.is_sweeping() {
            now += REST_MAX;
            assert!(position.is_bite_due(now), "no rest is longer");
            let bite = position.next(now);
            assert!(bite.part.is_bite());
            position.nothing_due(now, &bite, took(Duration::ZERO));
            assert_eq!(position.following(&bite).map(|look| from(&look)), Some(newest));
        }
        assert_eq!(from(&position.next(now)), QueuePlace::START);
    }

    #[test]
    fn a_look_that_ran_out_of_time_teaches_where_to_look_and_where_not() {
        let now = Instant::now();
        let (position, at) = (Position::new(now), took(TOO_LONG));
        let elsewhere = position.ran_out_of_time(now, &position.next(now), at).expect("the newest events");
        assert_eq!(from(&elsewhere), place(99_000_000));
        let nearer = position.ran_out_of_time(now, &elsewhere, at).expect("even newer ones");
        assert_eq!(from(&nearer), place(100_000_000));
        assert!(position.ran_out_of_time(now, &nearer, at).is_none(), "there is no better place");
        let bite = position.next(now + REST_MAX);
        assert!(bite.part.is_bite(), "what lies behind is fetched");
        position.claimed(now, &bite, place(99_500_000), false, took(SHORT));
        assert_eq!(from(&position.next(now)), place(100_000_000), "a bite does not move the place");
        drop(Unsettled::new(&bite, place(99_400_000), place(99_500_000)));
        let again = position.next(now + REST_MAX);
        assert!(again.part.contains(place(99_500_000)), "{again:?}");
    }

    #[test]
    fn who_waits_looks_often_after_an_event_and_at_the_interval_when_it_is_quiet() {
        let began = Instant::now();
        let (position, hour) = (Position::new(began), Duration::from_secs(3600));
        let (mut now, mut looks) = (began, 0);
        while now < began + AWAKE {
            now = position.look_at(hour);
            position.looking(now);
            looks += 1;
        }
        assert!((100..500).contains(&looks), "{looks}");
        assert!(position.look_at(hour) >= now + hour - AWAKE, "nothing is asked before");
        position.due_in(now, Duration::from_secs(60));
        assert_eq!(position.look_at(hour), now + Duration::from_secs(60), "but what is known to be due is fetched");
        position.looking(now + Duration::from_secs(60));
        position.claimed(now + hour, &position.next(now), place(1), false, took(SHORT));
        assert_eq!(position.look_at(hour), now + hour + PAUSE_MIN);
        assert_eq!(position.look_at(Duration::from_millis(1)), now + hour + Duration::from_millis(1));
    }

    #[test]
    fn what_a_claim_held_and_left_is_looked_for_again_though_others_passed_it_by() {
        let now = Instant::now();
        let position = Position::new(now);
        let first = position.next(now);
        position.claimed(now, &first, place(7), true, took(LONG));
        let held = Unsettled::new(&first, place(1), place(7));
        position.claimed(now, &look(&position, place(7)), place(20), true, took(SHORT));
        held.settled(Some(place(8)), None);
        assert_eq!(from(&position.next(now)), place(8));
        position.back_to(place(9));
        assert_eq!(from(&position.next(now)), place(8), "what lies before it is not forgotten");
    }

    #[test]
    fn a_look_does_not_move_past_what_was_given_back_while_it_was_under_way() {
        let now = Instant::now();
        let position = Position::new(now);
        position.claimed(now, &position.next(now), place(7), true, took(LONG));
        let (first, second) = (look(&position, place(7)), look(&position, place(7)));
        position.back_to(place(9));
        position.back_to(place(8));
        position.claimed(now, &first, place(20), true, took(SHORT));
        assert_eq!(from(&position.next(now)), place(8));
        position.claimed(now, &look(&position, place(8)), place(15), true, took(SHORT));
        assert_eq!(from(&position.next(now)), place(15), "a look that began later saw it");
        position.claimed(now, &second, place(30), true, took(SHORT));
        assert_eq!(from(&position.next(now)), place(15), "an older look did not see what lies behind");
    }

    #[test]
    fn a_claim_that_is_not_settled_is_looked_for_again() {
        let now = Instant::now();
        let position = Position::new(now);
        let claim = position.next(now);
        position.claimed(now, &claim, place(7), true, took(LONG));
        Unsettled::new(&claim, place(1), place(7)).settled(None, None);
        assert_eq!(from(&position.next(now)), place(7));
        drop(Unsettled::new(&claim, place(1), place(7)));
        assert_eq!(from(&position.next(now)), QueuePlace::START);
    }
}
