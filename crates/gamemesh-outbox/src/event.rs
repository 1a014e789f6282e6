//! The event, as a producer writes it ([`NewEvent`]) and as the relay reads it back ([`Event`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::carrier::Carrier;

/// Message headers: names to values, in one fixed order.
pub type Headers = BTreeMap<String, String>;

/// An event that a producer is about to insert.
///
/// ```
/// use gamemesh_outbox::NewEvent;
///
/// let event = NewEvent::new("events.player", "registered", &serde_json::json!({"name": "Ada"}))?
///     .key("player-7")
///     .header("Tenant", "eu-1");
/// assert_eq!(event.id().get_version_num(), 7);
/// # Ok::<(), gamemesh_outbox::event::PayloadError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub(crate) id: Uuid,
    pub(crate) topic: String,
    pub(crate) event_type: String,
    pub(crate) payload: String,
    pub(crate) key: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) carrier: Carrier,
    pub(crate) available_at: Option<Timestamp>,
}

/// The payload given to [`NewEvent`] is not JSON.
#[derive(Debug, thiserror::Error)]
#[error("payload is not valid JSON")]
pub struct PayloadError(#[from] serde_json::Error);

impl NewEvent {
    /// Builds an event with a new UUIDv7 id and `payload` written as JSON.
    pub fn new(
        topic: impl Into<String>,
        event_type: impl Into<String>,
        payload: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        let payload = serde_json::to_string(payload)?;
        Ok(Self::from_checked(topic.into(), event_type.into(), payload))
    }

    /// Builds an event from a payload that is JSON text already; the text is kept as it is.
    pub fn from_json(
        topic: impl Into<String>,
        event_type: impl Into<String>,
        payload: impl Into<String>,
    ) -> Result<Self, PayloadError> {
        let payload = payload.into();
        serde_json::from_str::<IgnoredAny>(&payload)?;
        Ok(Self::from_checked(topic.into(), event_type.into(), payload))
    }

    fn from_checked(topic: String, event_type: String, payload: String) -> Self {
        Self {
            id: Uuid::now_v7(),
            topic,
            event_type,
            payload,
            key: None,
            headers: Headers::new(),
            carrier: Carrier::default(),
            available_at: None,
        }
    }

    /// Replaces the generated id, for a producer that derives ids itself.
    ///
    /// The id is the deduplication key of the whole path: never use one twice.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Sets the key: what this event is about, for consumers that partition by it.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a message header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets the trace context by hand; [`OutboxPublisher`](crate::OutboxPublisher) captures the current one otherwise.
    #[must_use]
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Lets the event wait until `time`, by the database's clock; without this it is due at once.
    #[must_use]
    pub fn available_at(mut self, time: Timestamp) -> Self {
        self.available_at = Some(time);
        self
    }

    /// Returns the id: the event's identity in the table, on the wire, and for the consumer's deduplication.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the event type; may be empty.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Returns the payload: JSON text.
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// Returns the key, if one was set.
    pub fn event_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the message headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the trace context that will be stored with the event.
    pub fn trace_carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Returns when the event is due, if it is not due at once.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.available_at
    }
}

/// A committed event, as a claim holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Identity on the wire and the consumer's deduplication key.
    pub id: Uuid,
    /// Where it goes: `events.player`.
    pub topic: String,
    /// What happened: `registered`; may be empty.
    pub event_type: String,
    /// JSON text, exactly as the store holds it. Never parsed and rebuilt.
    pub payload: Bytes,
    /// W3C trace context of the request that inserted the row.
    pub carrier: Carrier,
    /// Message headers.
    pub headers: Headers,
    /// What the event is about.
    pub key: Option<String>,
    /// When the row was inserted, by the store's clock.
    pub created_at: Timestamp,
    /// Attempts charged so far.
    pub attempt_count: i32,
    /// Why this row cannot be published, when reading it already showed that. Its neighbours are not affected.
    pub defect: Option<String>,
}

impl Event {
    /// Returns where the bus sends it: `<topic>.<event_type>`, or the topic alone when the type is empty.
    pub fn subject(&self) -> String {
        if self.event_type.is_empty() { self.topic.clone() } else { format!("{}.{}", self.topic, self.event_type) }
    }

    /// Says whether it goes where `other` goes.
    pub(crate) fn has_route_of(&self, other: &Self) -> bool {
        self.topic == other.topic && self.event_type == other.event_type
    }
}
