use gamemesh_outbox::NewEvent;
use gamemesh_outbox::event::Headers;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::history::{Nanos, Payload};

/// One transaction of a producer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// When its producer knew how it ended, or gave up asking.
    pub at: Nanos,
    /// When it began.
    pub began: Nanos,
    /// Whose it was.
    pub producer: String,
    /// Its number, unique for its producer.
    pub number: u64,
    /// How it ended.
    pub outcome: TransactionOutcome,
    /// What it inserted, in order.
    pub events: Vec<Inserted>,
}

/// How a transaction ended, as far as its producer knows.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionOutcome {
    /// The database confirmed the commit.
    Committed,
    /// It was rolled back, or the database refused it.
    Aborted,
    /// The answer to the commit was lost. D knows.
    Unknown,
}

/// One event, as its producer inserted it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inserted {
    /// Its id.
    pub id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// Its trace context, as a consumer should get it: empty where what was inserted is none.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub carrier: Headers,
    /// The payload as it was given to the database.
    pub payload: Payload,
    /// What the database made of it, if the producer came to read it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
    /// Whether a bus may reject it by its own fault (a topic that is none, too large a payload). Only such an event may
    /// ever be charged an attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub poison: bool,
}

/// An event, as its own transaction reads it back from the database.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// The payload as the database writes it: `payload::text` in PostgreSQL, whose JSONB orders keys and drops spaces.
    pub payload: Payload,
    /// The row's `created_at`.
    pub created_at: Timestamp,
}

impl Inserted {
    /// Describes `event`, to which its producer has given a trace context or none, before it is inserted.
    pub fn of(event: &NewEvent) -> Self {
        let carrier = event.trace_carrier().iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            id: event.id(),
            topic: event.topic().to_owned(),
            event_type: event.event_type().to_owned(),
            key: event.event_key().map(str::to_owned),
            headers: event.headers().clone(),
            carrier: carrier.collect(),
            payload: Payload::of(event.payload().as_bytes()),
            stored: None,
            poison: false,
        }
    }
}
