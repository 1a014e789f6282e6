//! What counts as an attempt: only an event's own fault, every failed publish, or what a route does not take for too long.

use outbox_testkit::servers::{NatsServer, PostgresServer, TestDatabase, free_port};
use outbox_testkit::wait_until;

use crate::program::{Relay, run};

/// A database with events of these topics, the first one the oldest.
async fn outbox_with(topics: &[&str]) -> TestDatabase {
    let database = PostgresServer::shared().database().await;
    assert!(run(&["migrate", "up"], &[("POSTGRES_DSN", &database.dsn())]).status.success());
    let sql = database.client().await;
    for topic in topics {
        sql.execute("SELECT outbox_publish($1, 'placed', '{}')", &[topic]).await.unwrap();
    }
    database
}

/// Returns status, attempts and last error of the oldest event.
async fn oldest(database: &TestDatabase) -> (String, i32, String) {
    let query = "SELECT status, attempt_count, coalesce(last_error, '') FROM outbox_events ORDER BY id LIMIT 1";
    let row = database.client().await.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

fn metric(relay: &Relay, series: &str) -> u64 {
    let metrics = relay.get("/metrics").1;
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_default()
}

fn relay(database: &TestDatabase, nats: &str, settings: &[(&str, &str)]) -> Relay {
    let dsn = database.dsn();
    let common = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("NATS_URL", nats),
        ("OUTBOX_NATS_STREAMS", "ORDERS=orders"),
        ("OUTBOX_MAX_ATTEMPTS", "3"),
        ("OUTBOX_RETRY_BACKOFF", "10ms"),
        ("OUTBOX_OUTAGE_BACKOFF_MAX", "50ms"),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
    ];
    Relay::start(&[&common[..], settings].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_counts_with_all_and_does_not_with_rejected() {
    let nobody = format!("nats://127.0.0.1:{}", free_port());
    let spared = outbox_with(&["orders"]).await;
    let relay_of_spared = relay(&spared, &nobody, &[]);
    let counted = outbox_with(&["orders"]).await;
    let relay_of_counted = relay(&counted, &nobody, &[("OUTBOX_CHARGE", "all")]);

    wait_until("the third failure sets it aside", async || (oldest(&counted).await.0 == "FAILED").then_some(())).await;
    let (_, attempts, error) = oldest(&counted).await;
    assert_eq!(attempts, 3);
    assert!(error.contains("connect"), "{error}");
    let dead_lettered = "gamemesh_outbox_events_dead_lettered_total{service=\"outbox-relay\"}";
    assert_eq!(metric(&relay_of_counted, dead_lettered), 1);
    assert!(relay_of_counted.get("/readyz").0.contains("503"), "the bus is down all the same");

    wait_until("it failed more often than that", async || {
        (metric(&relay_of_spared, "gamemesh_outbox_publish_failures_total{service=\"outbox-relay\"}") > 6).then_some(())
    })
    .await;
    assert_eq!(oldest(&spared).await, ("PENDING".to_owned(), 0, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_never_comes_back_is_given_up_after_the_time_that_was_set_and_its_neighbours_go_through() {
    let nats = NatsServer::start().await.unwrap();
    // No stream takes invoices.
    let topics = ["invoices", "invoices", "orders", "orders"];
    let waiting = outbox_with(&topics).await;
    let relay_that_waits = relay(&waiting, &nats.url(), &[]);
    let given_up = outbox_with(&topics).await;
    let relay_that_gives_up = relay(&given_up, &nats.url(), &[("OUTBOX_CHARGE_ROUTES_AFTER", "500ms")]);

    let count = async |database: &TestDatabase, status: &str| {
        let sql = "SELECT count(*) FROM outbox_events WHERE status = $1";
        database.client().await.query_one(sql, &[&status]).await.unwrap().get::<_, i64>(0)
    };
    wait_until("both are set aside", async || (count(&given_up, "FAILED").await == 2).then_some(())).await;
    let (_, attempts, error) = oldest(&given_up).await;
    assert_eq!(attempts, 3);
    assert!(error.contains("no stream takes subject invoices.placed"), "{error}");
    assert_eq!(count(&given_up, "PUBLISHED").await, 2);
    relay_that_gives_up.wait_for_log("an attempt is counted");

    let no_route = "gamemesh_outbox_publish_attempts_total{service=\"outbox-relay\",outcome=\"no_route\"}";
    wait_until("it was tried as often", async || (metric(&relay_that_waits, no_route) > 6).then_some(())).await;
    assert_eq!(oldest(&waiting).await.1, 0);
    assert_eq!((count(&waiting, "PENDING").await, count(&waiting, "PUBLISHED").await), (2, 2));
}
