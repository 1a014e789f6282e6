//! P: what a bus has stored.

use anyhow::{Context, Result};
use gamemesh_outbox::bus::memory;
use gamemesh_outbox::bus::read_back::{Message, ReadBack};
use gamemesh_outbox::event::Headers;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::history::{Delivery, Envelope, Nanos, Payload};

/// The envelope as the contract has it, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    timestamp: String,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(default)]
    carrier: Headers,
}

/// Reads an envelope without parsing the payload; `None` if it is none.
pub fn envelope(body: &[u8]) -> Option<Envelope> {
    let wire: Wire<'_> = serde_json::from_slice(body).ok()?;
    let payload = Payload::of(wire.payload.get().as_bytes());
    let Wire { id, event_type, timestamp, carrier, .. } = wire;
    Some(Envelope { id, event_type, timestamp, payload, carrier })
}

/// Reads everything that is there, from the first message to the one that is the last when the reading begins.
pub async fn read(reader: &dyn ReadBack) -> Result<Vec<Delivery>> {
    let messages = reader.read_all().await?;
    messages.into_iter().map(|message| delivery(reader.name(), message)).collect()
}

fn delivery(stream: &str, message: Message) -> Result<Delivery> {
    Ok(Delivery {
        at: Nanos::try_from(message.stored_at.as_nanosecond()).context("a time before 1970")?,
        stream: stream.to_owned(),
        position: message.number,
        id: message.id,
        subject: message.subject,
        key: message.key,
        headers: message.headers,
        envelope: envelope(&message.body),
    })
}

/// Describes a message of the bus in memory, which keeps neither time nor place of what it is given.
pub fn memory(message: &memory::Message, at: Nanos, position: u64) -> Delivery {
    Delivery {
        at,
        stream: "memory".to_owned(),
        position,
        id: message.id,
        subject: message.subject.clone(),
        key: None,
        headers: message.headers.clone(),
        envelope: envelope(&message.body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus_suite::event;
    use gamemesh_outbox::wire;

    #[test]
    fn the_payload_is_taken_byte_for_byte_however_it_is_made() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        for payload in [r#"{"b": 1, "a": 1e400, "a":"\u00e9"}"#, &deep, "12345678901234567890.123", "\"}\""] {
            let mut event = event("events.player", "registered");
            event.payload = payload.to_owned().into();
            let envelope = envelope(&wire::envelope(&event)).expect("an envelope");
            assert_eq!(envelope.payload, Payload::of(payload.as_bytes()));
            assert_eq!((envelope.id, envelope.event_type.as_str()), (event.id, "registered"));
            assert_eq!(envelope.timestamp, event.created_at.to_string());
        }
        assert_eq!(envelope(br#"{"id":"no"}"#), None);
    }
}
