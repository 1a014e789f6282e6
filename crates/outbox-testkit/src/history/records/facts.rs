use std::collections::BTreeMap;

use gamemesh_outbox::store::OnPublished;
use serde::{Deserialize, Serialize};

use super::relays::{ReceiptKind, RelayRun};
use crate::history::Nanos;

/// What a run was like, beyond what happened in it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// How the relays were configured at the beginning; [`Fault::Configured`](super::faults::Fault) says what changed.
    pub configuration: Configuration,
    /// How far two sources may disagree about the time, nanoseconds: 0 in a simulation; on one machine at least the
    /// precision of the coarsest clock (a bus may stamp to the millisecond) and what lies between doing something and noting the time.
    pub clock_tolerance: Nanos,
    /// How long the bus remembers ids and drops copies, nanoseconds; `None` if it keeps every copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_window: Option<Nanos>,
    /// Whether the relays export spans, and so put themselves into each event's trace context.
    pub relays_trace: bool,
    /// How it was when everything had come to rest; `None` if the recording ended before: then nothing is demanded of
    /// what is still on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Rest>,
}

/// How relays were configured, as far as it changes what is allowed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Charged attempts after which an event is FAILED; 0: never.
    pub attempts_max: u32,
    /// Whether every failed publish is charged, instead of those that are the event's own fault.
    #[serde(default)]
    pub charges_all: bool,
    /// What becomes of an acknowledged event's row.
    pub on_published: OnPublished,
    /// How long published rows are kept, nanoseconds; `None` if nothing prunes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Nanos>,
    /// The longest wait that a relay may give a failed event, jitter included, nanoseconds.
    pub retry_max: Nanos,
    /// The longest that a settlement may take from its statements to its commit, nanoseconds.
    pub settle_max: Nanos,
}

/// The gauges and counters when nothing was on its way any more.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// When they were read.
    pub at: Nanos,
    /// The gauge of PENDING rows.
    pub pending: u64,
    /// The gauge of FAILED rows.
    pub failed: u64,
    /// The counters of each relay that was there to be asked, or was asked last before a clean stop.
    pub relays: Vec<Counters>,
}

/// The counters of one run of one relay.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Whose.
    pub relay: RelayRun,
    /// `events_published_total`.
    pub published: u64,
    /// `publish_failures_total`.
    pub publish_failures: u64,
    /// `events_dead_lettered_total`.
    pub dead_lettered: u64,
    /// `publish_attempts_total`, by outcome; an outcome that is not listed counts 0.
    pub attempts: BTreeMap<ReceiptKind, u64>,
}
