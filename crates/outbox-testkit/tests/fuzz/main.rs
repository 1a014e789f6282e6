//! Topics, headers, trace context, envelopes and connection strings that nobody thought of. Each target states what has to
//! hold for any input; `scripts/fuzz` runs them for as long as one likes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

use std::collections::BTreeMap;

use async_nats::Subject;
use async_nats::header::{HeaderName, HeaderValue};
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig};
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::event::Headers;
use gamemesh_outbox::store::postgres::PostgresConfig;
use gamemesh_outbox::validate::Validator;
use gamemesh_outbox::{Carrier, Event, NewEvent, error_chain, wire};
use jiff::Timestamp;
use outbox_testkit::bus_suite::event;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

/// What no error may show.
const CANARY: &str = "canary-5eb1";

/// Text that is nearly a name: mostly what names hold, and now and then what they must not.
fn nearly_a_name() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        8 => "[a-zA-Z0-9_$-]{1,8}",
        4 => Just(".".to_owned()),
        2 => select(vec!["*", ">", " ", "..", "\r\n", "\t", "\0", "_INBOX", "_R_", "$JS.API", "é", "\u{202e}", "\u{7f}"])
            .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-z]{100,300}",
    ];
    vec(parts, 0..8).prop_map(|parts| parts.concat())
}

fn nearly_a_header() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![6 => "[A-Za-z][A-Za-z0-9-]{0,12}", 1 => "[Nn]ats-[A-Za-z]{1,8}", 2 => nearly_a_name()];
    let value = prop_oneof![6 => "[ -~]{0,40}", 2 => any::<String>(), 1 => "[a-z]{4000,4200}", 1 => "\\PC{0,20}"];
    (name, value)
}

fn nearly_trace_context() -> impl Strategy<Value = BTreeMap<String, String>> {
    let name =
        prop_oneof![select(vec!["traceparent", "tracestate", "baggage", "TraceParent"]).prop_map(str::to_owned), ".*"];
    let value =
        prop_oneof!["00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", "[0-9a-f-]{0,60}", "[a-z]=[ -~]{0,20}(,[a-z]=1){0,40}", ".*"];
    btree_map(name, value, 0..5)
}

fn payload() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,6})?",
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        select(vec!["\"\\ud800\"", "\"\\u0000\"", " {} ", "{\"a\":1,\"a\":2}"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
            inner.prop_map(|item| format!("{{\"a\" :\n{item}}}")),
        ]
    })
}

/// The rule, said once more: what every bus takes as a name.
fn is_a_name(text: &str) -> bool {
    let usable = |c: char| c.is_ascii_graphic() && c != '*' && c != '>';
    text.len() <= 255 && text.split('.').all(|token| !token.is_empty() && token.chars().all(usable))
}

/// An error that can stand in a log and in `last_error`.
fn is_one_short_line(error: &str) -> bool {
    error.len() < 700 && !error.contains(char::is_control)
}

fn refused(topic: &str, event_type: &str, headers: &Headers) -> Option<String> {
    let mut new = NewEvent::from_json(topic, event_type, "1").unwrap();
    for (name, value) in headers {
        new = new.header(name, value);
    }
    let by_the_producer = Validator::default().new_event(&new).err().map(|invalid| invalid.to_string());
    let by_the_relay = Validator::default()
        .event(&Event { headers: headers.clone(), ..event(topic, event_type) })
        .err()
        .map(|invalid| invalid.to_string());
    assert_eq!(by_the_producer, by_the_relay, "both ends have the same rules");
    by_the_relay
}

/// Reads headers as a consumer of NATS finds them on the wire.
fn read_lines(wire: &str) -> Headers {
    let lines = wire.split("\r\n").filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a colon in each line");
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

proptest! {
    #[test]
    fn a_topic_is_taken_exactly_if_it_is_a_name_and_then_every_bus_takes_it(
        topic in nearly_a_name(), event_type in nearly_a_name(),
    ) {
        let first = topic.split('.').next().unwrap();
        let reserved = topic.starts_with('$') || ["_INBOX", "_R_"].contains(&first);
        let usable = is_a_name(&topic) && !reserved && (event_type.is_empty() || is_a_name(&event_type));
        let refused = refused(&topic, &event_type, &Headers::new());
        prop_assert_eq!(refused.is_none(), usable, "{:?}", &refused);
        match refused {
            Some(error) => prop_assert!(is_one_short_line(&error), "{error:?}"),
            None => {
                let subject = event(&topic, &event_type).subject();
                prop_assert!(Subject::validated(&subject).is_ok(), "{subject:?}");
                // It lies in the stream of its topic: the topic itself, or something below it.
                prop_assert!(subject == topic || subject.strip_prefix(&topic).is_some_and(|rest| rest.starts_with('.')));
                prop_assert!(subject.len() <= 511);
            }
        }
    }

    #[test]
    fn headers_that_are_taken_arrive_as_they_are(headers in btree_map(
        nearly_a_header().prop_map(|header| header.0), nearly_a_header().prop_map(|header| header.1), 0..5,
    )) {
        match refused("events.player", "tried", &headers) {
            Some(error) => prop_assert!(is_one_short_line(&error), "{error:?}"),
            None => {
                let mut lines = String::new();
                for (name, value) in &headers {
                    prop_assert!(name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok());
                    prop_assert!(!name.to_lowercase().starts_with("nats-"));
                    lines.push_str(&format!("{name}: {value}\r\n"));
                }
                prop_assert_eq!(read_lines(&lines), headers);
            }
        }
    }

    #[test]
    fn trace_context_is_carried_and_harms_nobody(entries in nearly_trace_context()) {
        let carrier: Carrier = entries.clone().into_iter().collect();
        prop_assert_eq!(&Carrier::from_json(&carrier.to_json()).unwrap(), &carrier);
        for (name, value) in carrier.trace_headers() {
            prop_assert!(value.parse::<HeaderValue>().is_ok(), "{name}: {value:?}");
            let read = read_lines(&format!("{name}: {value}\r\n"));
            prop_assert_eq!(read[name].as_str(), value);
        }
        // W3C: version 00, an id of 32 digits and one of 16, neither all zeros, in small letters.
        let valid = |text: &str| {
            let parts: Vec<&str> = text.split('-').collect();
            let [version, trace, span, flags] = parts[..] else { return None };
            let digits = |part: &str| part.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
            let usable = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2]
                && version == "00" && digits(trace) && digits(span) && digits(flags)
                && trace.contains(|c| c != '0') && span.contains(|c| c != '0');
            usable.then(|| trace.to_owned())
        };
        if let Some(trace) = entries.get("traceparent").and_then(|text| valid(text)) {
            prop_assert_eq!(carrier.trace_id().map(|id| id.to_string()), Some(trace));
        }
    }

    #[test]
    fn a_carrier_column_is_read_or_refused_whatever_it_holds(column in prop_oneof![payload(), any::<String>()]) {
        let strings = serde_json::from_str::<BTreeMap<String, String>>(&column).ok();
        let read = Carrier::from_json(&column).ok();
        prop_assert_eq!(read.is_some(), strings.is_some() && column.len() <= 16 * 1024);
    }

    #[test]
    fn an_envelope_holds_what_the_row_held(
        payload in payload(), event_type in any::<String>(), carrier in nearly_trace_context(),
        seconds in -62_167_219_200_i64..253_402_207_200, microseconds in 0..1_000_000_i32,
    ) {
        let event = Event {
            payload: payload.clone().into(),
            created_at: Timestamp::new(seconds, microseconds * 1000).unwrap(),
            carrier: carrier.clone().into_iter().collect(),
            ..event("events.player", &event_type)
        };
        let envelope = wire::envelope(&event);
        let text = std::str::from_utf8(&envelope).unwrap();
        prop_assert!(text.contains(&payload), "byte for byte");
        // Not every payload fits into what serde_json can hold; the rest of the envelope must be sound beside any.
        let around = text.replacen(&format!(",\"payload\":{payload}"), ",\"payload\":0", 1);
        let read: BTreeMap<String, Value> = serde_json::from_str(&around).unwrap();
        prop_assert_eq!(&read["id"], &Value::from(event.id.to_string()));
        prop_assert_eq!(&read["type"], &Value::from(event_type));
        let timestamp = read["timestamp"].as_str().unwrap();
        prop_assert_eq!(timestamp.parse::<Timestamp>().unwrap(), event.created_at);
        prop_assert!(timestamp.as_bytes()[4] == b'-' && timestamp.ends_with('Z'), "{timestamp}");
        let expected = (!carrier.is_empty()).then(|| serde_json::to_value(&carrier).unwrap());
        prop_assert_eq!(read.get("carrier"), expected.as_ref());
        prop_assert_eq!(read.len(), if carrier.is_empty() { 4 } else { 5 });
    }

    #[test]
    fn no_connection_string_shows_its_password(
        before in "(postgres|postgresql|nats|tls|redis|rediss|http)?(://)?[a-z:@/%=' ]{0,8}", noise in ".{0,12}",
        after in "[@a-z0-9:/?&=,%' -]{0,24}",
        option in select(vec!["sslmode=", "port=", "connect_timeout=", "options=", "target_session_attrs=", ""]),
    ) {
        let texts = [
            format!("{before}:{CANARY}{noise}@{after}"),
            format!("host=db password={CANARY}{noise} {option}{after}"),
            format!("host=db password='{CANARY}{noise}' {option}{after}"),
            format!("postgres://relay:{CANARY}@db:5432{after}?{option}{noise}"),
            format!("postgres://relay@db/app?password={CANARY}&{option}{after}"),
            format!("nats://relay:{CANARY}{noise}@{after}"),
            format!("redis://relay:{CANARY}@{after}{noise}"),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for text in texts {
            let mut shown = match PostgresConfig::from_dsn(&text) {
                // Where the text is no URL, what was meant as a password may be the name of the database.
                Ok(config) if text.starts_with("postgres://relay") || text.starts_with("host") => format!("{config:?}"),
                Ok(_) => String::new(),
                Err(error) => format!("{error:?} {}", error_chain(&error)),
            };
            let nats = NatsConfig { url: text.clone(), ..NatsConfig::default() };
            shown.push_str(&format!("{nats:?}"));
            // Never connects: whoever has a valid URL is asked nothing.
            if let Err(error) = runtime.block_on(async { RedisBus::connect(RedisConfig { url: text.clone(), ..RedisConfig::default() }).await }) {
                shown.push_str(&format!("{error:?} {}", error.chain()));
            }
            if text.starts_with("http")
                && let Err(error) = runtime.block_on(NatsBus::connect(nats))
            {
                shown.push_str(&format!("{error:?} {}", error.chain()));
            }
            prop_assert!(!shown.contains(CANARY), "{text}\n{shown}");
        }
    }
}
