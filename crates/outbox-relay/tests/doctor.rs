//! `doctor` on servers that are bad on purpose.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use outbox_testkit::servers::{NatsServer, PgBouncer, PostgresServer, RedisServer, free_port};
use outbox_testkit::wait_until;
use serde_json::Value;

use crate::program::{run, sqlite, transcript};

const CANARY: &str = "c4n4ry-hunter2";

/// What one run of `doctor --json` found.
struct Examined {
    code: Option<i32>,
    report: Value,
}

impl Examined {
    fn with(environment: &[(&str, &str)]) -> Self {
        // Every open transaction is a long one here, so that no test has to wait for one to grow old.
        let output = run(&["doctor", "--json", "--long-transaction", "1ms"], environment);
        let text = transcript(&output);
        assert!(!text.contains(CANARY), "{text}");
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
        Self { code: output.status.code(), report }
    }

    /// Returns the findings of one check.
    fn of(&self, check: &str) -> Vec<&Value> {
        self.report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
    }

    /// Returns what a check found and its fix, having compared the severity.
    fn expect(&self, severity: &str, check: &str, found: &str) -> String {
        let findings = self.of(check);
        let matching =
            |finding: &&&Value| finding["severity"] == severity && finding["found"].as_str().unwrap().contains(found);
        let Some(finding) = findings.iter().find(matching) else {
            panic!("expected {severity} of {check} with {found:?}, got {findings:#?}");
        };
        assert_eq!(finding["risk"].is_null(), severity == "ok", "{finding}");
        finding["fix"].as_str().unwrap_or_default().to_owned()
    }

    fn expect_no_error(&self) {
        assert_eq!((self.code, &self.report["errors"]), (Some(0), &Value::from(0)), "{:#}", self.report);
    }
}

fn migrate_up(environment: &[(&str, &str)]) {
    let migrated = run(&["migrate", "up"], environment);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
}

/// A migrated SQLite database, for tests about the bus.
fn embedded(folder: &tempfile::TempDir) -> String {
    let url = sqlite(folder.path());
    migrate_up(&[("DATABASE_URL", &url)]);
    url
}

async fn create_stream(nats: &NatsServer, config: stream::Config) {
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    jetstream.create_stream(config).await.unwrap();
}

fn player() -> stream::Config {
    stream::Config {
        name: "PLAYER".into(),
        subjects: vec!["events.player".into(), "events.player.>".into()],
        max_age: Duration::from_secs(72 * 3600),
        duplicate_window: Duration::from_secs(120),
        ..stream::Config::default()
    }
}

#[tokio::test]
async fn healthy_servers_give_no_error_and_postgres_not_even_a_warning() {
    let server = PostgresServer::start_with(&[("fsync", "on")]).await.unwrap();
    let monitoring = free_port();
    let settings = format!("http: \"127.0.0.1:{monitoring}\"");
    let nats = NatsServer::start_with(&settings).await.unwrap();
    create_stream(&nats, player()).await;
    let (dsn, url) = (server.database().await.dsn(), nats.url());
    let monitoring = format!("http://127.0.0.1:{monitoring}");
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("NATS_URL", &url), ("OUTBOX_NATS_MONITORING_URL", &monitoring)];
    migrate_up(&environment);

    let examined = Examined::with(&environment);
    examined.expect_no_error();
    for finding in examined.report["findings"].as_array().unwrap() {
        let of_postgres = finding["check"].as_str().unwrap().starts_with("postgres.");
        assert!(!of_postgres || finding["severity"] == "ok", "{finding}");
    }
    examined.expect("warning", "nats.sync", "every 2 min");
    examined.expect("warning", "nats.max_payload", "1048576 bytes");
    let text = String::from_utf8(run(&["doctor"], &environment).stdout).unwrap();
    assert!(text.contains("  fix:\n    in nats-server.conf") && text.contains("\n0 errors, "), "{text}");
}

#[tokio::test]
async fn who_locks_the_table_is_named_soon_and_the_fix_ends_it() {
    let database = PostgresServer::shared().database().await;
    let dsn = database.dsn();
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout")];
    migrate_up(&environment);
    let (locker, owner) = (database.client().await, database.client().await);
    let pid: i32 = locker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    locker.batch_execute("BEGIN; LOCK TABLE outbox_events").await.unwrap();

    let began = Instant::now();
    let status = run(&["status"], &environment);
    let text = transcript(&status);
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("somebody else's lock is in the way"), "{text}");
    let examined = Examined::with(&environment);
    // Each look at the table by itself would take half a minute.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let fix = examined.expect(
        "error",
        "postgres.locks",
        &format!("holds a lock on the table (AccessExclusiveLock): pid {pid}"),
    );
    owner.batch_execute(&fix).await.unwrap();
    wait_until("the lock is gone", async || {
        let examined = Examined::with(&environment);
        (examined.of("postgres.locks")[0]["severity"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_fleet_that_is_mixed_with_the_earlier_relay_is_named_and_what_cannot_be_seen_is_said() {
    let database = PostgresServer::shared().database().await;
    let (dsn, owner) = (database.dsn(), database.client().await);
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout")];
    migrate_up(&environment);
    // A producer on the same library, and a person.
    let (producer, person) = (database.client().await, database.client().await);
    let insert =
        "INSERT INTO \"outbox_events\" (\"id\", \"event_type\", \"topic\", \"payload\") VALUES ($1, 'a', 'b', '{}')";
    producer.execute(insert, &[&uuid::Uuid::now_v7()]).await.unwrap();
    person.query("SELECT count(*) FROM outbox_events WHERE status = 'PENDING'", &[]).await.unwrap();
    Examined::with(&environment).expect("ok", "postgres.fleet", "no session was seen");

    let earlier = database.client().await;
    let pid: i32 = earlier.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    for statement in [
        r#"SELECT * FROM "outbox_events" WHERE status = $1 ORDER BY created_at ASC LIMIT 100 FOR UPDATE SKIP LOCKED"#,
        r#"SELECT count(*) FROM "outbox_events" WHERE status = $1"#,
        r#"UPDATE "outbox_events" SET "published_at"=now(),"status"='PUBLISHED' WHERE id IN (NULL) AND status = $1"#,
    ] {
        earlier.query(statement, &[&"PENDING"]).await.unwrap();
        let examined = Examined::with(&environment);
        let fix = examined.expect("warning", "postgres.fleet", &format!("as the earlier relay does: pid {pid}, role "));
        assert!(fix.contains("available_at"), "{fix}");
    }

    let role = format!("blind_{}", database.name());
    let grant = format!("CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON outbox_events TO {role}");
    owner.batch_execute(&grant).await.unwrap();
    let blind = dsn.replace("user=postgres", &format!("user={role}"));
    assert_ne!(blind, dsn);
    let examined = Examined::with(&[("POSTGRES_DSN", blind.as_str()), ("EVENT_BUS", "stdout")]);
    examined.expect("ok", "postgres.fleet", "sessions of other roles are hidden from this one");
    owner.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn policies_that_may_hide_events_are_named_until_one_shows_them_all() {
    let database = PostgresServer::shared().database().await;
    let owner = database.client().await;
    migrate_up(&[("POSTGRES_DSN", &database.dsn())]);
    let role = format!("tenant_{}", database.name());
    let policy = format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON outbox_events, outbox_migrations TO {role};
         ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;
         CREATE POLICY one_tenant ON outbox_events USING (topic = current_setting('app.tenant', true))"
    );
    owner.batch_execute(&policy).await.unwrap();
    let dsn = database.dsn().replace("user=postgres", &format!("user={role}"));
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout")];
    let fix = Examined::with(&environment).expect("warning", "postgres.privileges", "nor counted: one_tenant");
    owner.batch_execute(&fix).await.unwrap();
    Examined::with(&environment).expect("ok", "postgres.privileges", "may do what the relay does");
}

#[tokio::test]
async fn what_is_wrong_with_postgres_is_named_and_the_fixes_repair_it() {
    let server = PostgresServer::start_with(&[("max_prepared_transactions", "5")]).await.unwrap();
    let database = server.database().await;
    let owner = database.client().await;
    migrate_up(&[("POSTGRES_DSN", &database.dsn())]);
    let break_it = "CREATE ROLE relay LOGIN;
        GRANT pg_monitor TO relay;
        GRANT SELECT ON outbox_migrations TO relay;
        GRANT SELECT, UPDATE (status, published_at, attempt_count) ON outbox_events TO relay;
        DROP INDEX idx_outbox_due;
        SELECT pg_create_physical_replication_slot('left_behind', true);";
    owner.batch_execute(break_it).await.unwrap();
    // A transaction of its own: BEGIN would take in whatever stands before it in the same message.
    let forget = "BEGIN;
        SELECT outbox_publish('events.player', 'registered', '{}');
        PREPARE TRANSACTION 'never finished';";
    owner.batch_execute(forget).await.unwrap();
    let pinning = database.client().await;
    let query =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_events WHERE topic <> '{CANARY}'");
    pinning.batch_execute(&query).await.unwrap();
    let pid: i32 = pinning.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);

    let dsn = database.dsn().replace("user=postgres", &format!("user=relay password={CANARY}"));
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout"), ("OUTBOX_RETENTION", "1h")];
    let examined = Examined::with(&environment);
    assert_eq!(examined.code, Some(1));
    examined.expect("error", "postgres.durability", "fsync off");
    let fixes = [
        examined.expect("warning", "postgres.vacuum_horizon", &format!("pid {pid}, role postgres")),
        examined.expect("warning", "postgres.vacuum_horizon", "prepared transaction 'never finished'"),
        examined.expect("warning", "postgres.replication_slots", "physical slot \"left_behind\""),
        examined.expect(
            "error",
            "postgres.privileges",
            "lacks UPDATE (last_error, available_at) ON outbox_events, DELETE ON outbox_events",
        ),
        examined.expect("error", "postgres.indexes", "idx_outbox_due is missing"),
    ];
    examined.expect("warning", "postgres.vacuum_horizon", "idle in transaction");
    examined.expect("warning", "postgres.vacuum_horizon", "its query begins: SELECT pg_backend_pid()");

    for fix in &fixes {
        // Of two ways to end a prepared transaction, one is taken.
        let chosen = fix.split("\n-- or\n").next().unwrap();
        for statement in chosen.lines().filter(|line| line.ends_with(';')) {
            owner.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }
    let examined = Examined::with(&environment);
    for check in ["vacuum_horizon", "replication_slots", "privileges", "indexes"] {
        examined.expect("ok", &format!("postgres.{check}"), "");
    }
}

#[tokio::test]
async fn an_old_schema_and_a_database_that_is_read_only_are_errors() {
    let database = PostgresServer::shared().database().await;
    let environment = [("POSTGRES_DSN", &*database.dsn()), ("EVENT_BUS", "stdout")];
    let fix = Examined::with(&environment).expect("error", "postgres.schema", "does not exist");
    assert_eq!(fix, "outbox-relay migrate up");
    migrate_up(&environment);
    let client = database.client().await;
    let read_only = format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name());
    client.batch_execute(&read_only).await.unwrap();
    let examined = Examined::with(&environment);
    examined.expect("ok", "postgres.schema", "version 00");
    examined.expect("error", "postgres.writable", "default_transaction_read_only");
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_noticed() {
    let server = PostgresServer::shared();
    let pooler = PgBouncer::start(&server).await.unwrap();
    let database = server.database().await;
    let dsn = format!("host=127.0.0.1 port={} user=postgres dbname={}", pooler.port(), database.name());
    let direct = [("POSTGRES_DSN", &*database.dsn()), ("EVENT_BUS", "stdout")];
    migrate_up(&direct);
    Examined::with(&direct).expect("ok", "postgres.pooler", "none was noticed");
    let examined = Examined::with(&[("POSTGRES_DSN", &dsn), ("EVENT_BUS", "stdout")]);
    examined.expect("ok", "postgres.pooler", "transaction mode");
    examined.expect("ok", "postgres.indexes", "");
}

#[tokio::test]
async fn streams_that_lose_events_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let nats = NatsServer::start().await.unwrap();
    let mut forgetful = player();
    forgetful.storage = stream::StorageType::Memory;
    forgetful.max_messages = 1000;
    forgetful.duplicate_window = Duration::from_secs(1);
    create_stream(&nats, forgetful).await;
    let team = stream::Config { name: "TEAM".into(), subjects: vec!["events.team".into()], ..player() };
    create_stream(&nats, stream::Config { no_ack: true, ..team }).await;
    let (database, url) = (embedded(&folder), nats.url());
    let examined = Examined::with(&[
        ("DATABASE_URL", &database),
        ("NATS_URL", &url),
        ("OUTBOX_NATS_STREAMS", "PLAYER=events.player,TEAM=events.team,GITHUB=events.github"),
    ]);
    assert_eq!(examined.code, Some(1));
    examined.expect("error", "nats.storage", "stream PLAYER is kept in memory");
    examined.expect("warning", "nats.retention", "max_msgs");
    examined.expect("warning", "nats.duplicate_window", "stream PLAYER remembers ids for 1 s");
    examined.expect("error", "nats.subjects", "stream TEAM does not take events.team.>");
    examined.expect("error", "nats.acknowledgement", "stream TEAM has no_ack");
    let fix = examined.expect("error", "nats.stream", "stream GITHUB does not exist");
    assert!(fix.contains("nats stream add GITHUB --subjects 'events.github,events.github.>'"), "{fix}");
    examined.expect("warning", "nats.sync", "OUTBOX_NATS_MONITORING_URL is not set");
}

#[tokio::test]
async fn a_server_that_syncs_always_says_so_on_its_monitoring_port() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    // The last word on JetStream holds.
    let settings =
        format!("http: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}", folder.path());
    let nats = NatsServer::start_with(&settings).await.unwrap();
    let (database, url, monitoring) = (embedded(&folder), nats.url(), format!("http://127.0.0.1:{port}/"));
    let environment = [("DATABASE_URL", &*database), ("NATS_URL", &url), ("OUTBOX_NATS_MONITORING_URL", &monitoring)];
    Examined::with(&environment).expect("ok", "nats.sync", "synced");
    let elsewhere = url.replace("nats://", "http://");
    let wrong = [environment[0], environment[1], ("OUTBOX_NATS_MONITORING_URL", &elsewhere)];
    Examined::with(&wrong).expect("warning", "nats.sync", "not known");
}

#[tokio::test]
async fn a_redis_that_forgets_is_named_and_a_good_one_gives_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let database = embedded(&folder);
    let arguments = ["--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let bad = RedisServer::start_with(&arguments).await.unwrap();
    let settings = |url: &str| {
        [("DATABASE_URL", database.clone()), ("EVENT_BUS", "redis".to_owned()), ("REDIS_URL", url.to_owned())]
    };
    let environment = settings(&bad.url());
    let mut environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.push(("OUTBOX_REDIS_WAIT_REPLICAS", "1"));
    let examined = Examined::with(&environment);
    assert_eq!(examined.code, Some(1));
    examined.expect("error", "redis.appendonly", "appendonly is off");
    examined.expect("error", "redis.replicas", "0 connected");
    let fixes = [
        examined.expect("error", "redis.maxmemory_policy", "allkeys-lru"),
        examined.expect("error", "redis.appendonly", ""),
    ];
    let mut connection = redis::Client::open(bad.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    // Rewriting needs a configuration file, which this server has not.
    for line in fixes.iter().flat_map(|fix| fix.lines()).filter(|line| *line != "CONFIG REWRITE") {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query_async::<()>(&mut connection).await.unwrap();
    }
    environment.pop();
    let examined = Examined::with(&environment);
    examined.expect_no_error();
    examined.expect("ok", "redis.appendonly", "");
    examined.expect("ok", "redis.maxmemory_policy", "");
}

#[test]
fn servers_that_are_away_are_errors_and_no_password_is_printed() {
    let port = free_port();
    let dsn = format!("host=127.0.0.1 port={port} user=relay password={CANARY} connect_timeout=1");
    let nats = format!("nats://relay:{CANARY}@127.0.0.1:{port}");
    let redis = format!("redis://relay:{CANARY}@127.0.0.1:{port}");
    let monitoring = format!("http://relay:{CANARY}@127.0.0.1:{port}/{CANARY}");
    for (bus, variable, url) in [("nats", "NATS_URL", &nats), ("redis", "REDIS_URL", &redis)] {
        let examined = Examined::with(&[
            ("POSTGRES_DSN", &dsn),
            ("EVENT_BUS", bus),
            (variable, url),
            ("OUTBOX_NATS_MONITORING_URL", &monitoring),
            ("LOG_LEVEL", "trace"),
        ]);
        assert_eq!(examined.code, Some(1));
        examined.expect("error", "postgres.connection", "cannot connect");
        examined.expect("error", &format!("{bus}.connection"), "");
    }
    let wrong = format!("https://relay:{CANARY}@127.0.0.1");
    let text = transcript(&run(&["doctor"], &[("POSTGRES_DSN", &dsn), ("OUTBOX_NATS_MONITORING_URL", &wrong)]));
    assert!(text.starts_with("exit code: 2") && !text.contains(CANARY), "{text}");
}

#[test]
fn settings_are_held_against_each_other_and_against_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let url = embedded(&folder);
    let environment = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout")];
    let fine = Examined::with(&environment);
    fine.expect("ok", "settings.contradictions", "none");
    fine.expect("ok", "settings.topics", "every topic is allowed");
    for topic in ["events.player", "events.player.eu", "events.players", "events.player_admin"] {
        let emitted = run(&["emit", "--topic", topic, "--type", "one", "--payload", "1"], &environment);
        assert!(emitted.status.success(), "{}", transcript(&emitted));
    }
    let narrow = [("OUTBOX_TOPIC_PREFIXES", "events.player"), ("OUTBOX_DRAIN_TIMEOUT", "1s")];
    let examined = Examined::with(&[&environment, &narrow[..]].concat());
    examined.expect(
        "warning",
        "settings.contradictions",
        "OUTBOX_DRAIN_TIMEOUT=1s and OUTBOX_PUBLISH_TIMEOUT (by default 5s)",
    );
    let fix = examined.expect("warning", "settings.topics", "2 waiting events");
    assert!(fix.contains("OUTBOX_TOPIC_PREFIXES"), "{fix}");
    examined.expect_no_error();
}

#[tokio::test]
async fn events_that_wait_for_a_wrong_reason_are_found_and_the_fix_lets_them_go() {
    let database = PostgresServer::shared().database().await;
    let dsn = database.dsn();
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout")];
    migrate_up(&environment);
    let healthy = Examined::with(&environment);
    healthy.expect("ok", "postgres.failing", "no event keeps failing");
    healthy.expect("ok", "postgres.due_later", "every event that waits is due");

    let owner = database.client().await;
    let wait = "SELECT outbox_publish('events.player', 'meant', '{}', available_at => now() + interval '6 days');
        SELECT outbox_publish('events.player', 'ahead', '{}', available_at => now() + interval '2 hours');
        UPDATE outbox_events SET created_at = available_at WHERE event_type = 'ahead';
        SELECT outbox_publish('events.player', 'poison', '{}');
        UPDATE outbox_events SET attempt_count = 7, last_error = 'message too large' WHERE event_type = 'poison';";
    owner.batch_execute(wait).await.unwrap();
    let examined = Examined::with(&environment);
    let fix = examined.expect("warning", "postgres.failing", "1 event failed again and again, the oldest from");
    assert!(fix.contains("outbox-relay dead-letters show 0") && fix.contains("OUTBOX_MAX_ATTEMPTS"), "{fix}");
    examined.expect("warning", "postgres.failing", "\"events.player\": message too large");
    let fix = examined.expect(
        "warning",
        "postgres.due_later",
        "inserted by a clock that was ahead of the database's: 1 event",
    );
    owner.batch_execute(&fix).await.unwrap();
    Examined::with(&environment).expect("ok", "postgres.due_later", "due only later: 1 event, the last in 5 d 23 h");

    owner
        .batch_execute("SELECT outbox_publish('a.b', '', '{}', available_at => now() + interval '1 year')")
        .await
        .unwrap();
    Examined::with(&environment).expect("warning", "postgres.due_later", "due only later: 2 events, the last in 36");
}
