//! An event as a NATS message.

use async_nats::header::{HeaderMap, HeaderName, HeaderValue, NATS_MESSAGE_ID};
use bytes::Bytes;

use crate::bus::{BusError, BusErrorKind};
use crate::event::Event;
use crate::wire;

/// Builds the headers and the body, unless the server (which takes `bytes_max`) would end the connection over them.
pub(super) fn build(event: &Event, bytes_max: usize) -> Result<(HeaderMap, Bytes), BusError> {
    let too_large = |bytes| {
        let message = format!("message too large: expected at most {bytes_max} bytes, got {bytes}");
        Err(BusError::new(BusErrorKind::Rejected, message))
    };
    if event.payload.len() > bytes_max {
        // Not copied only to be thrown away.
        return too_large(event.payload.len());
    }
    let body = wire::envelope(event);
    let headers = headers(event)?;
    let bytes = header_bytes(&headers) + body.len();
    if bytes > bytes_max { too_large(bytes) } else { Ok((headers, body)) }
}

/// Says whether the message is larger than `bytes_max`. Costs nothing where it is far from that.
pub(super) fn exceeds(event: &Event, bytes_max: usize) -> bool {
    const MUCH: usize = 64 * 1024;
    let near = event.payload.len() + MUCH > bytes_max;
    near && (event.payload.len() > bytes_max
        || headers(event).is_ok_and(|headers| header_bytes(&headers) + wire::envelope(event).len() > bytes_max))
}

/// The client panics on a bad name or value that it is given as text; parsed first, it is an error of this event.
fn headers(event: &Event) -> Result<HeaderMap, BusError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &wire::headers(event) {
        let (Ok(parsed), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
            return Err(BusError::new(BusErrorKind::Rejected, format!("invalid header {name:?}")));
        };
        headers.insert(parsed, value);
    }
    headers.insert(NATS_MESSAGE_ID, event.id.to_string());
    Ok(headers)
}

/// Counts what the headers take on the wire: `NATS/1.0`, each `name: value`, and an empty line.
fn header_bytes(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let lines = lines.map(|(name, value)| AsRef::<str>::as_ref(name).len() + 2 + value.as_str().len() + 2);
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::Carrier;

    fn event() -> Event {
        Event {
            id: "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f".parse().unwrap(),
            topic: "events.player".into(),
            event_type: "registered".into(),
            payload: "{}".into(),
            carrier: Carrier::default(),
            headers: [("Tenant".to_owned(), "eu-1".to_owned())].into(),
            key: None,
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            attempt_count: 0,
            defect: None,
        }
    }

    #[test]
    fn a_header_that_would_make_the_client_panic_is_an_error_of_its_event() {
        for (name, value) in [("Tenant", "a\r\nNats-Rollup: all"), ("Te:nant", "a")] {
            let mut event = event();
            event.headers = [(name.to_owned(), value.to_owned())].into();
            let error = build(&event, 1024).map(drop).expect_err("it cannot be sent");
            assert_eq!(error.kind(), BusErrorKind::Rejected, "{name:?}");
        }
    }

    #[test]
    fn damaged_trace_context_is_left_out() {
        let mut event = event();
        let entries = [("traceparent", "00-1\r\nx: y"), ("baggage", "a=b"), ("other", "not trace context")];
        event.carrier = entries.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let headers = headers(&event).unwrap();
        assert_eq!(headers.get("baggage").map(HeaderValue::as_str), Some("a=b"));
        assert!(headers.get("traceparent").is_none() && headers.get("other").is_none());
    }

    #[test]
    fn a_key_is_a_header_where_one_can_hold_it_and_harms_nothing_elsewhere() {
        let sent = |key: &str, own: &[(&str, &str)]| {
            let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let event = Event { key: Some(key.to_owned()), headers: own, ..event() };
            let (headers, _) = build(&event, 8192).expect("it can be sent");
            headers.get("Event-Key").map(|value| value.as_str().to_owned())
        };
        for key in ["player-7", "", "player 7", "spieler-ä", "雪", "a: b", &"k".repeat(4096)] {
            assert_eq!(sent(key, &[("Tenant", "eu-1")]).as_deref(), Some(key));
        }
        for key in [" player-7", "player-7\t", "a\r\nNats-Rollup: all", "a\0", "\u{a0}a", "\u{85}"] {
            assert_eq!(sent(key, &[]), None, "{key:?}");
        }
        assert_eq!(sent("player-7", &[("Event-Key", "its own")]).as_deref(), Some("its own"));
        let event = Event { key: Some("a".into()), headers: [("event-key".into(), "b".into())].into(), ..event() };
        let names = headers(&event).unwrap().iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        assert!(!names.contains(&"Event-Key".to_owned()), "one of them in any case: {names:?}");
    }

    #[test]
    fn the_limit_counts_headers_as_the_server_does() {
        let event = Event { key: Some("player-7".into()), ..event() };
        let wire = "NATS/1.0\r\nEvent-Key: player-7\r\nTenant: eu-1\r\nNats-Msg-Id: 0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f\r\n\r\n";
        let bytes = wire.len() + wire::envelope(&event).len();
        assert!(build(&event, bytes).is_ok());
        let error = build(&event, bytes - 1).map(drop).expect_err("one byte too many");
        assert_eq!(error.chain(), format!("message too large: expected at most {} bytes, got {bytes}", bytes - 1));
    }
}
