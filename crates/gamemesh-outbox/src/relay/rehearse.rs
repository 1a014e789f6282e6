//! What was published and cannot be marked would be published again and again. So what is in doubt is rehearsed before it is
//! published: its mark is written and taken back. What fails that is left alone for a while; where nothing can be written, claims
//! go on behind it, look at all of it every other time, and publish nothing that was not rehearsed.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Backoff;
use super::claim::Batch;
use super::unwritten::HUNG;
use super::{Inner, Written};
use crate::error_chain;
use crate::store::{Left, Outcome, SettlePolicy, Settled, StoreError, StoreErrorKind, Unwritten};

/// How long an event is left alone whose outcome cannot be written. Whether it can be now is rehearsed then, which costs little
/// and no copy.
const EVENT: Backoff = Backoff { initial: Duration::from_secs(3), max: Duration::from_secs(60) };
/// How long, where the database hung over it: each try takes a worker's time.
const HUNG_EVENT: Backoff = Backoff { initial: Duration::from_secs(15), max: Duration::from_secs(120) };
/// How long, while nothing can be written: its row is looked at again soon after that is over.
const EVENT_OF_ALL: Backoff = Backoff { initial: Duration::from_secs(3), max: Duration::from_secs(15) };
/// How long, where that was rehearsed and went well: each try costs a copy.
const COPY: Backoff = Backoff { initial: Duration::from_secs(60), max: Duration::from_secs(600) };
/// How long nothing is tried while nothing can be written. A rehearsal publishes nothing and costs little.
pub(super) const REHEARSAL: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(5) };

/// What a rehearsal came to.
#[derive(Default)]
pub(super) struct Rehearsed {
    /// The events that are not published, each with its place in the claim and its outcome.
    withheld: Vec<(usize, Uuid, Outcome)>,
    /// Why, for one of them.
    reason: Option<String>,
    /// Whether everything that is published was rehearsed.
    all: bool,
}

/// What is to be learned from a settlement.
pub(super) struct Tried {
    /// The events that were published, and of which something is to be written.
    published: Vec<Uuid>,
    rehearsed: Rehearsed,
    /// Whether there is more behind them that may be otherwise.
    walks_on: bool,
}

impl Rehearsed {
    /// Returns an outcome for each claimed event, and what it is about.
    pub(super) fn settling(self, batch: &Batch<'_>, mut outcomes: Vec<Outcome>) -> (Vec<Outcome>, Tried) {
        let settled = batch.events.iter().zip(&outcomes).filter(|(_, outcome)| **outcome != Outcome::Released);
        let published = settled.map(|(event, _)| event.id).collect();
        for (place, _, outcome) in &self.withheld {
            outcomes.insert(*place, outcome.clone());
        }
        (outcomes, Tried { published, rehearsed: self, walks_on: batch.walks_on })
    }

    pub(super) fn withholds_any(&self) -> bool {
        !self.withheld.is_empty()
    }

    fn withholds(&self, id: Uuid) -> bool {
        self.withheld.iter().any(|(_, withheld, _)| *withheld == id)
    }
}

impl Inner {
    /// Rehearses what is in doubt, and takes out of `batch` what could not be settled.
    pub(super) async fn rehearse(&self, batch: &mut Batch<'_>) -> Result<Rehearsed, StoreError> {
        let ids: Vec<Uuid> = batch.events.iter().map(|event| event.id).collect();
        let policy = self.config.settle_policy();
        let mut most = self.unwritten.in_doubt(&ids);
        if most == 0 {
            return Ok(Rehearsed::default());
        }
        let (writing, began) = (self.telemetry.writing_outcomes(), Instant::now());
        let mut refused = self.try_to_settle(batch, most, &policy).await;
        if refused.as_ref().is_ok_and(|refused| !refused.is_empty()) && most < ids.len() {
            most = ids.len();
            refused = self.try_to_settle(batch, most, &policy).await;
        }
        let refused = match refused {
            Ok(refused) => refused,
            Err(error) => match ids[..] {
                // It held nobody up but a worker, and says nothing of the others.
                [id] if began.elapsed() > HUNG => {
                    let reason = error_chain(&error);
                    self.leave_alone(id, Left::Lost, &reason, HUNG_EVENT);
                    batch.events.clear();
                    batch.history.withholds(vec![0]);
                    let withheld = vec![(0, id, Outcome::Released)];
                    return Ok(Rehearsed { withheld, reason: Some(reason), all: true });
                }
                _ => {
                    writing.failed(&error);
                    return Err(error);
                }
            },
        };
        drop(writing);
        let backoff = if self.unwritten.nothing_is() { EVENT_OF_ALL } else { EVENT };
        let mut rehearsed = Rehearsed { all: most >= ids.len(), ..Rehearsed::default() };
        for unwritten in refused {
            let place = ids.iter().position(|id| *id == unwritten.id).expect("only what is claimed is rehearsed");
            let retry_in = self.leave_alone(unwritten.id, Left::Refused, &unwritten.reason, backoff);
            let reason = format!("not sent, because that could not be written: {}", unwritten.reason);
            rehearsed.withheld.push((place, unwritten.id, Outcome::Withheld { reason, retry_in }));
            rehearsed.reason = Some(unwritten.reason);
        }
        rehearsed.withheld.sort_by_key(|(place, ..)| *place);
        batch.events.retain(|event| !rehearsed.withholds(event.id));
        batch.history.withholds(rehearsed.withheld.iter().map(|(place, ..)| *place).collect());
        Ok(rehearsed)
    }

    async fn try_to_settle(
        &self,
        batch: &mut Batch<'_>,
        most: usize,
        policy: &SettlePolicy,
    ) -> Result<Vec<Unwritten>, StoreError> {
        let began = Instant::now();
        let refused = batch.claim.rehearse(most, policy).await;
        match &refused {
            Ok(_) => self.settle_size.written(most, began),
            Err(_) => {
                self.unwritten.failed(began);
                self.settle_size.failed(most);
            }
        }
        refused
    }

    /// Learns from a settlement, which began then, what can be written.
    pub(super) fn learn_what_is_written(&self, tried: Tried, began: Instant, settled: &Settled) -> Written {
        let Tried { published, rehearsed, walks_on } = tried;
        self.settle_size.written(published.len(), began);
        let backoff = if rehearsed.all { COPY } else { EVENT };
        let (mut refused, mut reason) = (0, rehearsed.reason.clone());
        for unwritten in &settled.unwritten {
            if unwritten.left != Left::Lost && !rehearsed.withholds(unwritten.id) {
                refused += 1;
                self.leave_alone(unwritten.id, unwritten.left, &unwritten.reason, backoff);
                reason = Some(unwritten.reason.clone());
            }
        }
        let is_unwritten = |id: Uuid| settled.unwritten.iter().any(|unwritten| unwritten.id == id);
        let waits = |outcome: &Outcome| matches!(outcome, Outcome::Withheld { .. });
        let waiting = rehearsed.withheld.iter().filter(|(_, id, outcome)| waits(outcome) && !is_unwritten(*id));
        waiting.for_each(|(_, id, _)| self.unwritten.waits(*id));
        let written: Vec<Uuid> = published.into_iter().filter(|id| !is_unwritten(*id)).collect();
        for id in self.unwritten.written(&written) {
            self.telemetry.outcome_written(id);
        }
        if !written.is_empty() {
            self.telemetry.outcomes_written();
            return Written::Well;
        }
        let Some(reason) = reason.filter(|_| self.unwritten.nothing_is()) else { return Written::NotThis };
        let nothing = self.nothing_is_written(&reason, if refused > 0 && rehearsed.all { COPY } else { REHEARSAL });
        // What comes next may be otherwise: it is known by then that so far nothing is written.
        if walks_on { Written::NotThis } else { nothing }
    }

    /// Learns from a settlement that failed as a whole. That is an outage, as any other; from the second time in a row on
    /// that it fails although it was rehearsed, each try costs a copy.
    pub(super) fn learn_of_failure(
        &self,
        tried: &Tried,
        began: Instant,
        error: StoreError,
    ) -> Result<Written, StoreError> {
        self.unwritten.failed(began);
        self.settle_size.failed(tried.published.len());
        let costs_a_copy = tried.rehearsed.all && !tried.published.is_empty();
        let may_pass = error.kind() == StoreErrorKind::Unavailable;
        if !(costs_a_copy && may_pass && self.unwritten.fails_all_the_same()) {
            return Err(error);
        }
        let reason = error_chain(&error);
        if let [id] = tried.published[..] {
            self.leave_alone(id, Left::Lost, &reason, COPY);
        }
        Ok(self.nothing_is_written(&reason, COPY))
    }

    /// Nothing is due, and nothing was left alone: what could not be written is written by others, or gone.
    pub(super) fn nothing_is_left(&self) {
        if let Some(gone) = self.unwritten.nothing_left() {
            gone.into_iter().for_each(|id| self.telemetry.outcome_forgotten(id));
            self.telemetry.outcomes_written();
            self.unwritten.breaker.close();
        }
    }

    /// Ends the troubles of events that did not come again, and lists those to leave alone now.
    pub(super) fn left_alone(&self) -> Vec<Uuid> {
        self.unwritten.forget_old().into_iter().for_each(|id| self.telemetry.outcome_forgotten(id));
        self.unwritten.left_alone()
    }

    fn leave_alone(&self, id: Uuid, left: Left, reason: &str, backoff: Backoff) -> Duration {
        let pause = self.unwritten.refused(id, left, backoff);
        self.telemetry.outcome_unwritten(id, reason, pause);
        pause
    }

    fn nothing_is_written(&self, reason: &str, backoff: Backoff) -> Written {
        self.telemetry.outcomes_unwritten(reason);
        Written::Nothing(backoff)
    }
}
