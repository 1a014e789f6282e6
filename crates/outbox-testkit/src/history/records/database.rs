use gamemesh_outbox::Event;
use gamemesh_outbox::store::Status;
use gamemesh_outbox::store::dead_letters::Action;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::history::{Digest, Nanos, Payload};

/// One committed change of a row.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When its transaction was committed, by the database's clock.
    pub at: Nanos,
    /// Where the database's log says that it was committed. Larger is later, and no two transactions share one.
    pub lsn: u64,
    /// Its transaction.
    pub xid: u32,
    /// What was changed.
    pub op: Op,
}

/// What a change did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Inserted a row into `outbox_events`.
    Insert(Row),
    /// Changed it; what it was before is in the history.
    Update(Row),
    /// Deleted it.
    Delete {
        /// Which.
        id: Uuid,
    },
    /// Inserted a row into `outbox_audit`.
    Audit {
        /// The event that a person changed.
        event_id: Uuid,
        /// In the course of which request.
        request_id: Uuid,
        /// What was done to it.
        action: Action,
    },
}

/// A row of `outbox_events` after a change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The event.
    pub id: Uuid,
    /// Its state.
    pub status: Status,
    /// Attempts charged.
    pub attempt_count: i32,
    /// When it was inserted.
    pub created_at: Timestamp,
    /// When it is due.
    pub available_at: Timestamp,
    /// When it was marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// Its payload as the database writes it; `None` if the database did not repeat a large one that has not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// Of everything in it that nobody may change; `None` if the database did not repeat all of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
}

impl Row {
    /// Describes the row of `event`, for a store that knows events and not columns.
    pub fn of(event: &Event, status: Status, available_at: Timestamp, published_at: Option<Timestamp>) -> Self {
        let headers = serde_json::to_string(&event.headers).expect("a map of strings always serializes");
        let content = Digest::of_parts([
            event.topic.as_bytes(),
            event.event_type.as_bytes(),
            event.key.as_deref().map_or(&[], str::as_bytes),
            event.carrier.to_json().as_bytes(),
            headers.as_bytes(),
            event.created_at.to_string().as_bytes(),
            &event.payload,
        ]);
        Self {
            id: event.id,
            status,
            attempt_count: event.attempt_count,
            created_at: event.created_at,
            available_at,
            published_at,
            payload: Some(Payload::of(&event.payload)),
            content: Some(content),
        }
    }
}

impl Op {
    /// Returns the event that it is about.
    pub fn id(&self) -> Uuid {
        match self {
            Self::Insert(row) | Self::Update(row) => row.id,
            Self::Delete { id } => *id,
            Self::Audit { event_id, .. } => *event_id,
        }
    }
}
