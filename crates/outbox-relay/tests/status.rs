use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer, free_port};
use outbox_testkit::wait_until;
use serde_json::{Value, json};

use crate::program::{Relay, run, sqlite, transcript};

/// Runs `status --json` and returns its exit code with what it printed.
fn status(environment: &[(&str, &str)]) -> (Option<i32>, Value) {
    let output = run(&["status", "--json"], environment);
    let printed = serde_json::from_slice(&output.stdout);
    (output.status.code(), printed.unwrap_or_else(|error| panic!("{error}: {}", transcript(&output))))
}

fn migrate_up(environment: &[(&str, &str)]) {
    let migrated = run(&["migrate", "up"], environment);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
}

/// Two due, one of them for an hour, one due later, one failed, one published, and three that were charged 2, 3 and 100
/// attempts; the same SQL for both databases.
fn rows(now: &str, hour_ago: &str, in_an_hour: &str) -> Vec<String> {
    let row = |number: u8, topic: &str, status: &str, available_at: &str| {
        format!(
            "INSERT INTO outbox_events (id, event_type, topic, payload, status, available_at, created_at, published_at)
             VALUES ('00000000-0000-7000-8000-{number:012}', '', '{topic}', '{{}}', '{status}', {available_at}, {hour_ago},
                     CASE WHEN '{status}' = 'PUBLISHED' THEN {now} END)"
        )
    };
    let charged = |attempts: u8, waits: &str| {
        let row = row(100 + attempts, "events.poison", "PENDING", waits);
        let row = row.replace("published_at)", "published_at, attempt_count, last_error)");
        format!("{}, {attempts}, 'refused {attempts}')", row.trim_end_matches(')').trim_end())
    };
    vec![
        charged(2, in_an_hour),
        charged(3, hour_ago),
        charged(100, in_an_hour),
        row(1, "events.player", "PENDING", hour_ago),
        row(2, "events.player", "PENDING", now),
        row(3, "events.github", "PENDING", in_an_hour),
        row(4, "events.github", "FAILED", now),
        row(5, "events.github", "PUBLISHED", now),
    ]
}

fn assert_counts(seen: &Value) {
    for (name, expected) in [
        ("schema_version", 5),
        ("pending", 6),
        ("due", 3),
        ("waiting", 3),
        ("failing", 2),
        ("due_later", 1),
        ("failed", 1),
        ("published", 1),
    ] {
        assert!(
            seen[name].as_u64() >= Some(expected) && (name == "schema_version" || seen[name] == expected),
            "{name}: {seen}"
        );
    }
    let age = seen["oldest_due_age_seconds"].as_f64().unwrap();
    assert!((3600.0..3700.0).contains(&age), "{seen}");
    assert!(seen["oldest_dead_letter"].is_string(), "{seen}");
    let [poison, player, github] = &seen["topics"].as_array().unwrap()[..] else {
        panic!("expected three topics in {seen}")
    };
    assert_eq!((&poison["topic"], &poison["pending"]), (&json!("events.poison"), &json!(3)), "{seen}");
    assert_eq!((&player["topic"], &player["pending"]), (&json!("events.player"), &json!(2)), "{seen}");
    let age = player["oldest_due_age_seconds"].as_f64().unwrap();
    assert!((3600.0..3700.0).contains(&age), "{seen}");
    let not_yet_due = json!({"topic": "events.github", "pending": 1, "oldest_due_age_seconds": null});
    assert_eq!(github, &not_yet_due);
    let newest = "00000000-0000-7000-8000-000000000200";
    let failing = json!([{"topic": "events.poison", "failing": 2, "example": newest, "last_error": "refused 100"}]);
    assert_eq!(seen["failing_topics"], failing);
    assert!(seen["oldest_failing"].is_string() && seen["due_later_first"].is_string(), "{seen}");
    assert_eq!(seen["due_later_first"], seen["due_later_last"]);
    assert_eq!(seen["store"], json!({"reachable": true, "error": null}));
}

#[tokio::test]
async fn everything_in_sqlite_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let environment = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout")];
    migrate_up(&environment);
    let time = |shift: &str| format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '{shift}')");
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    for insert in rows(&time("0 hours"), &time("-1 hours"), &time("+1 hours")) {
        sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    }
    let (code, seen) = status(&environment);
    assert_eq!(code, Some(0));
    assert_counts(&seen);

    let table = String::from_utf8(run(&["status", "--topics", "1"], &environment).stdout).unwrap();
    assert!(table.contains("events.poison") && !table.contains("events.player"), "{table}");
    assert!(table.contains("3, the oldest for 36"), "{table}");
    assert!(table.contains("2, the oldest from ") && table.contains("refused 100"), "{table}");
}

#[tokio::test]
async fn everything_in_postgres_is_counted_and_relays_are_seen() {
    let database = PostgresServer::shared().database().await;
    let redis = RedisServer::shared().url();
    let dsn = database.dsn();
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "redis"), ("REDIS_URL", &redis)];
    migrate_up(&environment);
    let client = database.client().await;
    for insert in rows("now()", "now() - interval '1 hour'", "now() + interval '1 hour'") {
        client.batch_execute(&insert).await.unwrap();
    }
    let (code, seen) = status(&environment);
    assert_eq!(code, Some(0));
    assert_counts(&seen);
    assert_eq!(seen["relays"], json!([]), "status does not count itself");

    let _relay = Relay::start(&environment);
    let seen = wait_until("status sees the relay", async || {
        let relays = status(&environment).1["relays"].take();
        (!relays.as_array()?.is_empty()).then_some(relays)
    })
    .await;
    assert_eq!(seen[0]["client"], "127.0.0.1", "{seen}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_and_exits_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let (url, nobody) = (sqlite(folder.path()), format!("nats://127.0.0.1:{}", free_port()));
    let no_bus = [("DATABASE_URL", url.as_str()), ("NATS_URL", &nobody)];
    migrate_up(&no_bus);
    let (code, seen) = status(&no_bus);
    assert_eq!((code, &seen["bus"]["reachable"], &seen["store"]["reachable"]), (Some(1), &json!(false), &json!(true)));
    assert_eq!(seen["pending"], 0, "the store is counted all the same");
    assert!(seen["bus"]["error"].as_str().unwrap().contains("NATS"), "{seen}");

    let dsn = format!("host=127.0.0.1 port={} user=relay connect_timeout=1", free_port());
    let (code, seen) = status(&[("POSTGRES_DSN", &dsn), ("EVENT_BUS", "stdout")]);
    assert_eq!((code, &seen["bus"]["reachable"], &seen["store"]["reachable"]), (Some(1), &json!(true), &json!(false)));
    assert!(seen["pending"].is_null(), "{seen}");
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_what_to_run() {
    let dsn = PostgresServer::shared().database().await.dsn();
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout")];
    let (code, seen) = status(&environment);
    assert_eq!(code, Some(1), "{seen}");
    let error = seen["store"]["error"].as_str().unwrap();
    assert!(error.contains("outbox_events does not exist") && error.contains("run outbox-relay migrate up"), "{error}");

    let report = run(&["doctor", "--json"], &environment);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let found = |check: &str| report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check);
    assert_eq!(found("postgres.schema").unwrap()["fix"], "outbox-relay migrate up");
    assert!(found("postgres.indexes").is_none(), "no index without its table: {report:#}");
}

#[tokio::test]
async fn looking_creates_no_stream() {
    let folder = tempfile::tempdir().unwrap();
    let nats = NatsServer::start().await.unwrap();
    let (database, url) = (sqlite(folder.path()), nats.url());
    let environment = [("DATABASE_URL", database.as_str()), ("NATS_URL", &url)];
    migrate_up(&environment);
    assert_eq!(status(&environment).0, Some(0));
    assert_eq!(
        run(&["doctor"], &environment).status.code(),
        Some(0),
        "nobody asked for the default list, and no event waits"
    );
    let asked_for = [&environment[..], &[("OUTBOX_NATS_STREAMS", "PLAYER=events.player")]].concat();
    assert_eq!(run(&["doctor"], &asked_for).status.code(), Some(1));
    let jetstream = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    assert!(jetstream.get_stream("PLAYER").await.is_err(), "a command that only looks created the stream");
}

#[tokio::test]
async fn nothing_is_logged_where_all_is_well_unless_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let nats = NatsServer::start().await.unwrap();
    let (database, url) = (sqlite(folder.path()), nats.url());
    let streams = ("OUTBOX_NATS_STREAMS", "PLAYER=events.player");
    let environment = [("DATABASE_URL", database.as_str()), ("NATS_URL", &url), streams];
    migrate_up(&environment);
    let logged = |command: &str, settings: &[(&str, &str)]| {
        let output = run(&[command], &[&environment[..], settings].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(logged("status", &[]), "");
    let examined = logged("doctor", &[]);
    assert!(examined.starts_with("Error: errors found: ") && examined.lines().count() == 1, "{examined}");

    let text = logged("status", &[("LOG_LEVEL", "info")]);
    assert!(text.contains(" INFO ") && !text.starts_with('{'), "{text}");
    assert_eq!(logged("status", &[("OUTBOX_LOG_FORMAT", "json")]), "");
    let json = logged("status", &[("LOG_LEVEL", "info"), ("OUTBOX_LOG_FORMAT", "json")]);
    let lines = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(lines.map(|mut line| line["level"].take()).any(|level| level == "info"), "{json}");
}
