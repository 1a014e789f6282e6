//! The wire format `envelope`: `{"id","type","timestamp","payload","carrier"}`, and the headers beside it.

use bytes::Bytes;

use crate::event::{Event, Headers};

/// Writes the envelope of `event`.
///
/// `timestamp` is [`Event::created_at`] in RFC 3339, UTC; `carrier` is left out when empty. The payload's bytes are
/// copied, not parsed: nesting depth, number precision, duplicate keys and key order reach the consumer as stored.
///
/// ```
/// use gamemesh_outbox::{Carrier, Event, wire};
///
/// let event = Event {
///     id: "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f".parse()?,
///     topic: "events.player".into(),
///     event_type: "registered".into(),
///     payload: r#"{"name":"Ada"}"#.into(),
///     carrier: Carrier::default(),
///     headers: Default::default(),
///     key: None,
///     created_at: "2026-01-02T03:04:05.678Z".parse()?,
///     attempt_count: 0,
///     defect: None,
/// };
/// assert_eq!(
///     wire::envelope(&event),
///     r#"{"id":"0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f","type":"registered","timestamp":"2026-01-02T03:04:05.678Z","payload":{"name":"Ada"}}"#,
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn envelope(event: &Event) -> Bytes {
    let mut out = Vec::with_capacity(event.payload.len() + 256);
    out.extend_from_slice(b"{\"id\":");
    push_json(&mut out, &event.id);
    out.extend_from_slice(b",\"type\":");
    push_json(&mut out, &event.event_type);
    out.extend_from_slice(b",\"timestamp\":");
    push_json(&mut out, &event.created_at);
    out.extend_from_slice(b",\"payload\":");
    out.extend_from_slice(&event.payload);
    if !event.carrier.is_empty() {
        out.extend_from_slice(b",\"carrier\":");
        push_json(&mut out, &event.carrier);
    }
    out.push(b'}');
    out.into()
}

/// Lists the headers of the message: the event's own, and the W3C trace headers of its carrier, for consumers that
/// continue a trace without reading the body. A bus adds what belongs to itself, such as `Nats-Msg-Id`.
pub fn headers(event: &Event) -> Headers {
    let mut headers = event.headers.clone();
    headers.extend(event.carrier.trace_headers().map(|(name, value)| (name.to_owned(), value.to_owned())));
    headers
}

fn push_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("strings and string maps always serialize, and a Vec never fails to grow");
}
