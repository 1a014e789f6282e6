//! The two formats of `/metrics`, for the tool that checks them and for a real Prometheus, and the queries of the earlier
//! relay's dashboards on them.

use std::io::Write;
use std::process::{Command, Stdio};

use outbox_testkit::servers::{NatsServer, PostgresServer, PrometheusServer};
use outbox_testkit::wait_until;

use crate::program::{Answer, Relay, exchange, run, transcript};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// What the earlier relay's dashboards ask, besides what is not the relay's (matches, connections of players).
const QUERIES: [&str; 8] = [
    "sum by (service) (rate(gamemesh_http_requests_total[1m]))",
    "sum by (service) (rate(gamemesh_http_errors_total[5m])) / sum by (service) (rate(gamemesh_http_requests_total[5m]))",
    "histogram_quantile(0.95, sum by (service, le) (rate(gamemesh_http_request_duration_seconds_bucket[5m])))",
    "histogram_quantile(0.99, sum by (le) (rate(gamemesh_outbox_publish_duration_seconds_bucket[5m])))",
    "sum by (topic, type) (rate(gamemesh_events_published_total{topic=\"events.player\",type=\"registered\"}[1m]))",
    "sum by (topic) (rate(gamemesh_events_failed_total{topic=\"events.player\",stage=\"publish\"}[1m]))",
    "rate(process_cpu_seconds_total[1m])",
    "process_resident_memory_bytes > 1e6 and process_virtual_memory_bytes > 1e6 and process_open_fds > 3 \
     and process_max_fds > process_open_fds and time() - process_start_time_seconds < 3600",
];

fn metrics(relay: &Relay, accept: Option<&str>) -> Answer {
    let accept = accept.map(|accept| ("Accept", accept));
    let headers: Vec<(&str, &str)> = [("Host", "localhost")].into_iter().chain(accept).collect();
    exchange(relay.address(), "GET", "/metrics", &headers, "")
}

#[test]
fn promtool_finds_nothing_wrong_with_the_plain_text() {
    let relay = Relay::start(&[("OUTBOX_ENABLED", "false"), ("OTEL_SERVICE_NAME", "shop \"1\"")]);
    assert!(relay.get("/nowhere").0.starts_with("HTTP/1.1 404"));
    let answer = metrics(&relay, None);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(!answer.body.contains("# EOF") && !answer.body.contains("le=\"1.0\""), "{}", answer.body);
    assert!(answer.body.contains("# TYPE gamemesh_outbox_events_published_total counter\n"), "{}", answer.body);
    let said = promtool(&answer.body);
    assert!(said.is_empty(), "{said}");
    assert!(!promtool("# TYPE sent counter\nsent 1\n").is_empty(), "it finds nothing");
}

/// Returns what `promtool check metrics` has against `text`.
fn promtool(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is there: scripts/test installs what is missing");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn open_metrics_is_for_whoever_asks_for_it() {
    let relay = Relay::start(&[("OUTBOX_ENABLED", "false")]);
    let answer = metrics(&relay, Some(OPEN_METRICS));
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    assert!(answer.body.ends_with("# EOF\n") && answer.body.contains("le=\"1.0\""), "{}", answer.body);
    assert!(metrics(&relay, Some("*/*")).head.contains("content-type: text/plain; version=0.0.4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_the_earlier_relays_dashboards_find_data_in_either_format() {
    let nats = NatsServer::start().await.unwrap();
    let database = PostgresServer::shared().database().await;
    let (dsn, url) = (database.dsn(), nats.url());
    let settings = [("POSTGRES_DSN", dsn.as_str()), ("NATS_URL", url.as_str()), ("OUTBOX_POLL_INTERVAL", "50ms")];
    let migrated = run(&["migrate", "up"], &settings);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    let relay = Relay::start(&settings);
    let sql = database.client().await;

    for format in ["PrometheusText0.0.4", "OpenMetricsText1.0.0"] {
        let config = format!(
            "scrape_configs: [{{job_name: outbox-relay, scrape_protocols: [{format}], \
             static_configs: [{{targets: ['{}']}}]}}]\n",
            relay.address()
        );
        let prometheus = PrometheusServer::start_newest(&config, "").await.unwrap();
        for query in QUERIES {
            wait_until(&format!("{format}: {query}"), async || {
                // Traffic while it looks, so that rates are rates of something.
                sql.execute("SELECT outbox_publish('events.player', 'registered', '{}')", &[]).await.unwrap();
                assert!(relay.get("/nowhere").0.starts_with("HTTP/1.1 404"));
                let found = prometheus.query(query).await.unwrap();
                found.iter().any(|sample| sample["value"][1] != "NaN").then_some(())
            })
            .await;
        }
        // OpenMetrics names a counter without the ending of its samples.
        let ending = if format.starts_with("Open") { "" } else { "_total" };
        let types = prometheus.types(&format!("gamemesh_outbox_events_published{ending}")).await.unwrap();
        assert_eq!(types, ["counter"], "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_each_event_is_one_observation() {
    let nats = NatsServer::start().await.unwrap();
    let database = PostgresServer::shared().database().await;
    let (dsn, url) = (database.dsn(), nats.url());
    let settings = [("POSTGRES_DSN", dsn.as_str()), ("NATS_URL", url.as_str())];
    let migrated = run(&["migrate", "up"], &settings);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    // One batch of them.
    let many = "SELECT outbox_publish('events.player', 'registered', '{}') FROM generate_series(1, 37)";
    database.client().await.execute(many, &[]).await.unwrap();
    let relay = Relay::start(&settings);
    wait_until("all are published", async || {
        let text = metrics(&relay, None).body;
        text.contains("gamemesh_outbox_events_published_total{service=\"outbox-relay\"} 37\n").then_some(())
    })
    .await;
    let text = metrics(&relay, None).body;
    for line in [
        "gamemesh_outbox_publish_duration_seconds_count{service=\"outbox-relay\"} 37\n",
        "gamemesh_outbox_publish_duration_seconds_bucket{service=\"outbox-relay\",le=\"+Inf\"} 37\n",
        "gamemesh_events_published_total{service=\"outbox-relay\",topic=\"events.player\",type=\"registered\"} 37\n",
        "gamemesh_events_failed_total{service=\"outbox-relay\",topic=\"events.player\",stage=\"publish\"} 0\n",
    ] {
        assert!(text.contains(line), "expected {line}in\n{text}");
    }
    let bounds = text.lines().filter(|line| line.starts_with("gamemesh_outbox_publish_duration_seconds_bucket"));
    let bounds: Vec<&str> = bounds.map(|line| line.split("le=\"").nth(1).unwrap().split('"').next().unwrap()).collect();
    let earlier = ["0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"];
    assert_eq!(bounds, earlier, "the earlier relay's buckets, written as it writes them");
}
