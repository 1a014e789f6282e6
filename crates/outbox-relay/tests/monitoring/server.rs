//! The real rules in a real Prometheus that scrapes a real relay.

use outbox_testkit::servers::{NatsServer, PostgresServer, PrometheusServer};
use outbox_testkit::wait_until;
use tokio_postgres::Client;

use super::read;
use crate::program::{Relay, run, transcript};

/// What five minutes of the rules are in a test: ten seconds.
const FASTER: u32 = 30;

/// A relay at work, and a Prometheus that watches it with the rules of the repository.
pub(super) struct Watched {
    pub nats: NatsServer,
    pub sql: Client,
    pub prometheus: PrometheusServer,
    _relay: Relay,
}

impl Watched {
    pub(super) async fn start() -> Self {
        let nats = NatsServer::start().await.unwrap();
        let database = PostgresServer::shared().database().await;
        let (dsn, url) = (database.dsn(), nats.url());
        let settings = [
            ("POSTGRES_DSN", dsn.as_str()),
            ("NATS_URL", url.as_str()),
            ("OUTBOX_POLL_INTERVAL", "50ms"),
            ("OUTBOX_MAX_ATTEMPTS", "1"),
        ];
        let migrated = run(&["migrate", "up"], &settings);
        assert!(migrated.status.success(), "{}", transcript(&migrated));
        let relay = Relay::start(&settings);
        let rules = faster(&read("config/prometheus/alerts.yml"));
        let prometheus = PrometheusServer::start(&[relay.address()], &rules).await.unwrap();
        Self { nats, sql: database.client().await, prometheus, _relay: relay }
    }

    /// Inserts one event, as a service would.
    pub(super) async fn insert(&self, topic: &str) {
        self.sql.execute("SELECT outbox_publish($1, 'registered', '{}')", &[&topic]).await.unwrap();
    }

    async fn until(&self, what: &str, expression: &str) {
        wait_until(what, async || {
            let found = self.prometheus.query(expression).await.unwrap();
            (!found.is_empty()).then_some(())
        })
        .await;
    }
}

/// Divides every duration of the rules by [`FASTER`]: windows, `for`, `offset` and intervals. Thresholds stay.
fn faster(rules: &str) -> String {
    replace_durations(rules, |milliseconds| format!("{}ms", milliseconds / u64::from(FASTER)))
}

/// Replaces each duration, given in milliseconds. A duration stands after `[`, `: ` or `offset `, and ends a word.
fn replace_durations(rules: &str, replace: impl Fn(u64) -> String) -> String {
    let mut replaced = String::new();
    let mut rest = rules;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let digits = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
        let unit = match &from[digits..end] {
            "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            "d" => Some(86_400_000),
            _ => None,
        };
        replaced.push_str(before);
        let in_place = ["[", ": ", "offset "].iter().any(|start| replaced.ends_with(start));
        match unit {
            Some(unit) if in_place => replaced.push_str(&replace(from[..digits].parse::<u64>().unwrap() * unit)),
            _ => replaced.push_str(&from[..end]),
        }
        rest = &from[end..];
    }
    replaced + rest
}

#[test]
fn the_rules_under_test_differ_from_the_real_ones_only_in_durations() {
    let rules = read("config/prometheus/alerts.yml");
    let faster = faster(&rules);
    let blank = |rules: &str| replace_durations(rules, |_| "<duration>".to_owned());
    assert_eq!(blank(&rules), blank(&faster));
    for (real, fast) in [("[5m]", "[10000ms]"), ("for: 24h", "for: 2880000ms"), ("offset 5m", "offset 10000ms")] {
        assert!(rules.contains(real) && faster.contains(fast), "{real} {fast}");
    }
    assert!(faster.contains("> bool 60") && faster.contains("ratio_5m"), "thresholds and names stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_bus_fires_publish_stalled_and_bringing_it_back_clears_it() {
    let mut watched = Watched::start().await;
    watched.insert("events.player").await;
    watched.until("a success is scraped", "gamemesh_outbox_events_published_total == 1").await;
    let early = watched.prometheus.query("ALERTS{alertname=~\"OutboxPublishStalled|OutboxBusDown\"}").await.unwrap();
    assert!(early.is_empty(), "healthy, and silent: {early:?}");

    watched.nats.kill();
    watched.insert("events.player").await;
    let alert = |state: &str| format!("ALERTS{{alertname=\"OutboxPublishStalled\",alertstate=\"{state}\"}}");
    watched.until("the alert is pending", &alert("pending")).await;
    watched.until("the alert fires", &alert("firing")).await;
    watched.until("so does the one on the bus", "ALERTS{alertname=\"OutboxBusDown\",alertstate=\"firing\"}").await;

    watched.nats.restart().await.unwrap();
    let cleared = "gamemesh_outbox_events_published_total == 2 unless on () ALERTS{alertname=\"OutboxPublishStalled\"}";
    watched.until("the event goes out, and the alert clears", cleared).await;
}
