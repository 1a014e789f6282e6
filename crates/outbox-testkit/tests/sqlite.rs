//! What SQLite adds to the contract of every store: ownership by a file lock, payloads as text, rows inserted by hand.

use std::process::Stdio;
use std::time::Duration;

use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::relay::{Relay, RelayConfig};
use gamemesh_outbox::store::dead_letters::{DeadLetters, Filter, Page};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::sqlite::{SqliteConfig, SqliteStore};
use gamemesh_outbox::store::{
    Claim, ClaimLimit, HealthCheck, OnPublished, Outcome, Prune, Route, SettlePolicy, Settled, Store, StoreErrorKind,
};
use gamemesh_outbox::telemetry::Telemetry;
use gamemesh_outbox::{Event, NewEvent, OutboxPublisher};
use outbox_testkit::{claim_now, wait_until};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{AssertSqlSafe, SqlitePool};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use uuid::Uuid;

const NONE: [Uuid; 0] = [];
const MARK: SettlePolicy = SettlePolicy { attempts_max: 3, on_published: OnPublished::Mark };

struct Database {
    config: SqliteConfig,
    store: SqliteStore,
    /// The application's own connections.
    pool: SqlitePool,
    _folder: TempDir,
}

impl Database {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = SqliteConfig::new(folder.path().join("shop.db")).create_if_missing(true);
        let store = SqliteStore::open(&config).await.expect("opens");
        store.migrate_up().await.expect("migrates");
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(config.connect_options());
        Self { config, store, pool, _folder: folder }
    }

    async fn another_handle(&self) -> SqliteStore {
        SqliteStore::open(&self.config).await.expect("opens")
    }

    async fn insert(&self, count: usize) -> Vec<Uuid> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.expect("begins");
        let mut ids = Vec::new();
        for number in 0..count {
            let event = NewEvent::new("events.player", "registered", &number).expect("a number is JSON");
            ids.push(OutboxPublisher::default().publish(&mut tx, event).await.expect("inserts"));
        }
        tx.commit().await.expect("commits");
        ids
    }

    /// Runs what a person would type into the `sqlite3` shell.
    async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.expect("valid SQL");
    }

    async fn text(&self, sql: &str) -> String {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.expect("one text")
    }

    async fn make_due(&self) {
        self.execute("UPDATE outbox_events SET available_at = '2026-01-01T00:00:00.000Z'").await;
    }
}

fn limit() -> ClaimLimit {
    ClaimLimit {
        events: 100,
        bytes: 4 << 20,
        any_size: true,
        event_bytes: 1 << 20,
        lifetime: Duration::from_secs(60),
        except: Vec::new(),
        except_ids: Vec::new(),
    }
}

async fn claim(store: &SqliteStore) -> Option<(Box<dyn Claim>, Vec<Event>)> {
    let mut claim = claim_now(store, &limit()).await.expect("claims")?;
    let events = claim.take_events();
    Some((claim, events))
}

async fn claimed_ids(store: &SqliteStore) -> Vec<Uuid> {
    claim(store).await.map_or_else(Vec::new, |(_, events)| events.iter().map(|event| event.id).collect())
}

/// Claims everything that is due and settles all of it alike.
async fn settle(store: &SqliteStore, outcome: Outcome, policy: &SettlePolicy) -> Settled {
    let (claim, events) = claim(store).await.expect("something is due");
    claim.settle(vec![outcome; events.len()], policy).await.expect("settles")
}

fn charged(error: &str) -> Outcome {
    Outcome::Charged { error: error.to_owned(), retry_in: Duration::ZERO }
}

#[tokio::test]
async fn rolled_back_events_leave_nothing() {
    let database = Database::new().await;
    let mut tx = database.pool.begin_with("BEGIN IMMEDIATE").await.expect("begins");
    let event = NewEvent::new("events.player", "registered", &1).expect("JSON");
    OutboxPublisher::default().publish(&mut tx, event).await.expect("inserts");
    tx.rollback().await.expect("rolls back");
    assert_eq!(claimed_ids(&database.store).await, NONE);
    assert_eq!(database.text("SELECT count(*) || '' FROM outbox_events").await, "0");
}

#[tokio::test]
async fn a_claimed_event_is_hidden_from_other_workers_until_the_claim_is_dropped() {
    let database = Database::new().await;
    let ids = database.insert(3).await;
    let (worker, worker_too) = (database.store.clone(), database.store.clone());
    let few = ClaimLimit { events: 2, ..limit() };
    let mut held = claim_now(&worker, &few).await.expect("claims").expect("three are due");
    assert_eq!(held.take_events().len(), 2);
    assert_eq!(claimed_ids(&worker_too).await, ids[2..]);
    drop(held);
    assert_eq!(claimed_ids(&worker_too).await, ids);
}

#[tokio::test]
async fn a_second_handle_stands_by_while_the_first_one_has_a_claim() {
    let database = Database::new().await;
    let ids = database.insert(2).await;
    let other = database.another_handle().await;
    let held = claim(&database.store).await.expect("two are due");
    let later = database.insert(1).await;
    assert_eq!(claimed_ids(&other).await, NONE, "not even what the first one does not hold");
    let (held, events) = held;
    held.settle(vec![Outcome::Published; events.len()], &MARK).await.expect("settles");
    assert_eq!(claimed_ids(&other).await, later);
    assert!(!ids.contains(&later[0]));
}

#[tokio::test]
async fn a_killed_process_frees_its_claims_at_once() {
    let database = Database::new().await;
    let ids = database.insert(5).await;
    let mut holder = Command::new(env!("CARGO_BIN_EXE_hold-claims"))
        .arg(database.config.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the helper starts");
    let mut output = BufReader::new(holder.stdout.take().expect("piped")).lines();
    assert_eq!(output.next_line().await.expect("readable").as_deref(), Some("claimed 5"));
    assert_eq!(claimed_ids(&database.store).await, NONE, "another process has them");
    holder.kill().await.expect("it was alive");
    assert_eq!(claimed_ids(&database.store).await, ids);
}

#[tokio::test]
async fn a_charged_event_is_failed_at_exactly_the_maximum() {
    let database = Database::new().await;
    let id = database.insert(1).await[0];
    for attempt in 1..=2 {
        let settled = settle(&database.store, charged("too large\nfor this bus"), &MARK).await;
        assert_eq!((settled.retrying, settled.dead_lettered.len()), (1, 0), "attempt {attempt}");
    }
    let settled = settle(&database.store, charged("too large\nfor this bus"), &MARK).await;
    assert_eq!(settled, Settled { dead_lettered: vec![id], ..Settled::default() });
    assert_eq!(claimed_ids(&database.store).await, NONE);
    let letters = database.store.list(&Filter::default(), &Page::first(10)).await.expect("lists").letters;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].id, letters[0].attempt_count), (id, 3));
    assert_eq!(letters[0].last_error, "too large for this bus");
    assert_eq!(letters[0].topic, "events.player");
}

#[tokio::test]
async fn without_a_maximum_no_event_is_ever_failed() {
    let database = Database::new().await;
    database.insert(1).await;
    database.execute("UPDATE outbox_events SET attempt_count = 2147483647").await;
    let never = SettlePolicy { attempts_max: 0, ..MARK };
    assert_eq!(settle(&database.store, charged("no"), &never).await.retrying, 1);
    let (_, events) = claim(&database.store).await.expect("still due");
    assert_eq!(events[0].attempt_count, i32::MAX);
}

#[tokio::test]
async fn waiting_events_stay_out_of_the_way() {
    let database = Database::new().await;
    database.insert(1).await;
    let hour = Duration::from_secs(3600);
    settle(&database.store, Outcome::Deferred { retry_in: hour }, &MARK).await;
    let fresh = database.insert(1).await;
    assert_eq!(claimed_ids(&database.store).await, fresh);
    settle(&database.store, Outcome::Charged { error: "no".into(), retry_in: Duration::MAX }, &MARK).await;
    assert_eq!(claimed_ids(&database.store).await, NONE);
    let backlog = database.store.backlog().await.expect("counts");
    assert_eq!((backlog.pending, backlog.failed, backlog.oldest_due_age), (2, 0, Duration::ZERO));
    let attempts = "SELECT group_concat(attempt_count) FROM (SELECT attempt_count FROM outbox_events ORDER BY rowid)";
    assert_eq!(database.text(attempts).await, "0,1", "a deferred event is not charged");
    database.make_due().await;
    assert!(database.store.backlog().await.expect("counts").oldest_due_age > hour);
}

#[tokio::test]
async fn a_released_event_is_as_if_it_had_never_been_claimed() {
    let database = Database::new().await;
    let ids = database.insert(2).await;
    let before = claim(&database.store).await.expect("due").1;
    assert_eq!(settle(&database.store, Outcome::Released, &MARK).await, Settled::default());
    let after = claim(&database.store).await.expect("due").1;
    assert_eq!(before, after);
    assert_eq!(claimed_ids(&database.store).await, ids);
}

#[tokio::test]
async fn published_events_are_marked_and_pruned_or_deleted() {
    let database = Database::new().await;
    database.insert(3).await;
    assert_eq!(settle(&database.store, Outcome::Published, &MARK).await.published, 3);
    database.execute("UPDATE outbox_events SET published_at = '2026-01-01T00:00:00.000Z' WHERE rowid < 3").await;
    let (day, store) = (Duration::from_secs(24 * 3600), &database.store);
    database.insert(1).await;
    assert_eq!(store.prune(day, 1, None).await.expect("prunes").removed, 1);
    assert_eq!(store.prune(day, 100, None).await.expect("prunes").removed, 1);
    assert_eq!(store.prune(day, 100, None).await.expect("prunes").removed, 0, "the others are young or PENDING");
    let delete = SettlePolicy { on_published: OnPublished::Delete, ..MARK };
    assert_eq!(settle(store, Outcome::Published, &delete).await.published, 1);
    assert_eq!(database.text("SELECT group_concat(status) FROM outbox_events").await, "PUBLISHED");
}

#[tokio::test]
async fn a_payload_arrives_byte_for_byte() {
    let database = Database::new().await;
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let payloads = [
        r#"{"z":1,"a":2,"z":3}"#,
        r#" { "spaced" : "\u00e4\ud834\udd1e ä" } "#,
        "1234567890123456789012345678901234567890",
        "-0.0e-999",
        &deep,
    ];
    let mut tx = database.pool.begin_with("BEGIN IMMEDIATE").await.expect("begins");
    for payload in payloads {
        let event = NewEvent::from_json("events.player", "", payload).expect("JSON");
        OutboxPublisher::default().publish(&mut tx, event.key("p1").header("Tenant", "eu")).await.expect("inserts");
    }
    tx.commit().await.expect("commits");
    let (_, events) = claim(&database.store).await.expect("due");
    for (event, payload) in events.iter().zip(payloads) {
        assert_eq!(event.payload, payload);
        assert_eq!(event.defect, None);
        assert_eq!((event.key.as_deref(), event.headers["Tenant"].as_str()), (Some("p1"), "eu"));
    }
    assert_eq!(events.len(), payloads.len());
}

#[tokio::test]
async fn one_bad_row_never_fails_its_batch() {
    let database = Database::new().await;
    let row = |number: u8, columns: &str, values: &str| {
        let id = Uuid::from_u128(u128::from(number));
        format!("INSERT INTO outbox_events (id, event_type, {columns}) VALUES ('{id}', 'happened', {values})")
    };
    let rows = [
        row(0, "topic, payload", r#"'events.player', '{"good":1}'"#),
        row(1, "topic, payload", "'events.player', 'hello'"),
        row(2, "topic, payload", "'events.player', CAST(x'ff' AS TEXT)"),
        row(3, "topic, payload", "x'c328', '{}'"),
        row(4, "topic, payload, carrier", "'events.player', '{}', '[1]'"),
        row(5, "topic, payload, headers", r#"'events.player', '{}', '{"a":1}'"#),
        row(6, "topic, payload", "'events.player', printf('\"%.*c\"', 2000000, 'x')"),
        row(7, "topic, payload, created_at", "'events.player', x'7b7d', 'yesterday'"),
        row(8, "topic, payload, created_at", "'events.player', 7, '2026-01-02 03:04:05'"),
        row(9, "topic, payload, attempt_count", "'events.player', '{}', 'many'"),
        row(10, "topic, payload, event_key", "'events.player', '{}', printf('%.*c', 5000, 'k')"),
        row(11, "topic, payload, carrier", "'events.player', '{}', printf('%.*c', 20000, ' ')"),
    ];
    for row in &rows {
        database.execute(row).await;
    }
    let (held, events) = claim(&database.store).await.expect("due");
    assert_eq!(events.len(), rows.len());
    let defects: Vec<_> = events.iter().map(|event| event.defect.as_deref().unwrap_or("")).collect();
    assert_eq!(
        defects,
        [
            "",
            "payload is not JSON",
            "payload is not JSON",
            "",
            "",
            "headers are not a JSON object of strings",
            "payload too large: expected at most 1048576 bytes, got 2000002",
            "",
            "",
            "",
            "event key too large: expected at most 4096 bytes",
            "",
        ]
    );
    assert_eq!(events[3].topic, "\u{fffd}(", "no validator lets it through");
    assert!(events[4].carrier.is_empty() && events[11].carrier.is_empty());
    assert!(events[6].payload.is_empty(), "not loaded");
    assert_eq!((&events[7].payload[..], &events[8].payload[..]), (b"{}".as_slice(), b"7".as_slice()));
    assert_eq!(events[8].created_at.to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(events[9].attempt_count, 0);
    held.settle(vec![charged("no"); rows.len()], &MARK).await.expect("settles");
    let counts = database.text("SELECT group_concat(DISTINCT attempt_count) FROM outbox_events").await;
    assert_eq!(counts, "1");
}

#[tokio::test]
async fn an_id_that_names_no_event_is_refused_when_it_is_inserted_and_skipped_when_it_is_not() {
    let database = Database::new().await;
    let insert = |id: &str| {
        format!("INSERT INTO outbox_events (id, event_type, topic, payload) VALUES ({id}, 'happened', 'a', '{{}}')")
    };
    for id in
        ["'7'", "x'00'", "NULL", "'0192F0C1-2C5F-7CC3-98C4-DC0C0C07398F'", "'0192f0c1-2c5f-7cc3-98c4-dc0c0c07398-'"]
    {
        let refused = sqlx::raw_sql(AssertSqlSafe(insert(id))).execute(&database.pool).await;
        assert!(refused.is_err(), "{id}");
    }
    let unguarded = format!("PRAGMA ignore_check_constraints = ON; {}", insert("'7'"));
    database.execute(&unguarded).await;
    let ids = database.insert(1).await;
    assert_eq!(claimed_ids(&database.store).await, ids);
}

#[tokio::test]
async fn a_time_that_would_never_come_is_refused_when_it_is_inserted() {
    let database = Database::new().await;
    for time in ["'soon'", "'now'", "'2026-01-01 00:00:00'", "1767225600", "NULL"] {
        let insert = format!(
            "INSERT INTO outbox_events (id, event_type, topic, payload, available_at)
             VALUES ('{}', 'happened', 'a', '{{}}', {time})",
            Uuid::now_v7(),
        );
        assert!(sqlx::raw_sql(AssertSqlSafe(insert)).execute(&database.pool).await.is_err(), "{time}");
    }
}

#[tokio::test]
async fn a_claim_keeps_its_limits_and_leaves_paused_routes_alone() {
    let database = Database::new().await;
    let ids = database.insert(4).await;
    let claim = async |limit: ClaimLimit| {
        let claim = claim_now(&database.store, &limit).await.expect("claims");
        claim.map_or(0, |mut claim| claim.take_events().len())
    };
    assert_eq!(claim(ClaimLimit { events: 3, ..limit() }).await, 3);
    assert_eq!(claim(ClaimLimit { bytes: 2, ..limit() }).await, 2, "payloads of one byte each");
    assert_eq!(claim(ClaimLimit { bytes: 0, ..limit() }).await, 1, "the first one always");
    let route = |event_type: &str| Route { topic: "events.player".into(), event_type: event_type.into() };
    assert_eq!(claim(ClaimLimit { except: vec![route("registered")], ..limit() }).await, 0);
    assert_eq!(claim(ClaimLimit { except: vec![route(""), route("left")], ..limit() }).await, ids.len());
}

#[tokio::test]
async fn a_commit_by_another_connection_wakes_a_waiting_relay() {
    let database = Database::new().await;
    let hour = Duration::from_secs(3600);
    // The first call reports what happened before it.
    assert!(database.store.claim(hour, &limit()).await.expect("claims").claim.is_none());
    let store = database.store.clone();
    let waiting = tokio::spawn(async move { store.claim(hour, &limit()).await });
    database.insert(1).await;
    let claim = waiting.await.expect("it wakes").expect("claims");
    assert_eq!(claim.claim.map(|mut claim| claim.take_events().len()), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_commit_while_the_relay_settles_and_nothing_is_lost_or_sent_twice() {
    let database = Database::new().await;
    let (bus, telemetry) = (MemoryBus::default(), Telemetry::new("test"));
    let mut progress = telemetry.progress();
    let config = RelayConfig { batch_size: 10, ..RelayConfig::default() };
    let relay = Relay::new(database.store.clone(), bus.clone(), config, telemetry);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { stopped.await.unwrap_or_default() }));
    let produce = (0..4).map(|_| async {
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.extend(database.insert(2).await);
        }
        ids
    });
    let mut inserted = futures_util::future::join_all(produce).await.concat();
    progress.wait_for(|progress| progress.published >= 400).await.expect("the relay runs");
    stop.send(()).expect("the relay runs");
    relay.await.expect("no panic").expect("no error");
    let mut received: Vec<_> = bus.messages().iter().map(|message| message.id).collect();
    inserted.sort();
    received.sort();
    assert_eq!(received, inserted);
    assert_eq!(bus.duplicates(), 0);
    assert_eq!(database.text("SELECT group_concat(DISTINCT status) FROM outbox_events").await, "PUBLISHED");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_with_handles_of_their_own_never_send_the_same_event() {
    let database = Database::new().await;
    let (bus, telemetry) = (MemoryBus::default(), Telemetry::new("test"));
    let progress = telemetry.progress();
    let mut relays = Vec::new();
    let mut stops = Vec::new();
    for store in [database.store.clone(), database.another_handle().await] {
        let config = RelayConfig { batch_size: 5, poll_interval: Duration::from_millis(5), ..RelayConfig::default() };
        let relay = Relay::new(store, bus.clone(), config, telemetry.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        relays.push(tokio::spawn(relay.run(async { stopped.await.unwrap_or_default() })));
        stops.push(stop);
    }
    for _ in 0..20 {
        database.insert(20).await;
    }
    wait_until("400 events are published", async || (progress.borrow().published == 400).then_some(())).await;
    drop(stops);
    for relay in relays {
        relay.await.expect("no panic").expect("no error");
    }
    assert_eq!((bus.messages().len(), bus.duplicates()), (400, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_processes_that_migrate_at_once_one_does_it_and_none_fails() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = SqliteConfig::new(folder.path().join("new.db")).create_if_missing(true);
    let migrate = (0..10).map(|_| {
        let config = config.clone();
        tokio::spawn(async move {
            let store = SqliteStore::open(&config).await.expect("opens");
            store.migrate_up().await.expect("migrates")
        })
    });
    let applied = futures_util::future::join_all(migrate).await;
    let applied: Vec<i64> = applied.into_iter().flat_map(|applied| applied.expect("no panic")).collect();
    assert_eq!(applied, [3, 4, 5, 6, 11]);
}

#[tokio::test]
async fn migrations_go_down_and_up_again_with_their_rows() {
    let database = Database::new().await;
    let ids = database.insert(2).await;
    for _ in 0..3 {
        settle(&database.store, charged("no"), &MARK).await;
    }
    assert_eq!(database.store.migrate_down(3).await.expect("goes down"), [11, 6, 5, 4]);
    let error = database.store.check_schema().await.expect_err("columns are missing");
    assert_eq!(error.kind(), StoreErrorKind::Unusable);
    assert!(error.to_string().contains("expected the columns last_error, available_at, event_key, headers"), "{error}");
    // What the version before wrote in the meantime.
    database
        .execute(
            "INSERT INTO outbox_events (id, event_type, topic, payload)
             VALUES ('ffffffff-ffff-7fff-bfff-ffffffffffff', 'registered', 'events.player', '2')",
        )
        .await;
    let states = database.store.migration_status().await.expect("reads");
    assert_eq!(states.iter().map(|state| state.applied).collect::<Vec<_>>(), [true, false, false, false, false]);
    assert_eq!(database.store.migrate_up().await.expect("goes up"), [4, 5, 6, 11]);
    database.store.check_schema().await.expect("usable");
    let claimed = claimed_ids(&database.store).await;
    assert_eq!(claimed[..2], ids, "dead letters are PENDING again, in their old order");
    assert_eq!(claimed.len(), 3);
    assert_eq!(database.store.migrate_down(0).await.expect("goes down"), [11, 6, 5, 4, 3]);
    assert!(database.store.check_schema().await.is_err());
}

#[tokio::test]
async fn a_wrong_path_or_a_database_in_memory_is_an_error_and_creates_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("missing.db");
    let error = SqliteStore::open(&SqliteConfig::new(&path)).await.expect_err("no such file");
    assert_eq!(error.kind(), StoreErrorKind::Unusable);
    assert!(!path.exists());
    for url in
        ["sqlite::memory:", "sqlite://x?mode=memory", "sqlite://", "sqlite://x?mode=ro", "postgres://localhost/x"]
    {
        assert!(SqliteConfig::from_url(url).is_err(), "{url}");
    }
    let url = format!("sqlite://{}?mode=rwc", path.display());
    SqliteStore::from_url(&url).await.expect("creates it when asked to");
    assert!(path.exists());
}

/// Whoever has a deleted file open reads and writes what nobody will see.
#[tokio::test]
async fn a_database_file_that_is_removed_or_replaced_under_a_store_is_opened_again() {
    let database = Database::new().await;
    database.insert(1).await;
    database.store.check().await.unwrap();
    database.pool.close().await;
    let path = database.config.path();
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    for wal in ["-wal", "-shm"] {
        // Gone already where the last connection was closed.
        let _ = std::fs::remove_file(format!("{}{wal}", path.display()));
    }
    database.store.check().await.expect_err("the file is gone");
    claim_now(&database.store, &limit()).await.expect_err("and its events are not taken from where it was");

    let another = SqliteStore::open(&SqliteConfig::new(path).create_if_missing(true)).await.unwrap();
    another.migrate_up().await.unwrap();
    drop(another);
    database.store.check().await.unwrap();
    let pool = SqlitePoolOptions::new().connect_lazy_with(database.config.connect_options());
    let event = NewEvent::new("events.new", "registered", &1).unwrap();
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let id = OutboxPublisher::default().publish(&mut tx, event).await.unwrap();
    tx.commit().await.unwrap();
    let mut claim = claim_now(&database.store, &limit()).await.unwrap().expect("the new file's event");
    let events: Vec<Uuid> = claim.take_events().iter().map(|event| event.id).collect();
    assert_eq!(events, [id]);
    claim.settle(vec![Outcome::Published], &MARK).await.unwrap();
    let status: String = sqlx::query_scalar("SELECT status FROM outbox_events").fetch_one(&pool).await.unwrap();
    assert_eq!(status, "PUBLISHED", "the outcome is in the file that others see");
}

/// Without this, two processes would hold a lock each, on two files of the same name.
#[tokio::test]
async fn a_lock_file_that_was_tidied_away_still_keeps_others_out() {
    let database = Database::new().await;
    database.insert(2).await;
    let (one, other) = (&database.store, database.another_handle().await);
    let lock = database.config.path().canonicalize().unwrap();
    std::fs::remove_file(format!("{}.relay-lock", lock.display())).unwrap();
    let first = ClaimLimit { events: 1, ..limit() };
    let _held = claim_now(one, &first).await.unwrap().expect("an event");
    assert!(claim_now(&other, &first).await.unwrap().is_none(), "the other one is shut out");
}
