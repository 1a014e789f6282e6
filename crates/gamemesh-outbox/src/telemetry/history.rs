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
//! | `receipts` | `claim`, `receipts`: the outcomes of `publish_attempts_total`, `unsent` or `withheld`, one for each id |
//! | `settling` | `claim`, `outcomes`: `published`, `charged`, `deferred`, `withheld` or `released`, one for each id |
//! | `settled` | `claim`, `published` (rows), `dead_lettered` (ids), `unwritten` (ids) |
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

use super::events::outcome;
use crate::bus::Receipt;
use crate::event::Event;
use crate::store::{Outcome, Settled};

/// The target of these events.
pub const HISTORY_TARGET: &str = "gamemesh_outbox::history";

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
    /// The places of the events that are not sent.
    withheld: Vec<usize>,
    settled: bool,
}

impl History {
    pub(super) fn new(relay: &str) -> Self {
        Self { relay: relay.into(), claims: AtomicU64::new(1) }
    }

    pub(super) fn started(&self) {
        trace!(target: HISTORY_TARGET, relay = &*self.relay, "started");
    }

    pub(super) fn stop_requested(&self) {
        trace!(target: HISTORY_TARGET, relay = &*self.relay, "stop requested");
    }

    pub(super) fn claimed(&self, took: Duration, events: &[Event]) -> ClaimHistory {
        let claim = self.claims.fetch_add(1, Ordering::Relaxed);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let ids = List(events, event_id);
        trace!(target: HISTORY_TARGET, relay = &*self.relay, claim, took_ns, %ids, "claimed");
        ClaimHistory { relay: self.relay.clone(), claim, withheld: Vec::new(), settled: false }
    }
}

impl ClaimHistory {
    pub(super) fn sending(&self) {
        trace!(target: HISTORY_TARGET, relay = &*self.relay, claim = self.claim, "sending");
    }

    /// Notes the places of events that are not sent.
    pub(crate) fn withholds(&mut self, places: Vec<usize>) {
        self.withheld = places;
    }

    pub(super) fn receipts(&self, receipts: &[Option<Receipt>]) {
        let named = receipts.iter().map(|receipt| receipt.as_ref().map_or("unsent", outcome));
        let mut receipts: Vec<&str> = named.collect();
        for place in &self.withheld {
            receipts.insert(*place, "withheld");
        }
        let receipts = List(&receipts, |receipt: &&str| receipt.to_string());
        trace!(target: HISTORY_TARGET, relay = &*self.relay, claim = self.claim, %receipts, "receipts");
    }

    pub(super) fn settling(&self, outcomes: &[Outcome]) {
        let outcomes = List(outcomes, outcome_name);
        trace!(target: HISTORY_TARGET, relay = &*self.relay, claim = self.claim, %outcomes, "settling");
    }

    pub(super) fn settled(mut self, settled: &Settled) {
        self.settled = true;
        let dead_lettered = List(&settled.dead_lettered, Uuid::clone);
        let unwritten = List(&settled.unwritten, |unwritten| unwritten.id);
        let published = settled.published;
        trace!(
            target: HISTORY_TARGET, relay = &*self.relay, claim = self.claim, published, %dead_lettered, %unwritten, "settled"
        );
    }
}

impl Drop for ClaimHistory {
    fn drop(&mut self) {
        if !self.settled {
            trace!(target: HISTORY_TARGET, relay = &*self.relay, claim = self.claim, "abandoned");
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
        Outcome::Withheld { .. } => "withheld",
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
