//! Benchmarks with few events, for what they say and leave behind rather than for their figures.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outbox_testkit::servers::{NatsServer, PgBouncer, PostgresServer, RedisServer, TestDatabase};
use outbox_testkit::{transcript, wait_until};
use serde_json::Value;

use crate::program::{command, run};

/// A database and a bus for one benchmark.
struct Scene {
    database: TestDatabase,
    sql: tokio_postgres::Client,
    bus: &'static str,
    url: String,
}

impl Scene {
    async fn new(bus: &'static str, url: String) -> Self {
        Self::on(&PostgresServer::shared(), bus, url).await
    }

    async fn on(server: &PostgresServer, bus: &'static str, url: String) -> Self {
        let database = server.database().await;
        let sql = database.client().await;
        Self { database, sql, bus, url }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let url = if self.bus == "nats" { "NATS_URL" } else { "REDIS_URL" };
        vec![("POSTGRES_DSN", self.database.dsn()), ("EVENT_BUS", self.bus.to_owned()), (url, self.url.clone())]
    }

    fn bench(&self, arguments: &[&str]) -> std::process::Output {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(arguments, &environment)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.bench(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", transcript(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Lists what is in the database besides what every new one has.
    async fn left_in_database(&self) -> Vec<String> {
        let objects = "SELECT nspname::text || '.' || coalesce(relname::text, '') FROM pg_namespace
                       LEFT JOIN pg_class ON relnamespace = pg_namespace.oid
                       WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
                         AND (nspname <> 'public' OR relname IS NOT NULL)";
        self.sql.query(objects, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

async fn streams(server: &NatsServer) -> Vec<String> {
    use futures_util::TryStreamExt;
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client).stream_names().try_collect().await.unwrap()
}

async fn keys(server: &RedisServer) -> Vec<String> {
    let client = redis::Client::open(server.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("KEYS").arg("*").query_async(&mut link).await.unwrap()
}

fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_to_nats_is_measured_and_leaves_nothing_behind() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    let arguments = ["drain", "--events", "2000", "--warm-up", "200", "--replicas", "2", "--workers", "2"];
    let found = scene.json(&arguments);
    for (field, expected) in [("events", 2000), ("lost", 0), ("duplicates", 0), ("unknown", 0), ("unpublished", 0)] {
        assert_eq!(found[field], expected, "{field}: {found:#}");
    }
    let measured = found["measured_events"].as_u64().unwrap();
    assert!((1..=2000).contains(&measured), "{found:#}");
    for field in ["seconds", "events_per_second", "wal_bytes_per_event", "relay_peak_rss_bytes", "share_of_ceiling"] {
        assert!(is_positive(&found[field]), "{field}: {found:#}");
    }
    assert!(is_positive(&found["start_to_ready_ms"]), "{found:#}");
    // One for each worker that has been at work, and those for everything else.
    let connections = found["relay_connections"].as_u64().unwrap();
    assert!((1..=4).contains(&connections), "of one relay, not of both: {found:#}");
    for (field, who) in [("relay", "relays"), ("database", "PostgreSQL"), ("bus", "the NATS server")] {
        assert!(found["cpu_seconds_per_1000_events"][field].is_number(), "{who} run here: {found:#}");
    }
    for field in ["ceiling_before", "ceiling_after"] {
        assert!(is_positive(&found[field]["events_per_second"]), "{found:#}");
    }
    let conditions = &found["conditions"];
    assert_eq!(
        (&conditions["bus"], &conditions["replicas"], &conditions["workers"]),
        (&"nats".into(), &2.into(), &2.into())
    );
    assert!(conditions["bus_version"].as_str().unwrap().starts_with("2."), "{conditions:#}");
    assert_eq!((&conditions["batch_size"], &conditions["batch_size_max"]), (&100.into(), &500.into()));
    assert_eq!(conditions["postgres_settings"]["fsync"], "off", "{conditions:#}");
    assert_eq!((&found["payload_bytes"], &found["corpus"]), (&500.0.into(), &Value::Null));
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
    assert_eq!(streams(&nats).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_to_redis_may_delete_rows_and_use_a_corpus() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new("redis", redis.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.jsonl");
    let lines = "{\"topic\":\"a\",\"payload\":{\"number\":1}}\n\n{\"payload\":[1,2,3]}\n";
    std::fs::write(&corpus, lines).unwrap();
    let arguments =
        ["drain", "--events", "1000", "--warm-up", "100", "--mode", "delete", "--corpus", corpus.to_str().unwrap()];
    let found = scene.json(&arguments);
    for (field, expected) in [("events", 1000), ("lost", 0), ("duplicates", 0), ("unknown", 0), ("unpublished", 0)] {
        assert_eq!(found[field], expected, "{field}: {found:#}");
    }
    assert_eq!((&found["conditions"]["mode"], &found["payload_bytes"]), (&"delete".into(), &9.5.into()));
    assert_eq!(found["corpus"], "corpus.jsonl");
    assert!(!found["conditions"]["bus_version"].as_str().unwrap().is_empty(), "{found:#}");
    assert!(found["cpu_seconds_per_1000_events"]["bus"].is_number(), "Redis tells it: {found:#}");
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
    assert_eq!(keys(&redis).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_publishes_the_measured_events() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    for (scenario, left) in [("pending10m", true), ("pinned", false), ("published5m", false), ("poison100k", false)] {
        let arguments =
            ["drain", "--events", "500", "--warm-up", "100", "--scenario", scenario, "--scenario-rows", "5000"];
        let found = scene.json(&arguments);
        let wrong = ["lost", "duplicates", "unknown"].map(|field| found[field].as_u64().unwrap());
        assert_eq!(wrong, [0; 3], "{found:#}");
        assert_eq!(is_positive(&found["unpublished"]), left, "{scenario}: {found:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_takes_the_place_of_another_is_found() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    let environment = scene.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut bench = command(&["drain", "--events", "500", "--warm-up", "100", "--json"], &environment);
    let bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    // While somebody else holds the last event, relays go on and cannot finish.
    let ready = "SELECT FROM pg_tables WHERE schemaname = 'outbox_bench' AND tablename = 'bench_inserted'";
    wait_until("the table is full", async || scene.sql.query_opt(ready, &[]).await.unwrap()).await;
    let mut other = scene.database.client().await;
    let holding = other.transaction().await.unwrap();
    let last = "SELECT FROM outbox_bench.outbox_events ORDER BY created_at DESC LIMIT 1 FOR UPDATE";
    holding.query_one(last, &[]).await.unwrap();
    let all_others = "SELECT FROM outbox_bench.outbox_events HAVING count(*) FILTER (WHERE status = 'PUBLISHED') = 599";
    wait_until("all others are published", async || scene.sql.query_opt(all_others, &[]).await.unwrap()).await;

    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    jetstream.get_stream("outbox_bench").await.unwrap().delete_message(300).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", uuid::Uuid::now_v7().to_string());
    let stored = jetstream.publish_with_headers("outbox_bench.event.measured", headers, "{}".into()).await.unwrap();
    stored.await.unwrap();
    holding.rollback().await.unwrap();

    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    assert!(
        transcript(&output).contains("1 lost, 0 duplicates, 1 unknown, 0 not published"),
        "{}",
        transcript(&output)
    );
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["lost"], &found["unknown"]), (&1.into(), &1.into()), "{found:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_somebody_else_is_left_alone() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    scene.sql.batch_execute("CREATE SCHEMA outbox_bench; CREATE TABLE outbox_bench.precious (n int)").await.unwrap();
    for arguments in [&["drain"][..], &["drain", "--replace"]] {
        let refused = scene.bench(arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", transcript(&refused));
        assert!(transcript(&refused).contains("schema outbox_bench"), "{}", transcript(&refused));
    }
    assert!(scene.left_in_database().await.contains(&"outbox_bench.precious".to_owned()));
    // A schema that another benchmark has left behind is told by its comment.
    let mark = "COMMENT ON SCHEMA outbox_bench IS 'made by outbox-relay bench, which drops it at its end'";
    scene.sql.batch_execute(mark).await.unwrap();
    let refused = scene.bench(&["drain"]);
    assert!(transcript(&refused).contains("--replace"), "{}", transcript(&refused));
    let found = scene.json(&["drain", "--replace", "--events", "100", "--warm-up", "10"]);
    assert_eq!(found["lost"], 0, "{found:#}");
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_benchmark_leaves_nothing_behind() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    let environment = scene.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut child = command(&["drain", "--events", "1000000"], &environment);
    let mut child = child.stderr(Stdio::null()).spawn().unwrap();
    let table = "SELECT FROM pg_tables WHERE schemaname = 'outbox_bench' AND tablename = 'outbox_events'";
    wait_until("it is at work", async || scene.sql.query_opt(table, &[]).await.unwrap()).await;
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
    assert_eq!(streams(&nats).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_measured_is_refused() {
    let scene = Scene::new("nats", "nats://127.0.0.1:1".to_owned()).await;
    let dsn = scene.database.dsn();
    let path = format!("{dsn} search_path=app");
    let postgres = ("POSTGRES_DSN", dsn.as_str());
    let cases = [
        (vec![("DATABASE_URL", "sqlite:///nowhere.db")], 2, "only PostgreSQL is measured"),
        (vec![postgres, ("EVENT_BUS", "stdout")], 2, "expected a bus that can be read back, got stdout"),
        (vec![("POSTGRES_DSN", path.as_str())], 2, "search_path"),
        (vec![postgres, ("NATS_URL", "nats://ada:c4n4ry@127.0.0.1:1")], 1, "bus"),
    ];
    for (environment, code, text) in &cases {
        let output = run(&["drain"], environment);
        let said = transcript(&output);
        assert_eq!(output.status.code(), Some(*code), "{said}");
        assert!(said.contains(text) && !said.contains("c4n4ry"), "{said}");
    }
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_forgets_the_schema_is_refused_and_the_tables_behind_it_are_left_alone() {
    let pooler = PgBouncer::start(&PostgresServer::shared()).await.unwrap();
    let scene = Scene::new("nats", "nats://127.0.0.1:1".to_owned()).await;
    let output = run(&["insert"], &[("POSTGRES_DSN", &scene.database.dsn_through(pooler.port()))]);
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    assert!(transcript(&output).contains("name the server itself"), "{}", transcript(&output));
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_create_schemas_is_enough() {
    let scene = Scene::new("nats", "nats://127.0.0.1:1".to_owned()).await;
    let role = format!("{}_bench", scene.database.name());
    let create = format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}", scene.database.name());
    scene.sql.batch_execute(&create).await.unwrap();
    let dsn = scene.database.dsn().replace("user=postgres", &format!("user={role}"));
    let arguments = ["insert", "--duration", "100ms", "--warm-up", "10ms", "--connections", "1"];
    let output = run(&arguments, &[("POSTGRES_DSN", &dsn)]);
    assert!(output.status.success(), "{}", transcript(&output));
    scene.sql.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_is_measured_for_every_event_of_the_slices_with_relays() {
    let nats = NatsServer::start().await.unwrap();
    let scene = Scene::new("nats", nats.url()).await;
    let arguments = ["latency", "--rate", "100", "--duration", "1s", "--warm-up", "100ms", "--idle", "1s"];
    let found = scene.json(&[&arguments[..], &["--connections", "4"]].concat());
    assert_eq!((&found["lost"], &found["duplicates"]), (&0.into(), &0.into()), "{found:#}");
    let events = found["events"].as_u64().unwrap();
    // One second, less what a slow machine begins late, and what each connection was to begin just before it in either slice.
    assert!((50..=108).contains(&events), "{found:#}");
    for times in ["commit_to_stored", "commit_to_consumer", "commit_with_relay"] {
        let times = &found[times];
        assert_eq!(times["count"], events, "{found:#}");
        let counts = times["histogram"].as_array().unwrap().iter().map(|bucket| bucket["count"].as_u64().unwrap());
        assert_eq!(counts.sum::<u64>(), events, "{times:#}");
        let at = ["p50_ms", "p95_ms", "p99_ms", "max_ms"].map(|name| times[name].as_f64().unwrap());
        assert!(at.is_sorted() && at[3] > 0.0, "{times:#}");
    }
    assert!(is_positive(&found["commit_without_relay"]["count"]), "{found:#}");
    assert!(is_positive(&found["idle"]["first_event_ms"]), "{found:#}");
    assert!(found["idle"]["relay_cpu_percent"].is_number(), "{found:#}");
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
    assert_eq!(streams(&nats).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_to_redis_reads_its_stream_beside_everything_else() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new("redis", redis.url()).await;
    let arguments = ["latency", "--rate", "50", "--duration", "1s", "--warm-up", "100ms", "--connections", "2"];
    let found = scene.json(&arguments);
    assert_eq!(
        (&found["lost"], &found["duplicates"], &found["idle"]),
        (&0.into(), &0.into(), &Value::Null),
        "{found:#}"
    );
    assert_eq!(found["commit_to_consumer"]["count"], found["events"], "{found:#}");
    assert_eq!(keys(&redis).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn inserting_is_measured_without_a_bus() {
    // The WAL is one for all databases, so nobody else may write to it.
    let server = PostgresServer::start().await.unwrap();
    let scene = Scene::on(&server, "nats", "nats://127.0.0.1:1".to_owned()).await;
    let found =
        scene.json(&["insert", "--duration", "200ms", "--warm-up", "50ms", "--connections", "2", "--batch", "5"]);
    let forms = found["forms"].as_array().unwrap();
    let names: Vec<&str> = forms.iter().map(|form| form["form"].as_str().unwrap()).collect();
    assert_eq!(names, ["business_row", "function", "library", "batch"]);
    for form in forms {
        assert!(is_positive(&form["transactions_per_second"]), "{form:#}");
        assert_eq!(form["transactions"], form["transaction"]["count"], "{form:#}");
    }
    let wal = |at: usize| forms[at]["wal_bytes_per_transaction"].as_f64().unwrap();
    assert!(wal(0) < wal(2) && wal(2) < wal(3), "an event is more than none, and five are more than one: {found:#}");
    assert_eq!(scene.left_in_database().await, Vec::<String>::new());
}
