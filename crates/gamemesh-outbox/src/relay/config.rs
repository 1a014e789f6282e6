use std::time::Duration;

use super::backoff::Backoff;
use super::decide::Charge;
use crate::store::{OnPublished, SettlePolicy};
use crate::validate::Validator;

/// How a relay works. The defaults are those of `outbox-relay`.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Most events of one batch while no backlog is seen.
    pub batch_size: u32,
    /// To which size batches grow while each is full.
    pub batch_size_max: u32,
    /// Most payload bytes of one batch.
    pub batch_bytes: u64,
    /// Batches in progress at the same time, each with a database connection of its own.
    pub workers: u32,
    /// How long an idle relay waits before it looks again; nothing of it asks the store more often then.
    pub poll_interval: Duration,
    /// Charged attempts after which an event is set aside as FAILED; 0 means never.
    pub attempts_max: u32,
    /// Which failed publishes are charged.
    pub charge: Charge,
    /// How long a route may take nothing while others do, before its failed publishes are charged, too; `None` is for ever.
    pub charge_routes_after: Option<Duration>,
    /// What becomes of an acknowledged event's row.
    pub on_published: OnPublished,
    /// How long the bus may take to acknowledge a batch.
    pub publish_timeout: Duration,
    /// How long a failed event waits before its next attempt.
    pub retry: Backoff,
    /// How long the relay waits before it tries a bus or a store again that was down.
    pub outage: Backoff,
    /// How long batches in progress may take to finish after a stop, before they are given back.
    pub drain_timeout: Duration,
    /// How often the backlog is counted while batches are carried; an idle relay counts every ten seconds at most.
    pub backlog_interval: Duration,
    /// What the bus can carry.
    pub validator: Validator,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch_size: 100,
            batch_size_max: 500,
            batch_bytes: 4 * 1024 * 1024,
            workers: 4,
            poll_interval: Duration::from_secs(1),
            attempts_max: 0,
            charge: Charge::Rejected,
            charge_routes_after: None,
            on_published: OnPublished::Mark,
            publish_timeout: Duration::from_secs(5),
            retry: Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(300) },
            outage: Backoff { initial: Duration::from_millis(250), max: Duration::from_secs(2) },
            drain_timeout: Duration::from_secs(8),
            backlog_interval: Duration::from_secs(1),
            validator: Validator::default(),
        }
    }
}

/// How long a claim may live besides publishing and settling.
const GRACE: Duration = Duration::from_secs(1);
/// The longest wait for a route that says nothing while others answer, unless its answers are known to take longer.
const LAGGARD: Duration = Duration::from_millis(250);

impl RelayConfig {
    /// Returns how long a claim may live whose publish takes `publish` at most: that, and about as long again as a quick
    /// publish for everything around it.
    pub(super) fn claim_lifetime(&self, publish: Duration) -> Duration {
        publish + self.publish_timeout + GRACE
    }

    /// Returns how long a route that says nothing is waited for while others answer.
    pub(super) fn laggard(&self) -> Duration {
        LAGGARD.min(self.publish_timeout / 2)
    }

    pub(super) fn settle_policy(&self) -> SettlePolicy {
        SettlePolicy { attempts_max: self.attempts_max, on_published: self.on_published }
    }
}
