//! What is in the outbox right now, for a person who wants to know how it is doing.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;

use super::StoreError;

/// What is in the outbox, by the store's own clock. The numbers are read one after the other, so events that move
/// meanwhile may be counted twice or not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overview {
    /// PENDING rows: those due and those waiting.
    pub pending: u64,
    /// PENDING rows that a relay may claim.
    pub due: u64,
    /// PENDING rows whose time has not come.
    pub waiting: u64,
    /// FAILED rows.
    pub failed: u64,
    /// PUBLISHED rows that are still kept.
    pub published: u64,
    /// How long the oldest due row has been due; `None` when nothing is due.
    pub oldest_due_age: Option<Duration>,
    /// When the oldest FAILED row was inserted.
    pub oldest_dead_letter: Option<Timestamp>,
    /// The topics with the most PENDING rows, the largest first.
    pub topics: Vec<TopicBacklog>,
    /// The relays that are connected, where the store can tell; the connection that asks is nobody's.
    pub relays: Vec<RelaySeen>,
}

/// The backlog of one topic.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TopicBacklog {
    /// The topic.
    pub topic: String,
    /// Its PENDING rows.
    pub pending: u64,
}

/// A relay that is connected to the store.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RelaySeen {
    /// The address it comes from; behind a pooler, the pooler's.
    pub client: String,
    /// Its connections.
    pub connections: u64,
}

/// Says what is in a store.
#[async_trait]
pub trait Overviews: Send + Sync + 'static {
    /// Counts everything, and lists up to `topics` topics. Reads the whole backlog and the index of kept rows: for a
    /// person's question, not for a gauge.
    async fn overview(&self, topics: u32) -> Result<Overview, StoreError>;

    /// Lists the relays that are connected, the one that asks included; `None` where the store cannot tell. Cheap enough to
    /// be asked again and again.
    async fn relays(&self) -> Result<Option<Vec<RelaySeen>>, StoreError>;
}
