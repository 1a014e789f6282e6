//! From receipts to outcomes.

use super::Inner;
use super::decide::{Verdict, decide};
use super::routes::Paused;
use crate::bus::{BusError, Receipt};
use crate::event::Event;
use crate::store::{Outcome, Route};

/// What became of a batch.
pub(super) struct Judged {
    /// One for each event, in order.
    pub(super) outcomes: Vec<Outcome>,
    /// Whether the batch met an outage: nothing was acknowledged, and the bus is to blame.
    pub(super) outage: bool,
}

impl Inner {
    pub(super) fn judge(&self, events: &[Event], receipts: &[Receipt]) -> Judged {
        let any_acked = receipts.iter().any(Result::is_ok);
        let acked = events.iter().zip(receipts).filter(|(_, receipt)| receipt.is_ok());
        self.paused.resume(acked.map(|(event, _)| Route::of(event)));

        let mut held = false;
        let judged = events.iter().zip(receipts).map(|(event, receipt)| {
            let Err(error) = receipt else { return Outcome::Published };
            match decide(Some(error.kind()), any_acked) {
                Verdict::Publish => unreachable!("a failed receipt is never published"),
                Verdict::Charge => self.charge(event, error),
                Verdict::Defer => self.defer(),
                Verdict::Hold => {
                    if !std::mem::replace(&mut held, true) {
                        self.telemetry.held(error);
                    }
                    Outcome::Released
                }
                Verdict::PauseRoute => self.pause_route(event, error),
            }
        });
        let outcomes = judged.collect();
        Judged { outcomes, outage: held && !any_acked }
    }

    fn charge(&self, event: &Event, error: &BusError) -> Outcome {
        let retry_in = self.config.retry.after(event.attempt_count.max(0).unsigned_abs());
        self.telemetry.rejected(event, error, retry_in);
        Outcome::Charged { error: error.chain(), retry_in }
    }

    fn defer(&self) -> Outcome {
        Outcome::Deferred { retry_in: self.config.retry.after(0) }
    }

    fn pause_route(&self, event: &Event, error: &BusError) -> Outcome {
        match self.paused.pause(Route::of(event)) {
            Paused::Newly(pause) => self.telemetry.route_paused(event, error, pause),
            Paused::Already => {}
            Paused::NoRoom => return self.defer(),
        }
        Outcome::Released
    }
}
