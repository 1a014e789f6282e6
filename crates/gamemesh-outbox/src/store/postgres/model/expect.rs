//! What is expected of looks and claims.

use std::time::Duration;

use tokio::time::Instant;

use super::super::place::Part;
use super::super::position::{CHEAP, REST_MAX, REST_PER_LOOK};
use super::plan::POLL_INTERVAL_MAX;
use super::row::{Row, State, bytes};
use super::rules::Rule;
use super::watch::{Opening, Watch};
use crate::event::Event;
use crate::store::ClaimLimit;

/// How long a way back through the queue takes, and another one after it, however many bites it has: with rests between, and
/// some of them ended by the server.
const SWEPT_WITHIN: Duration = Duration::from_secs(600);

/// A look that claims.
pub(super) struct Look<'a> {
    pub(super) connection: u32,
    pub(super) part: Part,
    /// When its statement began.
    pub(super) began: i64,
    pub(super) at: i64,
    pub(super) limit: &'a ClaimLimit,
    pub(super) locked: &'a [usize],
}

impl Look<'_> {
    fn could_lock(&self, row: &Row) -> bool {
        row.state == State::Pending
            && row.held_by.is_none_or(|holder| holder == self.connection)
            && row.committed_at <= self.began
            && row.available_at <= self.began
            && !row.is_excepted(self.limit)
    }
}

impl Watch {
    /// A claim holds these events, which came of these rows.
    pub(super) fn claimed(&mut self, connection: u32, rows: &[&Row], events: &[Event], limit: &ClaimLimit) {
        let too_large = bytes(events) > limit.bytes && !(events.len() == 1 && limit.any_size);
        if too_large || events.len() > limit.events as usize || !rows.is_sorted_by_key(|row| row.place()) {
            self.broke(Rule::Limits, format!("{limit:?} came to {rows:?}"));
        }
        for (row, event) in rows.iter().zip(events) {
            if row.held_by != Some(connection) && !self.is_blamed(connection) {
                self.broke(Rule::HeldOnce, format!("{connection} claims {row:?}"));
            }
            if row.is_excepted(limit) {
                self.broke(Rule::Paused, format!("{connection} claims {row:?}"));
            }
            let is_bad = !row.can_be_published(limit.event_bytes);
            if is_bad {
                self.met("defects");
            }
            if is_bad != event.defect.is_some() {
                self.broke(Rule::Defect, format!("{row:?} came back as {event:?}"));
            }
        }
    }

    /// A statement found what it locks, and has not locked it yet.
    pub(super) fn looked(&mut self, look: &Look<'_>, rows: &mut [Row]) {
        self.tell(|| format!("{} us: {} looks at {:?}: {:?}", look.at, look.connection, look.part, look.locked));
        let opening = self.opening(look.connection);
        opening.part = Some(look.part);
        let (replica, number) = (opening.replica, opening.look);
        self.expect_reached(look, rows);
        self.expect_given_back(look, replica, number, rows);
    }

    fn expect_reached(&mut self, look: &Look<'_>, rows: &mut [Row]) {
        let under_way = |since: fn(&Opening) -> Option<Instant>| {
            let since = self.openings.values().filter(|opening| !opening.is_over).filter_map(since);
            since.map(|since| since.elapsed()).max().unwrap_or_default()
        };
        let longest_look = self.longest_look.max(CHEAP).max(under_way(|opening| opening.began));
        let longest_opening = self.longest_opening.max(under_way(|opening| Some(opening.at)));
        let rest = (REST_PER_LOOK * longest_look).min(REST_MAX);
        // A dear look is believed when the next one is as dear.
        let mut within = 3 * longest_look + rest + 2 * longest_opening + POLL_INTERVAL_MAX;
        if self.any_swept {
            within += SWEPT_WITHIN;
        }
        let within_us = i64::try_from(within.as_micros()).expect("a run is short");
        for (index, row) in rows.iter_mut().enumerate() {
            let reached = look.part.contains(row.place());
            if !look.could_lock(row) || reached {
                row.reached_at = look.at;
                continue;
            }
            if look.part.is_bite() {
                // It goes on from there.
                continue;
            }
            let passed_by = look.at - row.free_since.max(row.available_at).max(row.reached_at);
            if passed_by > within_us {
                row.reached_at = look.at;
                self.broke(Rule::Reached, format!("row {index} was passed by for {passed_by} us, not for {within:?}"));
            }
        }
    }

    fn expect_given_back(&mut self, look: &Look<'_>, replica: usize, number: u64, rows: &[Row]) {
        if look.part.is_bite() || self.opening(look.connection).sweeping {
            // Bites come to it.
            self.given_back.retain(|given_back| given_back.replica != replica);
            return;
        }
        let mut passed_by = Vec::new();
        self.given_back.retain(|given_back| {
            let row = &rows[given_back.row];
            if row.version != given_back.version {
                return false;
            }
            if given_back.replica != replica || given_back.look > number {
                return true;
            }
            let (could_lock, reached) = (look.could_lock(row), look.part.contains(row.place()));
            if could_lock && !reached {
                passed_by.push(given_back.row);
            }
            // The look may have ended before it.
            could_lock && reached && !look.locked.contains(&given_back.row)
        });
        for index in passed_by {
            self.broke(Rule::GivenBack, format!("replica {replica} gave row {index} back and passes it by"));
        }
    }
}
