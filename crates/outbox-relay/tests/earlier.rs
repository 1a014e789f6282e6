//! The environment of the earlier relay, as it is: every variable, in every form that it takes.

use nix::sys::signal::Signal;
use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer, TestDatabase, free_port};
use outbox_testkit::wait_until;
use serde_json::Value;

use crate::otlp::{collector, named};
use crate::program::{Relay, run, transcript};

/// What its compose file and `.env` set, besides where the servers are.
const COMPOSE: [(&str, &str); 16] = [
    ("APP_ENV", "staging"),
    ("REDIS_ADDR", "localhost:6379"),
    ("REDIS_PASSWORD", "hunter2"),
    ("REDIS_DB", "0"),
    ("EVENT_BUS", "redis"),
    ("EVENT_WORKERS", "8"),
    ("OUTBOX_ENABLED", "T"),
    ("OUTBOX_BATCH_SIZE", "0"),
    ("OUTBOX_POLL_INTERVAL", "-1s"),
    ("OUTBOX_WORKERS", "50"),
    ("OUTBOX_MAX_ATTEMPTS", "-1"),
    ("AUTO_MIGRATE", "TRUE"),
    ("SERVICE_VERSION", "1.4.2"),
    ("OTEL_SERVICE_NAME", "outbox-relay"),
    ("OTEL_TRACES_SAMPLER", "whatever"),
    ("OTEL_TRACES_SAMPLER_ARG", "all"),
];

/// Returns the DSN as libpq keywords, as the earlier relay has it.
fn keywords(database: &TestDatabase) -> String {
    let dsn = database.dsn();
    if dsn.contains("sslmode") { dsn } else { format!("{dsn} sslmode=disable") }
}

/// Leaves the schema as an older release did.
fn migrate_to_the_last_but_one(dsn: &str) {
    let before = gamemesh_outbox::store::postgres::MIGRATIONS.last().unwrap().version - 1;
    for arguments in [&["migrate", "up"][..], &["migrate", "down", "--to", &before.to_string()]] {
        let migrated = run(arguments, &[("POSTGRES_DSN", dsn)]);
        assert!(migrated.status.success(), "{}", transcript(&migrated));
    }
}

async fn insert(database: &TestDatabase, topic: &str) {
    let sql = format!(
        "INSERT INTO outbox_events (id, event_type, topic, payload, carrier, status, created_at, attempt_count)
         VALUES (gen_random_uuid(), 'PlayerRegistered', '{topic}', '{{\"player_id\": 7}}', '{{}}', 'PENDING', now(), 0)"
    );
    database.client().await.batch_execute(&sql).await.unwrap();
}

async fn await_published(database: &TestDatabase, count: i64) {
    let sql = database.client().await;
    wait_until("the events are published", async || {
        let query = "SELECT count(*) FROM outbox_events WHERE status = 'PUBLISHED'";
        (sql.query_one(query, &[]).await.ok()?.get::<_, i64>(0) == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_compose_environment_starts_this_relay_which_says_what_it_does_not_take_as_it_stands() {
    let database = PostgresServer::shared().database().await;
    let nats = NatsServer::start().await.unwrap();
    let (collector, mut spans) = collector().await;
    let (dsn, nats_url, endpoint) = (keywords(&database), nats.url(), collector.to_string());
    let places = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("NATS_URL", nats_url.as_str()),
        // A host and a port, and nothing else.
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("HTTP_PORT", "0"),
    ];
    let mut relay = Relay::start(&[&places[..], &COMPOSE[..]].concat());
    relay.wait_for_log("migration applied");
    relay.wait_for_log("relay running");
    insert(&database, "events.player").await;
    await_published(&database, 1).await;

    // On the bus that the earlier relay publishes to.
    let jetstream = async_nats::jetstream::new(async_nats::connect(&nats_url).await.unwrap());
    let mut stream = jetstream.get_stream("PLAYER").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);

    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outbox-relay' AND datname = current_database()";
    let connections: i64 = database.client().await.query_one(query, &[]).await.unwrap().get(0);
    assert!(connections <= 12, "50 publishes in flight became {connections} connections");

    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
    let log = relay.everything_printed();
    for name in [
        "OUTBOX_BATCH_SIZE",
        "OUTBOX_POLL_INTERVAL",
        "OUTBOX_MAX_ATTEMPTS",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
    ] {
        assert_eq!(log.matches(&format!("\"{name}: expected ")).count(), 1, "{name}, once: {log}");
    }
    assert_eq!(log.matches("EVENT_BUS=redis: nats is used").count(), 1, "{log}");
    assert!(log.contains("Redis Pub/Sub, which stores nothing") && log.contains("EVENT_BUS=redis-streams"), "{log}");
    assert!(log.contains("OUTBOX_WORKERS=50 and OUTBOX_WORKERS_MAX (by default 8)"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");

    let mut received = Vec::new();
    while let Ok(span) = spans.try_recv() {
        received.push(span);
    }
    let (resource, _) = named(&received, "outbox.publish events.player");
    for attribute in ["1.4.2", "staging", "service.version", "deployment.environment"] {
        assert!(resource.contains(attribute), "{attribute}: {resource}");
    }
}

#[test]
fn a_variable_of_the_earlier_relay_that_is_no_value_is_passed_over_and_one_of_this_relay_is_refused() {
    for (name, text) in [
        ("OUTBOX_ENABLED", "yes"),
        ("OUTBOX_BATCH_SIZE", "-5"),
        ("OUTBOX_POLL_INTERVAL", "5"),
        ("OUTBOX_WORKERS", "many"),
        ("OUTBOX_MAX_ATTEMPTS", "1.5"),
        ("HTTP_PORT", "http"),
        ("AUTO_MIGRATE", "on"),
        ("OTEL_ENABLED", "enabled"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("REDIS_DB", "first"),
    ] {
        let checked = run(&["check-config"], &[(name, text)]);
        let said = transcript(&checked);
        assert!(checked.status.success() && said.contains(&format!("Warning: {name}: expected")), "{said}");
    }
    let bad_url = ("NATS_URL", "http://localhost:4222");
    let bad_dsn = ("POSTGRES_DSN", "host=db sslmode=maybe");
    for (name, text) in
        [bad_url, bad_dsn, ("OUTBOX_WORKERS_MAX", "0"), ("OUTBOX_PUBLISH_TIMEOUT", "-1s"), ("EVENT_BUS", "kafak")]
    {
        let refused = run(&["check-config"], &[(name, text)]);
        assert_eq!(refused.status.code(), Some(2), "{}", transcript(&refused));
    }
}

/// Every meaning that `EVENT_BUS` has, and what each is told.
#[test]
fn the_bus_is_the_one_that_was_meant() {
    let url = ("REDIS_URL", "redis://127.0.0.1:6379");
    for (environment, bus, told) in [
        (vec![], "nats", false),
        (vec![("EVENT_BUS", "nats")], "nats", false),
        (vec![("EVENT_BUS", "redis")], "nats", true),
        (vec![("EVENT_BUS", "redis"), ("REDIS_ADDR", "localhost:6379")], "nats", true),
        (vec![("EVENT_BUS", "redis"), url], "redis-streams", false),
        (vec![("EVENT_BUS", "redis-streams")], "redis-streams", false),
        (vec![("EVENT_BUS", "Redis-Streams"), ("REDIS_ADDR", "localhost:6379")], "redis-streams", false),
    ] {
        let seen = checked(&environment);
        assert_eq!(seen.came_to("EVENT_BUS")["value"], bus, "{environment:?}");
        assert_eq!(seen.0["warnings"].to_string().contains("Pub/Sub"), told, "{environment:?}");
    }
    // The earlier system has no such file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, "[outbox]\nevent_bus = \"redis\"\n").unwrap();
    let seen = checked(&[("OUTBOX_CONFIG", file.to_str().unwrap())]);
    assert_eq!(seen.came_to("EVENT_BUS")["value"], "redis-streams");
}

struct Checked(Value);

fn checked(environment: &[(&str, &str)]) -> Checked {
    let output = run(&["check-config", "--json"], environment);
    assert!(output.status.success(), "{}", transcript(&output));
    Checked(serde_json::from_slice(&output.stdout).unwrap())
}

impl Checked {
    fn came_to(&self, name: &str) -> &Value {
        self.0["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).expect(name)
    }
}

#[test]
fn check_config_shows_what_each_setting_came_to_and_where_from_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, "[outbox]\nmax_attempts = 7\n[nats]\nurl = \"nats://u:hunter2@localhost\"\n").unwrap();
    let environment = [
        ("OUTBOX_CONFIG", file.to_str().unwrap()),
        ("OUTBOX_ENABLED", "T"),
        ("OUTBOX_WORKERS", "50"),
        ("OUTBOX_BATCH_SIZE_MAX", "20"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel-collector:4317"),
        ("POSTGRES_DSN", "host=db password=hunter2"),
    ];
    let seen = checked(&environment);
    for (name, value, from) in [
        ("OUTBOX_WORKERS", Value::from("8"), "environment"),
        ("OUTBOX_MAX_ATTEMPTS", "7".into(), "file"),
        ("OUTBOX_BATCH_SIZE", "20".into(), "default"),
        ("OUTBOX_ENABLED", "true".into(), "environment"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector:4317".into(), "environment"),
        // Because an endpoint is set.
        ("OTEL_ENABLED", "true".into(), "unset"),
        ("POSTGRES_DSN", "(not shown)".into(), "environment"),
        ("NATS_URL", "(not shown)".into(), "file"),
        ("DATABASE_URL", Value::Null, "unset"),
    ] {
        let came_to = seen.came_to(name);
        assert_eq!((&came_to["value"], &came_to["from"]), (&value, &from.into()), "{name}");
    }
    let table = transcript(&run(&["check-config", "--set"], &environment));
    assert!(table.contains("OUTBOX_WORKERS") && !table.contains("OUTBOX_DRAIN_TIMEOUT"), "{table}");
    assert!(!table.contains("hunter2") && !seen.0.to_string().contains("hunter2"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_server_is_found_by_the_three_variables_of_the_earlier_system() {
    let password = "p@ss/word:%41";
    let redis = RedisServer::start_with(&["--requirepass", password]).await.unwrap();
    let database = PostgresServer::shared().database().await;
    let (dsn, addr) = (keywords(&database), format!("127.0.0.1:{}", redis.port()));
    let relay = Relay::start(&[
        ("POSTGRES_DSN", dsn.as_str()),
        ("AUTO_MIGRATE", "1"),
        ("EVENT_BUS", "redis-streams"),
        ("REDIS_ADDR", addr.as_str()),
        ("REDIS_PASSWORD", password),
        ("REDIS_DB", "3"),
    ]);
    relay.wait_for_log("relay running");
    insert(&database, "events.player").await;
    await_published(&database, 1).await;
    let url = format!("redis://:p%40ss%2Fword%3A%2541@{addr}/3");
    let mut client = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let length: u64 = redis::cmd("XLEN").arg("events.player").query_async(&mut client).await.unwrap();
    assert_eq!(length, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_relays_that_start_at_once_one_brings_the_schema_up() {
    let database = PostgresServer::shared().database().await;
    let dsn = keywords(&database);
    let environment =
        [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout"), ("AUTO_MIGRATE", "true"), ("OUTBOX_WORKERS", "1")];
    let relays: Vec<Relay> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..10).map(|_| scope.spawn(|| Relay::start(&environment))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    relays.iter().for_each(|relay| drop(relay.wait_for_log("relay running")));
    let applied: usize = relays.iter().filter(|relay| relay.has_printed("\"version\":3,")).count();
    assert_eq!(applied, 1, "each migration is applied by one relay");
    insert(&database, "events.player").await;
    await_published(&database, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_does_not_get_the_table_is_not_tried_again_and_again_while_producers_wait_behind_it() {
    let database = PostgresServer::shared().database().await;
    let dsn = keywords(&database);
    migrate_to_the_last_but_one(&dsn);
    let reader = database.client().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM outbox_events").await.unwrap();
    let relay = Relay::start(&[("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout"), ("AUTO_MIGRATE", "true")]);
    let told = relay.wait_for_log("the schema cannot be brought up to date now");
    assert!(told.contains("\"usable\":true") && told.contains("lock"), "{told}");
    // By the schema there is.
    relay.wait_for_log("relay running");
    insert(&database, "events.player").await;
    await_published(&database, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_does_not_own_the_tables_goes_on_with_the_schema_there_is() {
    let database = PostgresServer::shared().database().await;
    let owner = keywords(&database);
    migrate_to_the_last_but_one(&owner);
    let sql = database.client().await;
    let name = database.name();
    sql.batch_execute(&format!(
        "CREATE ROLE \"{name}_guest\" LOGIN PASSWORD 'guest';
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO \"{name}_guest\";"
    ))
    .await
    .unwrap();
    let dsn = format!("{owner} user={name}_guest password=guest");
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout"), ("AUTO_MIGRATE", "true")];
    let relay = Relay::start(&environment);
    let told = relay.wait_for_log("the schema was not brought up to date");
    assert!(told.contains("AUTO_MIGRATE=false"), "{told}");
    relay.wait_for_log("relay running");
    insert(&database, "events.player").await;
    await_published(&database, 1).await;
}

#[test]
fn a_container_without_a_shell_has_a_health_check() {
    let nobody = format!("host=127.0.0.1 port={} user=relay dbname=app sslmode=disable", free_port());
    let relay = Relay::start(&[("POSTGRES_DSN", &nobody), ("EVENT_BUS", "stdout")]);
    let port = relay.address().port().to_string();
    let asked = |arguments: &[&str], port: &str| run(arguments, &[("HTTP_PORT", port)]);
    let alive = asked(&["health"], &port);
    assert!(alive.status.success(), "{}", transcript(&alive));
    // Alive, and without its database of no use.
    assert_eq!(asked(&["health", "--ready"], &port).status.code(), Some(1));
    drop(relay);
    let gone = asked(&["health"], &port);
    assert_eq!(gone.status.code(), Some(1), "{}", transcript(&gone));
    assert_eq!(asked(&["health"], "0").status.code(), Some(2));
}
