//! One trace from the request that inserted an event to the consumer that received it.

use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::relay::{Relay, RelayConfig};
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::telemetry::Telemetry;
use gamemesh_outbox::{Carrier, NewEvent, OutboxPublisher, resume_from_carrier};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use outbox_testkit::listen;
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::SubscriberExt;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn insert(store: &MemoryStore, event: NewEvent) {
    let mut tx = store.begin();
    OutboxPublisher::default().publish(&mut tx, event).await.expect("a valid event");
    tx.commit();
}

/// Relays what is in `store` and returns the carrier of the one message that arrives.
async fn relay_one(store: MemoryStore) -> Carrier {
    let (bus, telemetry) = (MemoryBus::default(), Telemetry::new("test"));
    let mut progress = telemetry.progress();
    let relay = Relay::new(store, bus.clone(), RelayConfig::default(), telemetry);
    let stop = async move { progress.wait_for(|progress| progress.published == 1).await.map(drop).expect("it runs") };
    relay.run(stop).await.expect("a clean run");
    let envelope: serde_json::Value = serde_json::from_slice(&bus.messages()[0].body).expect("an envelope");
    match envelope.get("carrier") {
        Some(carrier) => Carrier::from_json(&carrier.to_string()).expect("a carrier of strings"),
        None => Carrier::default(),
    }
}

fn event() -> NewEvent {
    NewEvent::new("events.player", "registered", &1).expect("a number is JSON")
}

#[tokio::test]
async fn request_insert_publish_and_consumer_share_one_trace() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _default = listen(tracing_subscriber::registry().with(layer));

    let store = MemoryStore::default();
    insert(&store, event()).instrument(info_span!("request")).await;
    let carrier = relay_one(store).await;
    let consume = info_span!("consume");
    resume_from_carrier(&consume, &carrier);
    drop(consume);

    let spans = exporter.get_finished_spans().expect("recorded spans");
    let span = |name: &str| -> &SpanData { spans.iter().find(|span| span.name == name).expect(name) };
    let chain = ["request", "outbox.insert events.player", "outbox.publish events.player", "consume"].map(span);
    assert_eq!(chain[0].parent_span_id, SpanId::INVALID);
    for pair in chain.windows(2) {
        assert_eq!(pair[1].parent_span_id, pair[0].span_context.span_id(), "{} -> {}", pair[0].name, pair[1].name);
        assert_eq!(pair[1].span_context.trace_id(), pair[0].span_context.trace_id());
    }
    assert_eq!(span("outbox.mark_published").parent_span_id, span("outbox.poll").span_context.span_id());
}

#[tokio::test]
async fn context_flows_unchanged_when_tracing_is_off() {
    let entries = [("traceparent", TRACEPARENT), ("tracestate", "vendor=1"), ("baggage", "tenant=eu")];
    let carrier: Carrier = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let store = MemoryStore::default();
    insert(&store, event().carrier(carrier.clone())).await;
    assert_eq!(relay_one(store).await, carrier);
}

#[tokio::test]
async fn an_event_without_context_has_no_carrier_on_the_wire() {
    let store = MemoryStore::default();
    insert(&store, event()).await;
    assert!(relay_one(store).await.is_empty());
}
