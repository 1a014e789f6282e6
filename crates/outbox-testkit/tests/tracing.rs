//! One trace from the request that inserted an event to the consumer that received it.

use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::relay::{Relay, RelayConfig};
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::telemetry::Telemetry;
use gamemesh_outbox::{Carrier, NewEvent, OutboxPublisher, inject_carrier, resume_from_carrier};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
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
    let chain = [
        "request",
        "outbox.insert events.player",
        "outbox.publish events.player",
        "events.publish events.player",
        "consume",
    ]
    .map(span);
    assert_eq!(chain[0].parent_span_id, SpanId::INVALID);
    for pair in chain.windows(2) {
        assert_eq!(pair[1].parent_span_id, pair[0].span_context.span_id(), "{} -> {}", pair[0].name, pair[1].name);
        assert_eq!(pair[1].span_context.trace_id(), pair[0].span_context.trace_id());
    }
    assert_eq!(span("outbox.mark_published").parent_span_id, span("outbox.poll").span_context.span_id());

    let attribute = |name: &str, key: &str| {
        let attributes = &span(name).attributes;
        attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.to_string())
    };
    assert_eq!(span("events.publish events.player").span_kind, SpanKind::Producer);
    for (key, value) in [
        ("messaging.system", "memory"),
        ("messaging.destination.name", "events.player"),
        ("messaging.event.type", "registered"),
    ] {
        assert_eq!(attribute("events.publish events.player", key).as_deref(), Some(value), "{key}");
    }
    for (key, value) in [("outbox.published", "1"), ("outbox.failed", "0"), ("outbox.dead_lettered", "0")] {
        assert_eq!(attribute("outbox.mark_published", key).as_deref(), Some(value), "{key}");
    }
}

#[tokio::test]
async fn baggage_reaches_the_consumer_as_it_was_written_whether_or_not_anybody_listens() {
    // Not what a propagator would write: it would leave out the first blank and encode the umlaut.
    let entries = [("traceparent", TRACEPARENT), ("baggage", "tenant= eu-1;hop=2,name=Zo\u{eb}")];
    let carrier: Carrier = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let provider = SdkTracerProvider::builder().with_simple_exporter(InMemorySpanExporter::default()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _default = listen(tracing_subscriber::registry().with(layer));
    let store = MemoryStore::default();
    insert(&store, event().carrier(carrier.clone())).await;
    let arrived = relay_one(store).await;
    assert_eq!(arrived.get("baggage"), carrier.get("baggage"));
    assert_eq!(arrived.trace_id(), carrier.trace_id());
    assert_ne!(arrived.get("traceparent"), Some(TRACEPARENT), "the relay's own span is named");
}

#[tokio::test]
async fn what_is_attached_is_captured_without_a_tracing_layer_and_baggage_without_a_trace() {
    let parent = SpanContext::new(
        TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
        SpanId::from(0xb7ad_6b71_6920_3331),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    let tenant = Context::new().with_baggage(vec![KeyValue::new("tenant", "eu-1")]);
    for (context, expected) in [
        (tenant.clone(), vec![("baggage", "tenant=eu-1")]),
        (tenant.with_remote_span_context(parent), vec![("baggage", "tenant=eu-1"), ("traceparent", TRACEPARENT)]),
    ] {
        let store = MemoryStore::default();
        let attached = context.attach();
        insert(&store, event()).await;
        drop(attached);
        let arrived = relay_one(store).await;
        assert_eq!(arrived.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_carrier_names_the_trace_that_a_span_continues_from_it() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _default = listen(tracing_subscriber::registry().with(layer));
    for traceparent in [
        TRACEPARENT,
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "nonsense",
    ] {
        let carrier: Carrier = [("traceparent".to_owned(), traceparent.to_owned())].into_iter().collect();
        let span = info_span!("continues");
        resume_from_carrier(&span, &carrier);
        let continued = inject_carrier(&span).trace_id().expect("a span is of some trace");
        let same = carrier.trace_id().is_none_or(|named| named == continued);
        assert!(same, "{traceparent}: a span of {continued}");
        drop(span);
        let spans = exporter.get_finished_spans().expect("recorded spans");
        let parent = spans.last().expect("a span").parent_span_id;
        let unsampled = traceparent.ends_with("-00");
        assert!(unsampled || (parent == SpanId::INVALID) == carrier.trace_id().is_none(), "{traceparent}: {parent}");
    }
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
