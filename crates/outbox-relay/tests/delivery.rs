//! Delivery by the real program from a real database to a real bus: rows inserted by plain SQL, faults from outside.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::AckPolicy;
use futures_util::StreamExt;
use nix::sys::signal::Signal;
use outbox_testkit::proxy::{Direction, Flow, TcpProxy};
use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer};
use outbox_testkit::wait_until;
use serde_json::Value;
use tokio_postgres::Client;

use crate::program::{Relay, run, transcript};

/// A database with the outbox, and the settings that lead a relay to it and to a bus.
struct Scene {
    sql: Client,
    settings: Vec<(&'static str, String)>,
}

impl Scene {
    async fn new(bus: &'static str, url: String) -> Self {
        let scene = Self::without_schema(bus, url).await;
        scene.migrate_up();
        scene
    }

    async fn without_schema(bus: &'static str, url: String) -> Self {
        let database = PostgresServer::shared().database().await;
        let sql = database.client().await;
        let url_setting = if bus == "nats" { "NATS_URL" } else { "REDIS_URL" };
        let settings = vec![
            ("POSTGRES_DSN", database.dsn()),
            ("EVENT_BUS", bus.to_owned()),
            (url_setting, url),
            ("OUTBOX_POLL_INTERVAL", "20ms".to_owned()),
        ];
        Self { sql, settings }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn migrate_up(&self) {
        let migrated = run(&["migrate", "up"], &self.environment());
        assert!(migrated.status.success(), "{}", transcript(&migrated));
    }

    fn relay(&self) -> Relay {
        Relay::start(&self.environment())
    }

    /// Inserts events as a service that knows only the oldest columns would.
    async fn insert(&self, count: i32) {
        let sql = "INSERT INTO outbox_events (id, event_type, topic, payload)
                   SELECT gen_random_uuid(), 'registered', 'events.player', jsonb_build_object('number', number)
                   FROM generate_series(1, $1) AS number";
        self.sql.execute(sql, &[&count]).await.unwrap();
    }

    async fn count(&self, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        self.sql.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn until_count(&self, condition: &str, count: i64) {
        let what = format!("{count} rows are {condition}");
        wait_until(&what, async || (self.count(condition).await == count).then_some(())).await;
    }

    async fn ids(&self) -> Vec<String> {
        let rows = self.sql.query("SELECT id::text FROM outbox_events ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

async fn jetstream(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

/// Reads the whole stream from its first message, as an independent consumer.
async fn messages(server: &NatsServer) -> Vec<jetstream::Message> {
    let stream = jetstream(server).await.get_stream("PLAYER").await.unwrap();
    let count = stream.cached_info().state.messages as usize;
    let config = jetstream::consumer::pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    messages.map(|message| message.unwrap()).collect().await
}

/// Returns how often each id stands in the Redis stream, which keeps duplicates.
async fn redis_copies(server: &RedisServer) -> HashMap<String, u32> {
    let client = redis::Client::open(server.url()).unwrap();
    // Reading a whole stream takes longer than the client's default of half a second.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let mut range = redis::cmd("XRANGE");
    range.arg("events.player").arg("-").arg("+");
    let reply: redis::streams::StreamRangeReply = range.query_async(&mut connection).await.unwrap();
    let mut copies = HashMap::new();
    for entry in reply.ids {
        *copies.entry(entry.get::<String>("id").unwrap()).or_default() += 1;
    }
    copies
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_has_the_wire_format_of_the_contract() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    let id = "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f";
    let insert = format!(
        "INSERT INTO outbox_events (id, event_type, topic, payload, carrier, created_at)
         VALUES ('{id}', 'registered', 'events.player', '{{\"name\": \"Zoë\", \"n\": 12345678901234567890.123}}',
                 '{{\"traceparent\": \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}}',
                 '2026-01-02 03:04:05.678+00'),
                ('{}', '', 'events.player', '[]', '{{}}', '2026-01-02 03:04:06+00')",
        id.replace("8f", "90"),
    );
    scene.sql.batch_execute(&insert).await.unwrap();
    let _relay = scene.relay();
    scene.until_count("status = 'PUBLISHED' AND published_at IS NOT NULL AND attempt_count = 0", 2).await;

    let mut messages = messages(&nats).await;
    messages.sort_by_key(|message| message.subject.to_string());
    let [bare, typed] = messages.as_slice() else { panic!("expected 2 messages, got {messages:?}") };
    assert_eq!((bare.subject.as_str(), typed.subject.as_str()), ("events.player", "events.player.registered"));
    assert_eq!(typed.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().as_str(), id);
    let expected = format!(
        "{{\"id\":\"{id}\",\"type\":\"registered\",\"timestamp\":\"2026-01-02T03:04:05.678Z\",\
         \"payload\":{{\"n\": 12345678901234567890.123, \"name\": \"Zoë\"}},\
         \"carrier\":{{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}}}}",
    );
    assert_eq!(String::from_utf8_lossy(&typed.payload), expected);
    let envelope: Value = serde_json::from_slice(&bare.payload).unwrap();
    assert_eq!((envelope.get("carrier"), &envelope["payload"]), (None, &Value::Array(Vec::new())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_many_polls_dead_letters_nothing() {
    let mut nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await.with("OUTBOX_MAX_ATTEMPTS", "1");
    scene.insert(10).await;
    let relay = scene.relay();
    scene.until_count("status = 'PUBLISHED'", 10).await;
    nats.kill();
    scene.insert(500).await;
    wait_until("the outage is counted and seen", async || {
        let failures = metric(&relay, "gamemesh_outbox_publish_failures_total");
        (failures > 0.0 && relay.get("/readyz").0.starts_with("HTTP/1.1 503")).then_some(())
    })
    .await;
    assert_eq!(scene.count("status = 'PENDING' AND attempt_count = 0 AND last_error = ''").await, 500);
    nats.restart().await.unwrap();
    scene.until_count("status = 'PUBLISHED' AND attempt_count = 0", 510).await;
    assert_eq!(messages(&nats).await.len(), 510);
    wait_until("ready again", async || relay.get("/readyz").0.starts_with("HTTP/1.1 200").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_charges_nothing_and_delays_no_other_topic() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await.with("OUTBOX_MAX_ATTEMPTS", "1");
    let stranded = "INSERT INTO outbox_events (id, event_type, topic, payload)
                    SELECT gen_random_uuid(), 'x', 'events.nowhere', '1' FROM generate_series(1, 300)";
    scene.sql.batch_execute(stranded).await.unwrap();
    scene.insert(50).await;
    let _relay = scene.relay();
    scene.until_count("topic = 'events.player' AND status = 'PUBLISHED'", 50).await;
    assert_eq!(scene.count("topic = 'events.nowhere' AND status = 'PENDING' AND attempt_count = 0").await, 300);
    let config = jetstream::stream::Config {
        name: "NOWHERE".into(),
        subjects: vec!["events.nowhere.>".into()],
        ..Default::default()
    };
    jetstream(&nats).await.create_stream(config).await.unwrap();
    scene.until_count("topic = 'events.nowhere' AND status = 'PUBLISHED'", 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_fails_after_exactly_the_maximum_and_is_never_polled_again() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url())
        .await
        .with("OUTBOX_MAX_ATTEMPTS", "3")
        .with("OUTBOX_RETRY_BACKOFF", "10ms")
        .with("OUTBOX_RETRY_BACKOFF_MAX", "20ms");
    let poison = "INSERT INTO outbox_events (id, event_type, topic, payload)
                  SELECT gen_random_uuid(), 'x', topic, '1'
                  FROM unnest(ARRAY['events.*', 'events.>', 'a b', '', E'a\\r\\nb', '$JS.API.STREAM.DELETE.PLAYER']) AS topic";
    scene.sql.batch_execute(poison).await.unwrap();
    scene.insert(20).await;
    let relay = scene.relay();
    let failed =
        "status = 'FAILED' AND attempt_count = 3 AND last_error LIKE 'invalid topic%' AND published_at IS NULL";
    scene.until_count(failed, 6).await;
    scene.until_count("status = 'PUBLISHED'", 20).await;
    wait_until("the counter agrees with the table", async || {
        (metric(&relay, "gamemesh_outbox_events_dead_lettered_total") == 6.0).then_some(())
    })
    .await;
    // Later turns, seen by a row that comes after them, leave the dead letters alone.
    scene.insert(1).await;
    scene.until_count("status = 'PUBLISHED'", 21).await;
    assert_eq!(scene.count(failed).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maximum_of_zero_never_dead_letters() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url())
        .await
        .with("OUTBOX_RETRY_BACKOFF", "1ms")
        .with("OUTBOX_RETRY_BACKOFF_MAX", "2ms");
    let poison =
        "INSERT INTO outbox_events (id, event_type, topic, payload) VALUES (gen_random_uuid(), 'x', 'a b', '1')";
    scene.sql.batch_execute(poison).await.unwrap();
    let _relay = scene.relay();
    wait_until("many attempts were charged", async || (scene.count("attempt_count >= 10").await == 1).then_some(()))
        .await;
    assert_eq!(scene.count("status = 'PENDING'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_drain_one_table_without_a_duplicate() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new("redis", redis.url()).await;
    scene.insert(5_000).await;
    let _replicas = [scene.relay(), scene.relay(), scene.relay()];
    scene.until_count("status = 'PUBLISHED'", 5_000).await;
    let copies = redis_copies(&redis).await;
    assert_eq!((copies.len(), copies.values().max()), (5_000, Some(&1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_in_the_middle_of_a_batch_loses_nothing() {
    let redis = RedisServer::start().await.unwrap();
    let proxy = TcpProxy::start(redis.port()).await.unwrap();
    let scene = Scene::new("redis", format!("redis://127.0.0.1:{}", proxy.port())).await.with("OUTBOX_WORKERS", "1");
    let mut relay = scene.relay();
    scene.insert(1).await;
    scene.until_count("status = 'PUBLISHED'", 1).await;

    // The bus stores the next batch, its answer does not come, and then the relay dies.
    proxy.set(Direction::ToClient, Flow::Blackhole);
    scene.insert(100).await;
    wait_until("the bus has the batch", async || (redis_copies(&redis).await.len() == 101).then_some(())).await;
    relay.signal(Signal::SIGKILL);
    relay.exit_code();
    assert_eq!(scene.count("status = 'PENDING'").await, 100, "nothing unacknowledged is marked");
    proxy.cut();
    proxy.set(Direction::ToClient, Flow::Pass);

    let _next = scene.relay();
    scene.until_count("status = 'PUBLISHED'", 101).await;
    let copies = redis_copies(&redis).await;
    assert_eq!(copies.len(), 101);
    let twice = copies.values().filter(|copies| **copies == 2).count();
    assert_eq!((twice, copies.values().max()), (100, Some(&2)), "duplicates are what was in flight, with the same ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_killed_at_any_moment_lose_nothing_and_bound_their_duplicates() {
    const KILLS: usize = 8;
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new("redis", redis.url()).await.with("OUTBOX_BATCH_SIZE", "50").with("OUTBOX_WORKERS", "2");
    for _ in 0..KILLS {
        scene.insert(1_000).await;
        let before = scene.count("status = 'PUBLISHED'").await;
        let mut relay = scene.relay();
        wait_until("the relay is at work", async || (scene.count("status = 'PUBLISHED'").await > before).then_some(()))
            .await;
        relay.signal(Signal::SIGKILL);
        relay.exit_code();
    }
    let _relay = scene.relay();
    scene.until_count("status = 'PUBLISHED'", KILLS as i64 * 1_000).await;
    let copies = redis_copies(&redis).await;
    let mut arrived: Vec<String> = copies.keys().cloned().collect();
    arrived.sort();
    assert_eq!(arrived, scene.ids().await);
    let duplicates: u32 = copies.values().map(|copies| copies - 1).sum();
    assert!(duplicates <= KILLS as u32 * 2 * 50, "{duplicates}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_in_the_middle_of_a_backlog_causes_no_duplicate() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new("redis", redis.url()).await;
    scene.insert(20_000).await;
    let mut relay = scene.relay();
    wait_until("the relay is at work", async || (scene.count("status = 'PUBLISHED'").await > 0).then_some(())).await;
    let asked = std::time::Instant::now();
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let published = scene.count("status = 'PUBLISHED'").await;
    let copies = redis_copies(&redis).await;
    assert_eq!((copies.len() as i64, copies.values().max()), (published, Some(&1)), "sent is marked, marked is sent");
    assert!(published < 20_000, "the stop came while there was work");

    let _next = scene.relay();
    scene.until_count("status = 'PUBLISHED'", 20_000).await;
    let copies = redis_copies(&redis).await;
    assert_eq!((copies.len(), copies.values().max()), (20_000, Some(&1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_earlier_relay_is_taken_over_with_its_rows() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::without_schema("nats", nats.url()).await;
    for migration in ["0003_create_outbox_events", "0004_outbox_dead_letter"] {
        let path = format!("{}/../../migrations/{migration}.up.sql", env!("CARGO_MANIFEST_DIR"));
        scene.sql.batch_execute(&std::fs::read_to_string(path).unwrap()).await.unwrap();
    }
    scene.insert(250).await;
    scene
        .sql
        .batch_execute(
            "UPDATE outbox_events SET status = 'FAILED', attempt_count = 7, last_error = 'old'
                             WHERE id IN (SELECT id FROM outbox_events LIMIT 5)",
        )
        .await
        .unwrap();

    let mut early = scene.relay();
    assert_eq!(early.exit_code(), Some(3), "a schema that cannot be used is said so");
    scene.migrate_up();
    let _relay = scene.relay();
    scene.until_count("status = 'PUBLISHED'", 245).await;
    assert_eq!(scene.count("status = 'FAILED' AND attempt_count = 7 AND last_error = 'old'").await, 5);
    assert_eq!(messages(&nats).await.len(), 245);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_mode_and_retention_leave_no_published_row_behind() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    scene.insert(30).await;
    let relay = scene.relay();
    scene.until_count("status = 'PUBLISHED'", 30).await;
    drop(relay);
    scene
        .sql
        .batch_execute(
            "UPDATE outbox_events SET published_at = now() - interval '2 hours'
                             WHERE id IN (SELECT id FROM outbox_events LIMIT 20)",
        )
        .await
        .unwrap();
    let scene = scene.with("OUTBOX_RETENTION", "1h").with("OUTBOX_ON_PUBLISHED", "delete");
    scene.insert(15).await;
    let _relay = scene.relay();
    scene.until_count("true", 10).await;
    assert_eq!(scene.count("status = 'PUBLISHED' AND published_at > now() - interval '1 hour'").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_and_comes_back_is_survived() {
    let nats = NatsServer::start().await.unwrap();
    let mut postgres = PostgresServer::start().await.unwrap();
    let database = postgres.database().await;
    let (dsn, url) = (database.dsn(), nats.url());
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("NATS_URL", url.as_str()), ("OUTBOX_POLL_INTERVAL", "20ms")];
    assert!(run(&["migrate", "up"], &environment).status.success());
    let relay = Relay::start(&environment);
    relay.wait_for_log("relay running");
    postgres.crash().unwrap();
    wait_until("not ready", async || relay.get("/readyz").0.starts_with("HTTP/1.1 503").then_some(())).await;
    assert!(relay.get("/healthz").0.starts_with("HTTP/1.1 200"), "it lives, so nobody restarts it in vain");
    postgres.restart().await.unwrap();
    let sql = database.client().await;
    sql.batch_execute("SELECT outbox_publish('events.player', 'registered', '{\"back\": true}')").await.unwrap();
    wait_until("published after the restart", async || {
        let row = sql.query_one("SELECT status FROM outbox_events", &[]).await.unwrap();
        (row.get::<_, &str>(0) == "PUBLISHED").then_some(())
    })
    .await;
}

fn metric(relay: &Relay, name: &str) -> f64 {
    let (_, body) = relay.get("/metrics");
    let line = body.lines().find(|line| line.starts_with(&format!("{name}{{")));
    let value = line.and_then(|line| line.rsplit_once(' ')).expect("the metric is served").1;
    value.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_limit_that_is_lowered_at_work_stops_only_what_is_above_it() {
    let mut server = NatsServer::start_with("max_payload: 65536").await.unwrap();
    let scene = Scene::new("nats", server.url()).await.with("OUTBOX_MAX_ATTEMPTS", "1");
    let relay = scene.relay();
    let count = async |condition: &str| {
        let count = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        scene.sql.query_one(&count, &[]).await.unwrap().get::<_, i64>(0)
    };
    let insert = async |size: u32| {
        let insert = format!(
            "SELECT outbox_publish('events.player', 'registered', to_jsonb(repeat('x', {size}))) FROM generate_series(1, 20)"
        );
        scene.sql.batch_execute(&insert).await.unwrap();
    };
    insert(20_000).await;
    wait_until("large ones go through", async || (count("status = 'PUBLISHED'").await == 20).then_some(())).await;

    server.configure("max_payload: 4096").unwrap();
    server.process().signal(Signal::SIGHUP).unwrap();
    // Small ones beside large ones, until a large one has met the new limit.
    wait_until("the limit holds", async || {
        insert(20_000).await;
        insert(100).await;
        (count("status = 'FAILED'").await > 0).then_some(())
    })
    .await;
    wait_until("all is settled", async || (count("status = 'PENDING'").await == 0).then_some(())).await;
    let small = "octet_length(payload::text) < 1000";
    assert_eq!(count(&format!("status <> 'PUBLISHED' AND {small}")).await, 0, "neighbours are not harmed");
    assert_eq!(
        count("status = 'FAILED' AND last_error NOT LIKE 'message too large: expected at most 4096 bytes%'").await,
        0
    );

    server.configure("max_payload: 65536").unwrap();
    // A client learns of a higher limit when it connects the next time.
    server.restart().await.unwrap();
    let settings = scene.environment();
    wait_until("what was set aside goes through", async || {
        let requeued = run(&["dead-letters", "requeue", "--all", "--yes"], &settings);
        assert!(requeued.status.success(), "{}", transcript(&requeued));
        wait_until("all is settled", async || (count("status = 'PENDING'").await == 0).then_some(())).await;
        (count("status <> 'PUBLISHED'").await == 0).then_some(())
    })
    .await;
    drop(relay);
}
