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

/// The header in which the event's key travels, where a bus has no place of its own for it.
pub const KEY_HEADER: &str = "Event-Key";

/// Lists the headers of the message: the event's own, its key, and the W3C trace headers of its carrier, for consumers that
/// continue a trace without reading the body. A bus adds what belongs to itself, such as `Nats-Msg-Id`.
pub fn headers(event: &Event) -> Headers {
    let mut headers = event.headers.clone();
    if let Some(key) = key_header(event.key.as_deref(), &event.headers) {
        headers.insert(KEY_HEADER.to_owned(), key.to_owned());
    }
    headers.extend(event.carrier.trace_headers().map(|(name, value)| (name.to_owned(), value.to_owned())));
    headers
}

/// Returns what [`KEY_HEADER`] holds. A key that no header can hold (with control characters, or blanks around it) is left
/// out, as it is not worth the event; a header of that name which the event has itself, in any case, stays.
pub fn key_header<'a>(key: Option<&'a str>, own: &Headers) -> Option<&'a str> {
    let taken = || own.keys().any(|name| name.eq_ignore_ascii_case(KEY_HEADER));
    key.filter(|key| !key.chars().any(char::is_control) && key.trim() == *key && !taken())
}

fn push_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("strings and string maps always serialize, and a Vec never fails to grow");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::Carrier;

    /// Writes a JSON text as the earlier relay's encoder does: no blanks between tokens, and what could end a script in a page
    /// escaped.
    fn compacted(text: &str) -> String {
        let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
        for character in text.chars() {
            if !in_string && character.is_ascii_whitespace() {
                continue;
            }
            in_string ^= character == '"' && !escaped;
            escaped = in_string && character == '\\' && !escaped;
            match character {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
                other => out.push(other),
            }
        }
        out
    }

    #[test]
    fn the_body_is_the_earlier_relays_in_meaning_and_differs_only_where_the_page_says_so() {
        let id = "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f";
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let payloads = [
            r#"{"a": 1, "b": [1, 2, {"c": null}]}"#,
            r#"{"html": "<b>Tom & Jerry</b> </script>"}"#,
            "{\"lines\": \"\u{2028}and\u{2029}\", \"ü\": \"雪 😀\"}",
            r#"{"text": "\" \\ \u0001 \\\" {a: 1, b}"}"#,
            r#"{"number": 1234567890123456789, "exact": 0.10, "huge": 1e300, "minus": -0.0}"#,
            r#""just, a: text""#,
            "null",
            "{}",
            &deep,
        ];
        for payload in payloads {
            for carrier in [Carrier::default(), [("traceparent".to_owned(), "00-<1>".to_owned())].into_iter().collect()]
            {
                let event = Event {
                    id: id.parse().expect("an id"),
                    topic: "events.player".into(),
                    event_type: "Player<Updated>".into(),
                    payload: payload.to_owned().into(),
                    carrier: carrier.clone(),
                    headers: Headers::new(),
                    key: None,
                    // Trailing zeros are trimmed by both.
                    created_at: "2026-01-02T03:04:05.678900Z".parse().expect("a time"),
                    attempt_count: 0,
                    defect: None,
                };
                let ours = envelope(&event);
                let tail = if carrier.is_empty() { "" } else { r#","carrier":{"traceparent":"00-<1>"}"# };
                let theirs = format!(
                    r#"{{"id":"{id}","type":"Player<Updated>","timestamp":"2026-01-02T03:04:05.6789Z","payload":{payload}{tail}}}"#
                );
                assert_eq!(
                    std::str::from_utf8(&ours).expect("text"),
                    theirs,
                    "the fields, their order and the timestamp"
                );
                let theirs = compacted(&theirs);
                let read = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
                assert_eq!(read(&ours), read(theirs.as_bytes()), "{theirs}");
            }
        }
    }
}
