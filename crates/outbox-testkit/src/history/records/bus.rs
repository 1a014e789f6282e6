use gamemesh_outbox::event::Headers;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::history::{Nanos, Payload};

/// One message that the bus has stored: one copy of one event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// When the bus stored it, by the bus's clock.
    pub at: Nanos,
    /// In which of its streams.
    pub stream: String,
    /// At which place there; the first message has 1, and none is left out.
    pub position: u64,
    /// The id by which consumers deduplicate: `Nats-Msg-Id`, or the field `id`.
    pub id: Uuid,
    /// `<topic>.<event_type>`, or the topic alone.
    pub subject: String,
    /// The event's key, where the bus carries it beside the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The headers beside the envelope: the event's own and those of its trace, without what belongs to the bus itself.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// The envelope; `None` if the message is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// What stands in an envelope.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The event's id.
    pub id: Uuid,
    /// The event's type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The event's `created_at`, as it is written there.
    pub timestamp: String,
    /// The payload's bytes, as they stand there.
    pub payload: Payload,
    /// The trace context.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub carrier: Headers,
}
