//! Spans as a collector receives them, by OTLP over gRPC.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use outbox_testkit::servers::{NatsServer, PostgresServer, free_port};
use outbox_testkit::wait_until;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::program::{Relay, run};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

struct Collector(UnboundedSender<(String, Span)>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource_spans in request.into_inner().resource_spans {
            let resource = format!("{:?}", resource_spans.resource);
            for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.0.send((resource.clone(), span)).expect("the test listens");
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector, and returns what it receives: the resource of each span, and the span.
pub(crate) async fn collector() -> (SocketAddr, UnboundedReceiver<(String, Span)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, spans) = unbounded_channel();
    let server = Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (address, spans)
}

/// Finds a span.
pub(crate) fn named<'a>(spans: &'a [(String, Span)], name: &str) -> &'a (String, Span) {
    spans.iter().find(|(_, span)| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"))
}

/// Returns an attribute, whether a text or a whole number.
fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    match value {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Publishes one event of the trace and returns the spans that the collector has got by the relay's end.
async fn spans_of_a_run(settings: &[(&str, &str)]) -> Vec<(String, Span)> {
    let (collector, mut spans) = collector().await;
    let database = PostgresServer::shared().database().await;
    let nats = NatsServer::start().await.unwrap();
    let (dsn, nats_url, endpoint) = (database.dsn(), nats.url(), format!("http://{collector}"));
    let mut environment = vec![
        ("POSTGRES_DSN", dsn.as_str()),
        ("NATS_URL", nats_url.as_str()),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
        ("OTEL_ENABLED", "true"),
        ("OTEL_SERVICE_NAME", "shop-relay"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
    ];
    environment.extend(settings);
    assert!(run(&["migrate", "up"], &environment).status.success());
    let sql = database.client().await;
    let insert = format!(
        "SELECT outbox_publish('events.player', 'registered', '{{}}',
                               carrier => '{{\"traceparent\": \"00-{TRACE}-{PARENT}-01\"}}')"
    );
    sql.batch_execute(&insert).await.unwrap();
    let mut relay = Relay::start(&environment);
    wait_until("the event is published", async || {
        let row = sql.query_one("SELECT status FROM outbox_events", &[]).await.unwrap();
        (row.get::<_, &str>(0) == "PUBLISHED").then_some(())
    })
    .await;
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
    let mut received = Vec::new();
    while let Ok(span) = spans.try_recv() {
        received.push(span);
    }
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_receives_the_spans_of_the_contract_before_the_relay_ends() {
    // The library logs nothing; its spans are exported all the same.
    let spans = spans_of_a_run(&[("LOG_LEVEL", "outbox_relay=info")]).await;
    let named = |name: &str| named(&spans, name);
    let (resource, publish) = named("outbox.publish events.player");
    assert_eq!((hex(&publish.trace_id).as_str(), hex(&publish.parent_span_id).as_str()), (TRACE, PARENT));
    assert!(resource.contains("shop-relay"), "{resource}");
    assert_eq!(publish.kind, SpanKind::Internal as i32);
    let sent = &named("events.publish events.player").1;
    assert_eq!((&sent.parent_span_id, &sent.trace_id), (&publish.span_id, &publish.trace_id));
    assert_eq!(sent.kind, SpanKind::Producer as i32);
    assert_eq!(attribute(sent, "messaging.system").as_deref(), Some("nats"));
    assert_eq!(attribute(sent, "messaging.destination.name").as_deref(), Some("events.player"));
    assert_eq!(attribute(sent, "messaging.event.type").as_deref(), Some("registered"));
    let marked = &named("outbox.mark_published").1;
    for (key, value) in [("outbox.published", "1"), ("outbox.failed", "0"), ("outbox.dead_lettered", "0")] {
        assert_eq!(attribute(marked, key).as_deref(), Some(value), "{key}");
    }
    let (_, poll) = named("outbox.poll");
    assert_eq!(named("outbox.mark_published").1.parent_span_id, poll.span_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sampler_is_chosen_by_the_standard_variable() {
    assert_eq!(spans_of_a_run(&[("OTEL_TRACES_SAMPLER", "always_off")]).await, []);
    // The request's own decision counts; the relay's own spans have none to follow.
    let spans = spans_of_a_run(&[("OTEL_TRACES_SAMPLER", "parentbased_always_off")]).await;
    let names: Vec<&str> = spans.iter().map(|(_, span)| span.name.as_str()).collect();
    assert_eq!(names, ["events.publish events.player", "outbox.publish events.player"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_no_collector_takes_are_counted_and_told_once() {
    let database = PostgresServer::shared().database().await;
    let (dsn, nobody) = (database.dsn(), format!("http://127.0.0.1:{}", free_port()));
    let environment = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("EVENT_BUS", "stdout"),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
        ("OTEL_ENABLED", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", nobody.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
    ];
    assert!(run(&["migrate", "up"], &environment).status.success());
    let sql = database.client().await;
    let insert = "SELECT outbox_publish('events.player', 'registered', '{}') FROM generate_series(1, 1000)";
    sql.batch_execute(insert).await.unwrap();
    let relay = Relay::start(&environment);
    relay.wait_for_log("spans are lost: no collector takes them");
    wait_until("a thousand spans are lost", async || {
        let metrics = relay.get("/metrics").1;
        let lost = metrics
            .lines()
            .find_map(|line| line.strip_prefix("gamemesh_outbox_spans_lost_total{service=\"outbox-relay\"} "));
        (lost?.parse::<u64>().ok()? >= 1_000).then_some(())
    })
    .await;
    assert!(relay.get("/metrics").1.contains("kind=\"telling\"} 1\n"));
}
