use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::super::place::{Part, QueuePlace};
use super::super::position::{CHEAP, REST_PER_LOOK};
use super::super::sweep::BITE_MAX;
use super::row::Row;
use super::rules::Rule;

/// Whoever watches that the rules are kept. Knows what no relay can know.
#[derive(Default)]
pub(super) struct Watch {
    /// Whether it tells what happens.
    pub(super) tells: bool,
    pub(super) broken: Vec<(Rule, String)>,
    pub(super) met: BTreeMap<&'static str, u64>,
    /// By connection.
    pub(super) openings: BTreeMap<u32, Opening>,
    /// Connections that something happened to.
    blamed: BTreeSet<u32>,
    pub(super) given_back: Vec<GivenBack>,
    /// By replica.
    rests: BTreeMap<usize, Rest>,
    /// Whether any replica had to go back through the queue in bites.
    pub(super) any_swept: bool,
    /// The replica of each connection that looks for somebody who waits.
    waiters: BTreeMap<u32, usize>,
    pub(super) longest_look: Duration,
    pub(super) longest_opening: Duration,
    looks: u64,
}

/// A claim that is being opened, or was.
pub(super) struct Opening {
    pub(super) replica: usize,
    pub(super) at: Instant,
    pub(super) is_over: bool,
    rest_until: Option<Instant>,
    /// The number of its last look, among those of everybody.
    pub(super) look: u64,
    /// Whether that is the first of the opening.
    is_first: bool,
    /// Where that look was asked to begin.
    asked_from: Option<QueuePlace>,
    /// And what it looked at.
    pub(super) part: Option<Part>,
    row_by_row: bool,
    /// Whether its replica goes back through the queue in bites.
    pub(super) sweeping: bool,
    /// When that look began, and when the last statement of it was answered.
    pub(super) began: Option<Instant>,
    answered: Option<Instant>,
}

/// What a replica held and knows to be free again, as it was then.
pub(super) struct GivenBack {
    pub(super) replica: usize,
    pub(super) row: usize,
    pub(super) version: u32,
    /// The first look that must not pass it by.
    pub(super) look: u64,
}

/// Until when a replica does not look from the start.
#[derive(Default)]
struct Rest {
    until: Option<Instant>,
    /// Whether it knows another place.
    placed: bool,
    /// The first look that can have shown it one.
    look: u64,
}

impl Watch {
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{}", what());
        }
    }

    pub(super) fn broke(&mut self, rule: Rule, what: String) {
        self.tell(|| format!("BROKEN {rule:?}: {what}"));
        self.broken.push((rule, what));
    }

    pub(super) fn met(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    /// Something happens to a connection: its claim may fail.
    pub(super) fn blame(&mut self, connection: u32) {
        self.blamed.insert(connection);
    }

    pub(super) fn is_blamed(&self, connection: u32) -> bool {
        self.blamed.contains(&connection)
    }

    pub(super) fn opening(&mut self, connection: u32) -> &mut Opening {
        self.openings.get_mut(&connection).expect("a claim is opened on it")
    }

    // --- Openings ----------------------------------------------------------------------------------------------------

    /// A replica begins to open a claim, and knows where.
    pub(super) fn opens(&mut self, connection: u32, replica: usize) {
        self.looks += 1;
        let rest_until = self.rests.get(&replica).and_then(|rest| rest.until.filter(|_| rest.placed));
        let opening = Opening {
            replica,
            at: Instant::now(),
            is_over: false,
            rest_until,
            look: self.looks,
            is_first: true,
            asked_from: None,
            part: None,
            row_by_row: false,
            sweeping: false,
            began: None,
            answered: None,
        };
        self.openings.insert(connection, opening);
    }

    /// A claim is open, or nothing was due.
    pub(super) fn has_opened(&mut self, connection: u32, claimed: bool, sweeps: bool) {
        self.look_is_over(connection);
        self.opening_is_over(connection);
        let &mut Opening { replica, look, part, sweeping, .. } = self.opening(connection);
        self.met(if claimed { "claims" } else { "looks in vain" });
        let rest = self.rests.entry(replica).or_default();
        rest.placed |= claimed && look >= rest.look;
        if !claimed && part != Some(Part::ALL) && !sweeping && !sweeps {
            self.broke(Rule::NothingDue, format!("the last look was one at {part:?}"));
        }
    }

    /// A claim was not opened, and nobody can say what it would have reached.
    pub(super) fn failed_to_open(&mut self, connection: u32, rows: &mut [Row], at: i64) {
        self.opening_is_over(connection);
        rows.iter_mut().for_each(|row| row.reached_at = at);
    }

    fn opening_is_over(&mut self, connection: u32) {
        let opening = self.opening(connection);
        opening.is_over = true;
        let took = opening.at.elapsed();
        self.longest_opening = self.longest_opening.max(took);
    }

    /// What a claim held is free again, or is about to be, and its replica knows.
    pub(super) fn gives_back(&mut self, connection: u32, held: &[(usize, u32)]) {
        let &mut Opening { replica, row_by_row, .. } = self.opening(connection);
        let look = self.looks + 1;
        self.given_back.extend(held.iter().map(|&(row, version)| GivenBack { replica, row, version, look }));
        if row_by_row {
            // It may not have come to all of them, and does not say where it ended.
            self.forgets(replica);
        }
    }

    /// A replica may look from the start at once.
    pub(super) fn forgets(&mut self, replica: usize) {
        self.rests.insert(replica, Rest { until: None, placed: false, look: self.looks + 1 });
    }

    /// A replica begins, and knows nothing.
    pub(super) fn begins(&mut self, replica: usize) {
        self.forgets(replica);
        self.given_back.retain(|given_back| given_back.replica != replica);
        let openings = self.openings.values_mut().filter(|opening| opening.replica == replica);
        openings.for_each(|opening| opening.is_over = true);
    }

    // --- Those who wait ----------------------------------------------------------------------------------------------

    /// A replica takes a connection for a look.
    pub(super) fn waits(&mut self, connection: u32, replica: usize) {
        self.waiters.insert(connection, replica);
    }

    /// Whoever waits looks, from the start although it knows another place or not.
    pub(super) fn waiter_looks(&mut self, connection: u32, hurries: bool) {
        let replica = self.waiters[&connection];
        if hurries {
            let rest_until = self.rests.get(&replica).and_then(|rest| rest.until.filter(|_| rest.placed));
            self.goes_to_start(replica, rest_until);
        }
    }

    /// What it found may lie behind the place where the replica looks.
    pub(super) fn waiter_looked(&mut self, connection: u32, from_start: bool, took: Duration, found: bool) {
        let replica = self.waiters[&connection];
        if found {
            self.rests.entry(replica).or_default().until = None;
            return;
        }
        self.met("looks in vain");
        if from_start {
            self.look_took(replica, QueuePlace::START, took);
        }
    }

    // --- Looks -------------------------------------------------------------------------------------------------------

    /// A transaction begins, for a look or for another way to do it.
    pub(super) fn look_begins(&mut self, connection: u32) {
        self.opening(connection).began.get_or_insert(Instant::now());
    }

    /// A claim is asked for. Says whether it is the first of an opening.
    pub(super) fn look_asks(&mut self, connection: u32, from: QueuePlace, sweeping: bool, placed: bool) -> bool {
        let next = self.looks + 1;
        self.any_swept |= sweeping;
        let opening = self.opening(connection);
        opening.sweeping = sweeping;
        opening.asked_from = Some(from);
        if !opening.is_first {
            opening.look = next;
            self.looks = next;
            return false;
        }
        if from == QueuePlace::START {
            let &mut Opening { replica, rest_until, .. } = self.opening(connection);
            self.goes_to_start(replica, rest_until.filter(|_| placed));
        } else {
            self.met("looks from a place");
        }
        true
    }

    /// A replica decided to look from the start.
    fn goes_to_start(&mut self, replica: usize, rest_until: Option<Instant>) {
        let start_at = Instant::now() + Duration::from_millis(1);
        if let Some(until) = rest_until.filter(|until| start_at < *until) {
            let early = until - start_at;
            self.broke(Rule::Rest, format!("replica {replica} looks from the start {early:?} too early"));
        }
    }

    pub(super) fn look_goes_row_by_row(&mut self, connection: u32, part: Part) {
        let opening = self.opening(connection);
        (opening.row_by_row, opening.part) = (true, Some(part));
        if part.is_bite() {
            opening.sweeping = true;
            let replica = opening.replica;
            self.any_swept = true;
            self.rests.entry(replica).or_default().until = None;
            self.met("bites");
        }
    }

    pub(super) fn look_is_answered(&mut self, connection: u32) {
        self.opening(connection).answered = Some(Instant::now());
    }

    /// Nothing more comes of a look.
    pub(super) fn look_is_over(&mut self, connection: u32) {
        let opening = self.opening(connection);
        let replica = opening.replica;
        if let (Some(from), Some(began), Some(answered)) =
            (opening.asked_from, opening.began.take(), opening.answered.take())
        {
            opening.is_first = false;
            self.look_took(replica, from, answered - began);
        }
    }

    fn look_took(&mut self, replica: usize, from: QueuePlace, took: Duration) {
        self.longest_look = self.longest_look.max(took);
        self.tell(|| format!("replica {replica} looked from {from:?}: {took:?}"));
        if from == QueuePlace::START {
            let rest = self.rests.entry(replica).or_default();
            // What took longer than any look may is not believed at once, and then there are no more such looks.
            let believed = if took > BITE_MAX { CHEAP } else { took };
            rest.until = (took > CHEAP).then(|| Instant::now() + REST_PER_LOOK * believed);
        }
    }
}
