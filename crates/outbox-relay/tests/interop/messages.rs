//! Messages and traces from the one system's producers over the other's relay to the earlier system's consumers.

use std::collections::HashMap;
use std::net::SocketAddr;

use gamemesh_outbox::{Carrier, NewEvent, OutboxPublisher};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::Span;
use outbox_testkit::wait_until;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::earlier::{self, Seen};
use super::stage::Stage;
use crate::otlp::{collector, hex};
use crate::probe::{Settings, with};

const EVENTS: usize = 20;
/// A request that inserts an event, of a trace of its own for each.
const REQUEST: &str = "b7ad6b7169203331";

/// Returns the settings of a process that sends its spans to this collector.
fn traced(settings: &Settings, collector: SocketAddr) -> Settings {
    let endpoint = format!("http://{collector}");
    with(
        settings,
        &[("OTEL_ENABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")],
    )
}

/// The same for a program of the earlier system, which takes no scheme.
fn traced_earlier(settings: &Settings, collector: SocketAddr) -> Settings {
    with(&traced(settings, collector), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.to_string())])
}

/// Waits until a collector has `count` spans of this name, and returns them by their ids.
async fn spans(from: &mut UnboundedReceiver<(String, Span)>, name: &str, count: usize) -> HashMap<String, Span> {
    let mut found = HashMap::new();
    wait_until(&format!("{count} spans {name}"), async || {
        while let Ok((_, span)) = from.try_recv() {
            if span.name == name {
                found.insert(hex(&span.span_id), span);
            }
        }
        (found.len() == count).then_some(())
    })
    .await;
    found
}

fn by_id(seen: &[Seen]) -> HashMap<&str, &Seen> {
    let by_id: HashMap<&str, &Seen> = seen.iter().map(|seen| (seen.id.as_str(), seen)).collect();
    assert_eq!(by_id.len(), seen.len(), "each once: {seen:?}");
    by_id
}

/// Returns the span that a message's body names.
fn span_in(seen: &Seen) -> &str {
    let traceparent = seen.carrier.as_ref().and_then(|carrier| carrier["traceparent"].as_str()).expect("a traceparent");
    traceparent.split('-').nth(2).expect("a span")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_producers_request_is_the_trace_of_its_consumer_when_ours_relays() {
    let (producers, mut inserts) = collector().await;
    let (relays, mut publishes) = collector().await;
    let (consumers, mut consumed) = collector().await;
    let stage = Stage::new().await;
    stage.migrate_as_earlier().await;
    stage.ours(&["migrate", "up"]);

    let inserted = earlier::produce(EVENTS, &[], &traced_earlier(&stage.settings, producers));
    let mut relay = stage.relay_with(&traced(&stage.settings, relays));
    let seen = earlier::consume(EVENTS, &[], &traced_earlier(&stage.settings, consumers));
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));

    let inserts = spans(&mut inserts, "outbox.insert events.player", EVENTS).await;
    let publishes = spans(&mut publishes, "outbox.publish events.player", EVENTS).await;
    let consumed = spans(&mut consumed, "events.consume events.player", EVENTS).await;
    let seen = by_id(&seen);
    for event in &inserted {
        let seen = seen[event.id.as_str()];
        assert_eq!(
            (seen.subject.as_str(), seen.event_type.as_str()),
            ("events.player.PlayerRegistered", "PlayerRegistered")
        );
        assert_eq!((seen.deliveries, seen.error.as_str()), (1, ""), "{seen:?}");
        let player = seen.player.as_ref().expect("a payload as its handlers want it");
        assert!(player["username"].as_str().unwrap().starts_with("player-"), "{player}");
        // The body's id is what consumers know duplicates by, and NATS now as well.
        assert_eq!(seen.headers.as_ref().expect("headers")["Nats-Msg-Id"], json!([event.id]));

        assert_eq!(seen.trace_id, event.trace_id, "one trace from the request on");
        assert_eq!(seen.parent_span_id, span_in(seen));
        // In their system the producer span of the relay is what a consumer's span hangs below.
        assert_eq!(hex(&consumed[&seen.span_id].parent_span_id), seen.parent_span_id);
    }
    for publish in publishes.values() {
        let insert = &inserts[&hex(&publish.parent_span_id)];
        assert_eq!(publish.trace_id, insert.trace_id, "the relay's span hangs below the insert");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_publishes_what_the_earlier_relay_would_but_for_the_headers() {
    let stage = Stage::new().await;
    stage.migrate_as_earlier().await;
    stage.ours(&["migrate", "up"]);
    let odd = r#"{"n": 12345678901234567890.123, "text": "<b>Zoë & co</b>\u2028", "nested": {"b": [1, 2], "a": null}}"#;
    let mut bodies = Vec::new();
    for id in ["0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f", "0192f0c1-2c5f-7cc3-98c4-dc0c0c073990"] {
        let insert = "INSERT INTO outbox_events (id, event_type, topic, payload, carrier, created_at)
                      VALUES ($1::text::uuid, 'Odd', 'events.player', $2::text::jsonb,
                              '{\"traceparent\": \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\", \"baggage\": \"a=b\"}',
                              '2026-01-02 03:04:05.678+00')";
        stage.sql.execute(insert, &[&id, &odd]).await.unwrap();
        let relay = if bodies.is_empty() { earlier::relay(&stage.settings) } else { stage.relay() };
        stage.until_count("status = 'PENDING'", 0).await;
        drop(relay);
        let mut body = stage.bodies().await.pop().unwrap();
        assert_eq!(body.as_object_mut().unwrap().remove("id"), Some(json!(id)));
        bodies.push(body);
    }
    assert_eq!(bodies[0], bodies[1], "one JSON value: only white space and escapes may differ");
    assert_eq!(bodies[0]["timestamp"], "2026-01-02T03:04:05.678Z");
}

/// Writes events of requests with traces of their own by the library and by SQL, and returns their traces by their ids.
async fn write_as_ours(stage: &mut Stage) -> HashMap<String, String> {
    let mut traces = HashMap::new();
    for number in 0..EVENTS {
        let trace = format!("0af7651916cd43dd8448eb211c8031{number:02x}");
        let traceparent = format!("00-{trace}-{REQUEST}-01");
        let payload = json!({"player_id": format!("p{number}"), "username": "ada", "email": "ada@example.com"});
        let id = if number % 2 == 0 {
            let carrier: Carrier = [("traceparent".to_owned(), traceparent)].into_iter().collect();
            let event = NewEvent::new("events.player", "PlayerUpdated", &payload).unwrap().carrier(carrier);
            let event = event.key("ada").header("tenant", "eu");
            let mut transaction = stage.sql.transaction().await.unwrap();
            let id = OutboxPublisher::default().publish(&mut transaction, event).await.unwrap();
            transaction.commit().await.unwrap();
            id.to_string()
        } else {
            let sql = "SELECT outbox_publish('events.player', 'PlayerUpdated', $1::text::jsonb,
                                             carrier => jsonb_build_object('traceparent', $2::text),
                                             available_at => now() + interval '1 hour')::text";
            let row = stage.sql.query_one(sql, &[&payload.to_string(), &traceparent]).await.unwrap();
            row.get(0)
        };
        traces.insert(id, trace);
    }
    traces
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_producers_write_the_earlier_relay_carries_to_its_consumers() {
    let (relays, mut publishes) = collector().await;
    let (consumers, mut consumed) = collector().await;
    let mut stage = Stage::new().await;
    stage.migrate_as_earlier().await;
    stage.ours(&["migrate", "up"]);
    let traces = write_as_ours(&mut stage).await;

    let mut relay = earlier::relay(&traced_earlier(&stage.settings, relays));
    // Each is refused by its handler at first, and comes again.
    let seen = earlier::consume(2 * EVENTS, &["--fail-first"], &traced_earlier(&stage.settings, consumers));
    let (refused, seen): (Vec<Seen>, Vec<Seen>) = seen.into_iter().partition(|seen| seen.deliveries == 1);
    assert!(refused.len() == EVENTS && refused.iter().all(|seen| !seen.error.is_empty()), "{refused:?}");
    stage.until_count("status = 'PUBLISHED' AND attempt_count = 0", i64::try_from(EVENTS).unwrap()).await;
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));

    let publishes = spans(&mut publishes, "events.publish events.player", EVENTS).await;
    spans(&mut consumed, "events.consume events.player", 2 * EVENTS).await;
    let seen = by_id(&seen);
    for (id, trace) in &traces {
        let seen = seen[id.as_str()];
        assert_eq!((&seen.trace_id, seen.error.as_str()), (trace, ""), "{seen:?}");
        assert_eq!(hex(&publishes[&seen.parent_span_id].trace_id), *trace, "its publish span is the parent");
        assert_eq!(seen.player.as_ref().unwrap()["username"], "ada");
        // What it does not know it does not carry, and what should wait for an hour did not: docs/moving-over.md says so.
        assert!(seen.headers.is_none(), "the earlier relay sends no header: {seen:?}");
    }
    assert_eq!(stage.copies().await.len(), EVENTS);
}
