//! Where a benchmark works.

use outbox_relay::OwnPlace;

/// The schema in which a benchmark works.
pub(crate) const SCHEMA: &str = "outbox_bench";
/// Where its events go.
pub(crate) const TOPIC: &str = "outbox_bench.event";
/// What its topics begin with.
pub(crate) const TOPIC_PREFIX: &str = "outbox_bench";
/// The type of the events that are measured.
pub(crate) const EVENT_TYPE: &str = "measured";
/// The place on the bus that takes them.
pub(crate) const PLACE: OwnPlace = OwnPlace { stream: "outbox_bench", topic: TOPIC };
