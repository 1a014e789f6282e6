use nix::sys::signal::Signal;
use outbox_testkit::servers::{NatsServer, PostgresServer};
use outbox_testkit::wait_until;

use crate::program::{Relay, run, transcript};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_plain_sql_reaches_jetstream_and_a_clean_stop_leaves_nothing_claimed() {
    let database = PostgresServer::shared().database().await;
    let nats = NatsServer::start().await.unwrap();
    let (dsn, nats_url) = (database.dsn(), nats.url());
    let environment = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("NATS_URL", nats_url.as_str()),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
        ("OUTBOX_RETENTION", "72h"),
    ];
    let migrated = run(&["migrate", "up"], &environment);
    assert!(migrated.status.success(), "{}", transcript(&migrated));

    let client = database.client().await;
    let insert = "INSERT INTO outbox_events (id, event_type, topic, payload)
                  VALUES (gen_random_uuid(), 'registered', 'events.player', '{\"name\": \"Ada\"}')";
    client.batch_execute(insert).await.unwrap();
    let emitted = run(&["emit", "--topic", "events.player", "--type", "emitted", "--payload", "1"], &environment);
    assert!(emitted.status.success(), "{}", transcript(&emitted));

    let mut relay = Relay::start(&environment);
    relay.wait_for_log("relay running");
    let pending = "SELECT count(*) FROM outbox_events WHERE status <> 'PUBLISHED'";
    wait_until("both events are published", async || {
        (client.query_one(pending, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let (head, body) = relay.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    wait_until("the counter agrees with the table", async || {
        let counted = "gamemesh_outbox_events_published_total{service=\"outbox-relay\"} 2";
        relay.get("/metrics").1.contains(counted).then_some(())
    })
    .await;
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
}
