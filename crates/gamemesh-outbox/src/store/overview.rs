//! What is in the outbox right now, for a person who wants to know how it is doing.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Route, StoreError};

/// How many events of the queue are looked at to count what waits by topic and type.
pub const LOOKED_AT: u32 = 100_000;

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
    /// PENDING rows that keep failing: those that were charged
    /// [`FAILING_ATTEMPTS`](crate::store::FAILING_ATTEMPTS) attempts or more, whether due or waiting.
    pub failing: u64,
    /// When the oldest of those was inserted.
    pub oldest_failing: Option<Timestamp>,
    /// The topics with the most of those, the largest first.
    pub failing_topics: Vec<FailingTopic>,
    /// PENDING rows that nobody has tried yet and that are due only in more than a minute.
    pub due_later: u64,
    /// How many of those were inserted, as they say, at a time that has not come: a clock was ahead.
    pub from_the_future: u64,
    /// When the first and the last of those that are due later are due.
    pub due_later_span: Option<(Timestamp, Timestamp)>,
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
    /// How long its oldest due row has been due; `None` when nothing is due.
    #[serde(rename = "oldest_due_age_seconds", serialize_with = "seconds")]
    pub oldest_due_age: Option<Duration>,
}

/// What waits of one topic and type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteBacklog {
    /// The topic and the type.
    pub route: Route,
    /// Its PENDING rows, as far as they were looked at.
    pub waiting: u64,
    /// How long the oldest due one of them has been due; `None` when nothing is due.
    pub oldest_due_age: Option<Duration>,
}

fn seconds<S: Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    age.map(|age| age.as_secs_f64()).serialize(serializer)
}

/// Events of one topic that keep failing.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FailingTopic {
    /// The topic.
    pub topic: String,
    /// How many there are.
    pub failing: u64,
    /// One of those that failed most recently or most often.
    pub example: Uuid,
    /// Why that one failed.
    pub last_error: String,
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

    /// Counts what waits by topic and type, most first. Looks at no more than the first [`LOOKED_AT`] events of the queue, and
    /// lists no more than a thousand routes: cheap enough for a page.
    async fn routes(&self) -> Result<Vec<RouteBacklog>, StoreError>;

    /// Lists up to `topics` topics whose events keep failing, the largest first. Reads those events alone.
    async fn failing(&self, topics: u32) -> Result<Vec<FailingTopic>, StoreError>;

    /// Lists the relays that are connected, the one that asks included; `None` where the store cannot tell. Cheap enough to
    /// be asked again and again.
    async fn relays(&self) -> Result<Option<Vec<RelaySeen>>, StoreError>;
}
