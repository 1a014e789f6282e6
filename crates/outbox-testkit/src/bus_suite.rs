//! What every bus must do, whatever it is: one list of cases, run against each.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use gamemesh_outbox::bus::read_back::Message;
use gamemesh_outbox::bus::{BusErrorKind, BusPublisher, Receipt};
use gamemesh_outbox::event::Headers;
use gamemesh_outbox::store::HealthCheck;
use gamemesh_outbox::{Carrier, Event};
use uuid::Uuid;

/// A bus under test, and a way to read back what it stored that shares no code with it.
pub trait BusHarness: Send + Sync + 'static {
    /// The bus.
    type Bus: BusPublisher + HealthCheck + Clone;

    /// Returns the bus, with nothing published yet.
    fn bus(&self) -> &Self::Bus;

    /// Returns a topic that the bus has a place for and that no other harness uses.
    fn topic(&self) -> &str;

    /// Says what this bus can do.
    fn can(&self) -> BusCapability;

    /// Reads everything that was stored under the topic, oldest first.
    fn delivered(&self) -> impl Future<Output = Vec<Delivered>> + Send;
}

/// In what buses differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct BusCapability {
    /// The bus stores an id once, and says so.
    pub deduplicates: bool,
    /// The bus rejects larger messages.
    pub message_bytes_max: Option<usize>,
}

/// A message as a consumer sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivered {
    /// `<topic>.<event_type>`.
    pub subject: String,
    /// The id by which consumers deduplicate.
    pub id: Uuid,
    /// The body.
    pub body: Bytes,
    /// The message's headers, without the bus's own.
    pub headers: Headers,
}

impl From<Message> for Delivered {
    fn from(message: Message) -> Self {
        let Message { subject, id, body, headers, .. } = message;
        Self { subject, id, body, headers }
    }
}

/// One behaviour.
pub struct Case<H> {
    /// What the bus does.
    pub name: &'static str,
    run: fn(Arc<H>) -> BoxFuture<'static, ()>,
}

macro_rules! case {
    ($name:literal, $run:ident) => {
        Case { name: $name, run: |harness| Box::pin($run(harness)) }
    };
}

/// Lists what a bus with these capabilities must do.
pub fn cases<H: BusHarness>(can: BusCapability) -> Vec<Case<H>> {
    let mut cases = vec![
        case!("a bus that can be reached is healthy", reachable_is_healthy),
        case!("each event of a batch gets a receipt and arrives", each_gets_a_receipt),
        case!("what arrives is what was inserted", what_arrives_is_what_was_inserted),
        case!("the envelope is exactly the wire format", the_envelope_is_exact),
        case!("an event without a type goes to the topic alone", no_type_means_topic_alone),
        case!("payloads arrive byte for byte", payloads_arrive_byte_for_byte),
        case!("a batch of 500 arrives whole", a_large_batch_arrives_whole),
        case!("concurrent batches do not mix", concurrent_batches_do_not_mix),
        case!("an event sent again keeps its id", sent_again_keeps_its_id),
    ];
    if can.deduplicates {
        cases.push(case!("an id that is stored already is stored once", an_id_is_stored_once));
    }
    if can.message_bytes_max.is_some() {
        cases.push(case!("a message that is too large is rejected alone", too_large_is_rejected_alone));
    }
    cases
}

/// Runs every case on a harness of its own and panics with the names of those that failed.
pub async fn run<H: BusHarness>(start: impl AsyncFn() -> H) {
    let can = start().await.can();
    let mut failed = Vec::new();
    for case in cases::<H>(can) {
        let harness = Arc::new(start().await);
        // A panic ends this case only; its message is printed by the panic itself.
        if tokio::spawn((case.run)(harness)).await.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "the bus fails: {failed:#?}");
}

/// Builds an event with a small payload.
pub fn event(topic: &str, event_type: &str) -> Event {
    Event {
        id: Uuid::now_v7(),
        topic: topic.to_owned(),
        event_type: event_type.to_owned(),
        payload: Bytes::from_static(br#"{"name":"Ada"}"#),
        carrier: Carrier::default(),
        headers: Headers::new(),
        key: None,
        created_at: "2026-01-02T03:04:05.678901Z".parse().expect("a valid time"),
        attempt_count: 0,
        defect: None,
    }
}

fn events(topic: &str, count: usize) -> Vec<Event> {
    let numbered =
        |number: usize| Event { payload: format!("{{\"number\":{number}}}").into(), ..event(topic, "counted") };
    (0..count).map(numbered).collect()
}

fn kinds(receipts: &[Receipt]) -> Vec<Option<BusErrorKind>> {
    receipts.iter().map(|receipt| receipt.as_ref().err().map(|error| error.kind())).collect()
}

fn assert_acked(receipts: &[Receipt], count: usize) {
    assert_eq!(receipts.len(), count, "one receipt for each event");
    let failed: Vec<_> = receipts.iter().filter_map(|receipt| receipt.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(receipts.iter().flatten().all(|ack| !ack.duplicate), "{receipts:?}");
}

/// Checks that exactly `expected` arrived, each once, with its own body.
async fn assert_delivered<H: BusHarness>(harness: &H, expected: &[Event]) {
    let delivered = harness.delivered().await;
    let ids: HashSet<Uuid> = delivered.iter().map(|message| message.id).collect();
    assert_eq!(delivered.len(), expected.len());
    assert_eq!(ids.len(), expected.len(), "an event arrived twice");
    let delivered: BTreeMap<Uuid, Delivered> = delivered.into_iter().map(|message| (message.id, message)).collect();
    for event in expected {
        let message = &delivered[&event.id];
        assert_eq!(message.subject, event.subject());
        let body = std::str::from_utf8(&message.body).expect("JSON is UTF-8");
        let payload = std::str::from_utf8(&event.payload).expect("JSON is UTF-8");
        assert!(body.starts_with(&format!("{{\"id\":\"{}\",", event.id)), "{body:.300}");
        assert!(body.contains(&format!(",\"payload\":{payload}")), "{body:.300}");
    }
}

async fn reachable_is_healthy<H: BusHarness>(harness: Arc<H>) {
    assert_eq!(harness.bus().check().await, Ok(()));
}

async fn each_gets_a_receipt<H: BusHarness>(harness: Arc<H>) {
    let events = events(harness.topic(), 3);
    assert_acked(&harness.bus().publish(&events).await, 3);
    assert_delivered(&*harness, &events).await;
}

async fn what_arrives_is_what_was_inserted<H: BusHarness>(harness: Arc<H>) {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let carrier = [("traceparent", trace), ("tracestate", "vendor=1"), ("other", "stays in the envelope")];
    let mut event = event(harness.topic(), "registered");
    event.carrier = carrier.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    event.headers = [("Tenant", "eu-1"), ("X-Snow", "雪 and: \"quotes\"")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    event.key = Some("player-7".into());
    assert_acked(&harness.bus().publish(std::slice::from_ref(&event)).await, 1);

    let delivered = harness.delivered().await;
    let [message] = &delivered[..] else { panic!("expected one message, got {delivered:?}") };
    assert_eq!((message.id, message.subject.as_str()), (event.id, event.subject().as_str()));
    let mut headers = event.headers.clone();
    headers.extend([("traceparent".into(), trace.into()), ("tracestate".into(), "vendor=1".into())]);
    let mut arrived = message.headers.clone();
    // Where the bus has a place of its own for the key, it is no header.
    if let Some(key) = arrived.remove("Event-Key") {
        assert_eq!(key, "player-7");
    }
    assert_eq!(arrived, headers);
    let body: serde_json::Value = serde_json::from_slice(&message.body).expect("the envelope is JSON");
    assert_eq!(body["payload"], serde_json::json!({"name": "Ada"}));
    assert_eq!(body["carrier"]["other"], "stays in the envelope");
    assert_eq!(body["carrier"]["traceparent"], trace);
}

async fn the_envelope_is_exact<H: BusHarness>(harness: Arc<H>) {
    let plain = event(harness.topic(), "registered");
    let carrier = [("traceparent".to_owned(), "00-1".to_owned())];
    let traced = Event { carrier: carrier.into_iter().collect(), ..event(harness.topic(), "registered") };
    assert_acked(&harness.bus().publish(&[plain.clone(), traced.clone()]).await, 2);
    let start = |event: &Event| {
        let id = event.id;
        format!(
            r#"{{"id":"{id}","type":"registered","timestamp":"2026-01-02T03:04:05.678901Z","payload":{{"name":"Ada"}}"#
        )
    };
    for message in harness.delivered().await {
        let expected = match message.id == plain.id {
            true => format!("{}}}", start(&plain)),
            false => format!(r#"{},"carrier":{{"traceparent":"00-1"}}}}"#, start(&traced)),
        };
        assert_eq!(message.body, expected);
    }
}

async fn no_type_means_topic_alone<H: BusHarness>(harness: Arc<H>) {
    let event = event(harness.topic(), "");
    assert_acked(&harness.bus().publish(std::slice::from_ref(&event)).await, 1);
    assert_eq!(harness.delivered().await[0].subject, harness.topic());
}

async fn payloads_arrive_byte_for_byte<H: BusHarness>(harness: Arc<H>) {
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let payloads = [
        &deep,
        r#"{"number":1234567890123456789012345678901234567890.0000000000000000001,"huge":1e100000,"minus":-0.0}"#,
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{"text":"雪\u0000\ud83d\ude00😀 \" \\ \/ café"}"#,
        r#" { "spaces" :  [ 1 , 2 ] } "#,
        r#""just text""#,
        "null",
    ];
    let events: Vec<Event> = payloads
        .iter()
        .map(|payload| Event { payload: payload.to_string().into(), ..event(harness.topic(), "tried") })
        .collect();
    assert_acked(&harness.bus().publish(&events).await, events.len());
    assert_delivered(&*harness, &events).await;
}

async fn a_large_batch_arrives_whole<H: BusHarness>(harness: Arc<H>) {
    let events = events(harness.topic(), 500);
    assert_acked(&harness.bus().publish(&events).await, 500);
    assert_delivered(&*harness, &events).await;
}

async fn concurrent_batches_do_not_mix<H: BusHarness>(harness: Arc<H>) {
    let batches: Vec<Vec<Event>> = (0..4).map(|_| events(harness.topic(), 100)).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for batch in batches.clone() {
        let bus = harness.bus().clone();
        tasks.spawn(async move {
            for part in batch.chunks(20) {
                assert_acked(&bus.publish(part).await, part.len());
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("every part is acknowledged");
    }
    assert_delivered(&*harness, &batches.concat()).await;
}

async fn sent_again_keeps_its_id<H: BusHarness>(harness: Arc<H>) {
    let event = event(harness.topic(), "registered");
    for _ in 0..2 {
        let receipts = harness.bus().publish(std::slice::from_ref(&event)).await;
        assert_eq!(kinds(&receipts), [None], "{receipts:?}");
    }
    let delivered = harness.delivered().await;
    assert!(!delivered.is_empty() && delivered.iter().all(|message| message.id == event.id), "{delivered:?}");
}

async fn an_id_is_stored_once<H: BusHarness>(harness: Arc<H>) {
    let event = event(harness.topic(), "registered");
    let twice = [event.clone(), event.clone()];
    let first = harness.bus().publish(&twice).await;
    let again = harness.bus().publish(std::slice::from_ref(&event)).await;
    let acks: Vec<bool> = first.iter().chain(&again).flatten().map(|ack| ack.duplicate).collect();
    assert_eq!(acks, [false, true, true]);
    assert_delivered(&*harness, &[event]).await;
}

async fn too_large_is_rejected_alone<H: BusHarness>(harness: Arc<H>) {
    let max = harness.can().message_bytes_max.expect("the case runs only with a limit");
    let mut events = events(harness.topic(), 3);
    events[1].payload = format!("\"{}\"", "x".repeat(max)).into();
    let receipts = harness.bus().publish(&events).await;
    assert_eq!(kinds(&receipts), [None, Some(BusErrorKind::Rejected), None], "{receipts:?}");
    let message = receipts[1].as_ref().expect_err("it is rejected").chain();
    assert!(message.starts_with("message too large: expected at most "), "{message}");
    events.remove(1);
    assert_delivered(&*harness, &events).await;
}
