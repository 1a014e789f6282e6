//! From receipts to outcomes.

use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::decide::{Acked, Verdict, counts, decide};
use super::routes::{Failed, Lane, Paused, Took};
use super::well::LATELY;
use super::window::Size;
use crate::bus::{BusError, BusErrorKind, Receipt};
use crate::event::Event;
use crate::store::{Outcome, Route};

/// What became of a batch.
pub(super) struct Judged {
    /// One for each event, in order.
    pub(super) outcomes: Vec<Outcome>,
    /// Whether the batch met an outage: no route takes anything, and the bus is to blame.
    pub(super) outage: bool,
    /// Whether an answer did not come in time that should have, as no single route is to blame.
    pub(super) late: bool,
}

/// How long the first and the last answer to a batch took.
pub(super) type Answers = (Duration, Duration);

/// What became of a batch that was published.
pub(super) struct Sent {
    /// One for each event, in order; `None` for one that was left alone.
    pub(super) receipts: Vec<Option<Receipt>>,
    pub(super) took: Duration,
    /// What was sent.
    pub(super) size: Size,
    pub(super) answers: Option<Answers>,
}

impl Inner {
    /// Judges the receipts of `events`; those that were not sent have none, and stay as they are.
    pub(super) fn judge(&self, events: &[Event], sent: &Sent, lane: Option<Lane>) -> Judged {
        let receipts = &sent.receipts;
        let mut acked: Vec<&Event> = Vec::new();
        let mut failed: Vec<&Event> = Vec::new();
        for (event, receipt) in events.iter().zip(receipts) {
            match receipt {
                Some(Ok(_)) => note(&mut acked, event),
                Some(Err(error)) if error.kind() != BusErrorKind::Rejected => note(&mut failed, event),
                Some(Err(_)) | None => {}
            }
        }
        // What other batches of the same route got meanwhile counts as if it were in this one.
        let began = Instant::now() - sent.took;
        let (mut its_route, failed): (Vec<&Event>, Vec<&Event>) =
            failed.into_iter().partition(|event| self.well.took_since(event, began));
        self.note_routes(&acked, &failed, sent);
        its_route.extend(&acked);

        // A patient try may take longer than lately is.
        let others_acked = self.well.any_lately() || lane == Some(Lane::Patient) && self.well.others_since(began, &[]);
        let (mut held, mut late) = (None, false);
        let judged = events.iter().zip(receipts).map(|(event, receipt)| {
            let error = match receipt {
                None => return self.keep(event),
                Some(Ok(_)) => return Outcome::Published,
                Some(Err(error)) => error,
            };
            let around = if its_route.iter().any(|acked| acked.has_route_of(event)) {
                Acked::ItsRoute
            } else if others_acked {
                Acked::OtherRoutes
            } else {
                Acked::Nobody
            };
            let verdict = decide(Some(error.kind()), around);
            late |= error.kind() == BusErrorKind::Unknown && verdict != Verdict::PauseRoute;
            // What becomes of it where it does not count; what its route and the bus are told is the same where it does.
            let uncounted = match verdict {
                Verdict::Publish => unreachable!("a failed receipt is never published"),
                Verdict::Charge | Verdict::Defer => self.defer(),
                Verdict::Hold => {
                    held.get_or_insert(error);
                    self.pause_route(event, error, true, sent, lane)
                }
                Verdict::PauseRoute => self.pause_route(event, error, false, sent, lane),
            };
            let given_up = self.paused.given_up(event);
            if counts(verdict, self.config.charge, given_up) { self.charge(event, error) } else { uncounted }
        });
        let outcomes = judged.collect();
        if let Some(error) = held {
            self.telemetry.held(error);
            // What began a moment ago with single routes was the beginning of this.
            for route in self.paused.new_since(2 * LATELY) {
                self.telemetry.route_shares_outage(&route);
            }
        }
        Judged { outcomes, outage: held.is_some(), late }
    }

    /// Takes in which routes work. An acknowledgement of any is the end of an outage, and then all are worth a try.
    fn note_routes(&self, acked: &[&Event], failed: &[&Event], sent: &Sent) {
        let (first, last) = sent.answers.unwrap_or((sent.took, sent.took));
        for event in failed {
            self.well.failed(event);
        }
        for event in acked {
            self.well.took(event, last);
            match self.paused.took(event, first) {
                Took::InTime => self.telemetry.route_works(&Route::of(event)),
                Took::Slowly => self.telemetry.route_is_slow(event, first),
            }
        }
        if !acked.is_empty() && self.bus_breaker.close() {
            self.paused.retry_now();
        }
    }

    /// What was not sent is as it was, or out of the way for as long as its route rests.
    fn keep(&self, event: &Event) -> Outcome {
        match self.paused.waits(event) {
            Some(retry_in) => Outcome::Deferred { retry_in },
            None => Outcome::Released,
        }
    }

    fn charge(&self, event: &Event, error: &BusError) -> Outcome {
        let retry_in = self.config.retry.after(event.attempt_count.max(0).unsigned_abs());
        self.telemetry.charged(event, error, retry_in);
        Outcome::Charged { error: error.chain(), retry_in }
    }

    fn defer(&self) -> Outcome {
        Outcome::Deferred { retry_in: self.config.retry.after(0) }
    }

    fn pause_route(&self, event: &Event, error: &BusError, outage: bool, sent: &Sent, lane: Option<Lane>) -> Outcome {
        let silent = error.kind() == BusErrorKind::Unknown;
        let failed = Failed { silent, outage, took: sent.took, lane };
        let paused = self.paused.pause(Route::of(event), failed);
        let (rest, tell) = match paused {
            Paused::Newly { rest, tell } => (rest, tell),
            Paused::Already => (Duration::ZERO, false),
            Paused::NoRoom(rest) => (rest, false),
        };
        // What concerns all routes is no route's trouble.
        if !outage {
            self.telemetry.route_fails(event, error, rest, tell);
        }
        match paused {
            Paused::NoRoom(retry_in) if !outage => Outcome::Deferred { retry_in },
            _ => Outcome::Released,
        }
    }
}

/// Adds the first event of each route.
fn note<'a>(routes: &mut Vec<&'a Event>, event: &'a Event) {
    if !routes.iter().rev().any(|known| known.has_route_of(event)) {
        routes.push(event);
    }
}
