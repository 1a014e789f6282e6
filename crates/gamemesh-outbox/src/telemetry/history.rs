//! What a relay does, claim by claim, as events at TRACE under the target `gamemesh_outbox::history`: what a checker needs
//! to tell from outside whether the relay kept its promises. Nothing is formatted unless somebody listens.
//!
//! Each event has the field `relay`, the name of the service, and these:
//!
//! | message | fields |
//! |---|---|
//! | `started` | |
//! | `claimed` | `claim`, `took_ns`, `ids` |
//! | `sending` | `claim` |
//! | `receipts` | `claim`, `receipts`: the outcomes of `publish_attempts_total`, one for each id |
//! | `settling` | `claim`, `outcomes`: `published`, `charged`, `deferred` or `released`, one for each id |
//! | `settled` | `claim`, `published` (rows), `dead_lettered` (ids) |
//! | `abandoned` | `claim`: it ended without a confirmed settlement |
//! | `stop requested` | |
//!
//! Lists are separated by commas. Claims are numbered from 1.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::trace;
use uuid::Uuid;

use super::outcome;
use crate::bus::Receipt;
use crate::event::Event;
use crate::store::{Outcome, Settled};

const TARGET: &str = "gamemesh_outbox::history";

/// The history of one relay.
#[derive(Debug)]
pub(super) struct History {
    relay: Arc<str>,
    claims: AtomicU64,
}

/// The history of one claim. Dropped before it is settled, it says that the claim was abandoned.
#[derive(Debug)]
pub(crate) struct ClaimHistory {
    relay: Arc<str>,
    claim: u64,
    settled: bool,
}

impl History {
    pub(super) fn new(relay: &str) -> Self {
        Self { relay: relay.into(), claims: AtomicU64::new(1) }
    }

    pub(super) fn started(&self) {
        trace!(target: TARGET, relay = &*self.relay, "started");
    }

    pub(super) fn stop_requested(&self) {
        trace!(target: TARGET, relay = &*self.relay, "stop requested");
    }

    pub(super) fn claimed(&self, took: Duration, events: &[Event]) -> ClaimHistory {
        let claim = self.claims.fetch_add(1, Ordering::Relaxed);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let ids = List(events, event_id);
        trace!(target: TARGET, relay = &*self.relay, claim, took_ns, %ids, "claimed");
        ClaimHistory { relay: self.relay.clone(), claim, settled: false }
    }
}

impl ClaimHistory {
    pub(super) fn sending(&self) {
        trace!(target: TARGET, relay = &*self.relay, claim = self.claim, "sending");
    }

    pub(super) fn receipts(&self, receipts: &[Receipt]) {
        let receipts = List(receipts, outcome);
        trace!(target: TARGET, relay = &*self.relay, claim = self.claim, %receipts, "receipts");
    }

    pub(super) fn settling(&self, outcomes: &[Outcome]) {
        let outcomes = List(outcomes, outcome_name);
        trace!(target: TARGET, relay = &*self.relay, claim = self.claim, %outcomes, "settling");
    }

    pub(super) fn settled(mut self, settled: &Settled) {
        self.settled = true;
        let dead_lettered = List(&settled.dead_lettered, Uuid::clone);
        let published = settled.published;
        trace!(target: TARGET, relay = &*self.relay, claim = self.claim, published, %dead_lettered, "settled");
    }
}

impl Drop for ClaimHistory {
    fn drop(&mut self) {
        if !self.settled {
            trace!(target: TARGET, relay = &*self.relay, claim = self.claim, "abandoned");
        }
    }
}

fn event_id(event: &Event) -> Uuid {
    event.id
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Published => "published",
        Outcome::Charged { .. } => "charged",
        Outcome::Deferred { .. } => "deferred",
        Outcome::Released => "released",
    }
}

/// Writes something of each item, separated by commas.
struct List<'a, T, S>(&'a [T], fn(&T) -> S);

impl<T, S: Display> Display for List<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, item) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            (self.1)(item).fmt(f)?;
        }
        Ok(())
    }
}
