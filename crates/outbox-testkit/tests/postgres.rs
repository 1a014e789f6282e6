//! What only PostgreSQL has: migrations of tables that exist already, the SQL function for producers, connections that
//! die with a claim.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use gamemesh_outbox::store::dead_letters::{DeadLetters, Filter, Page};
use gamemesh_outbox::store::postgres::{EXAMPLE_MIGRATIONS, MIGRATIONS, PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{
    Claim, ClaimLimit, HealthCheck, OnPublished, Outcome, Prune, Route, SettlePolicy, Store, StoreErrorKind,
};
use gamemesh_outbox::{Event, NewEvent, OutboxPublisher, error_chain};
use outbox_testkit::claim_now;
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

const CREATE_OUTBOX_EVENTS: &str = include_str!("../../../migrations/0003_create_outbox_events.up.sql");
const OUTBOX_DEAD_LETTER: &str = include_str!("../../../migrations/0004_outbox_dead_letter.up.sql");
const EXAMPLE_BOOKS: &str = "example_migrations";
pub(crate) const POLICY: SettlePolicy = SettlePolicy { attempts_max: 0, on_published: OnPublished::Mark };

pub(crate) fn store(database: &TestDatabase) -> PostgresStore {
    PostgresStore::new(PostgresConfig::from_dsn(&database.url()).unwrap()).unwrap()
}

async fn empty_database() -> (TestDatabase, Client, PostgresStore) {
    let database = PostgresServer::shared().database().await;
    let (client, store) = (database.client().await, store(&database));
    (database, client, store)
}

pub(crate) async fn migrated_database() -> (TestDatabase, Client, PostgresStore) {
    let (database, client, store) = empty_database().await;
    store.migrate_up().await.unwrap();
    (database, client, store)
}

/// The versions from `first` on, as applying returns them.
pub(crate) fn migrations_from(first: i64) -> Vec<i64> {
    MIGRATIONS.iter().map(|migration| migration.version).filter(|version| *version >= first).collect()
}

/// The versions above `last`, as taking back returns them.
pub(crate) fn taken_back_to(last: i64) -> Vec<i64> {
    migrations_from(last + 1).into_iter().rev().collect()
}

pub(crate) fn limit() -> ClaimLimit {
    let lifetime = Duration::from_secs(60);
    let (except, except_ids) = (Vec::new(), Vec::new());
    ClaimLimit { events: 100, bytes: 4 << 20, any_size: true, event_bytes: 1 << 20, lifetime, except, except_ids }
}

pub(crate) async fn claim(store: &PostgresStore) -> (Box<dyn Claim>, Vec<Event>) {
    let mut claim = claim_now(store, &limit()).await.unwrap().expect("due events");
    let events = claim.take_events();
    (claim, events)
}

/// Inserts as code from before 0005 does, and returns the id.
pub(crate) async fn insert_old_style(client: &Client, payload: &str) -> Uuid {
    let id = Uuid::now_v7();
    let insert = "INSERT INTO outbox_events (id, event_type, topic, payload, carrier)
                  VALUES ($1, 'registered', 'events.player', $2::text::jsonb, '{}')";
    client.execute(insert, &[&id, &payload]).await.unwrap();
    id
}

pub(crate) async fn count(client: &Client, from: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {from}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn migrations_go_up_and_down_on_tables_with_rows() {
    let (_database, client, store) = empty_database().await;
    assert_eq!(store.apply_migrations(EXAMPLE_BOOKS, &EXAMPLE_MIGRATIONS).await.unwrap(), [1, 2]);
    client
        .batch_execute("INSERT INTO players (username, email, password_hash) VALUES ('Ada', 'a@b', '!')")
        .await
        .unwrap();
    client.batch_execute("INSERT INTO player_stats (player_id) SELECT id FROM players").await.unwrap();
    assert!(store.migration_status().await.unwrap().iter().all(|state| !state.applied));

    assert_eq!(store.migrate_up().await.unwrap(), migrations_from(3));
    assert_eq!(store.migrate_up().await.unwrap(), [0; 0]);
    assert!(store.migration_status().await.unwrap().iter().all(|state| state.applied));
    insert_old_style(&client, "1").await;
    let failed = insert_old_style(&client, "2").await;
    client.execute("UPDATE outbox_events SET status = 'FAILED' WHERE id = $1", &[&failed]).await.unwrap();
    client.batch_execute("SELECT outbox_publish('events.player', 'registered', '3')").await.unwrap();

    assert_eq!(store.migrate_down(4).await.unwrap(), taken_back_to(4));
    assert_eq!(count(&client, "outbox_events WHERE status = 'FAILED'").await, 1);
    assert_eq!(store.migrate_down(3).await.unwrap(), [4]);
    assert_eq!(count(&client, "outbox_events WHERE status = 'PENDING'").await, 3, "dead letters are pending again");
    let refused = client.batch_execute("UPDATE outbox_events SET status = 'FAILED'").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::CHECK_VIOLATION));

    assert_eq!(store.migrate_up().await.unwrap(), migrations_from(4));
    assert_eq!(claim(&store).await.1.len(), 3);
    assert_eq!(store.migrate_down(0).await.unwrap(), taken_back_to(2));
    assert_eq!(count(&client, "players").await, 1, "an application's tables are not the relay's to drop");
    assert_eq!(count(&client, "pg_class WHERE relname LIKE 'outbox_events%'").await, 0);
    assert_eq!(count(&client, "pg_proc WHERE proname LIKE 'outbox%'").await, 0);

    assert_eq!(store.revert_migrations(EXAMPLE_BOOKS, &EXAMPLE_MIGRATIONS, 0).await.unwrap(), [2, 1]);
    assert_eq!(count(&client, "pg_class WHERE relname LIKE 'player%'").await, 0);
}

#[tokio::test]
async fn every_migration_can_be_applied_to_what_it_made() {
    let (_database, client, _store) = migrated_database().await;
    for migration in EXAMPLE_MIGRATIONS.iter().chain(&MIGRATIONS) {
        client.batch_execute(migration.up).await.unwrap();
        client.batch_execute(migration.up).await.unwrap();
    }
    for migration in EXAMPLE_MIGRATIONS.iter().chain(&MIGRATIONS).rev() {
        client.batch_execute(migration.down).await.unwrap();
    }
}

#[tokio::test]
async fn tables_of_an_earlier_relay_are_taken_over_with_their_backlog() {
    let (_database, client, store) = empty_database().await;
    client.batch_execute(CREATE_OUTBOX_EVENTS).await.unwrap();
    client.batch_execute(OUTBOX_DEAD_LETTER).await.unwrap();
    let mut inserted = Vec::new();
    for minutes in [5, 3, 4] {
        let id = insert_old_style(&client, r#"{"name": "Ada"}"#).await;
        let age = "UPDATE outbox_events SET created_at = now() - $2 * interval '1 minute' WHERE id = $1";
        client.execute(age, &[&id, &f64::from(minutes)]).await.unwrap();
        inserted.push(id);
    }
    let constraint = "SELECT oid FROM pg_constraint WHERE conname = 'ck_outbox_status'";
    let before: u32 = client.query_one(constraint, &[]).await.unwrap().get(0);

    assert_eq!(store.migrate_up().await.unwrap(), migrations_from(3));
    let after: u32 = client.query_one(constraint, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "a check that allows FAILED already is not scanned again");
    store.check_schema().await.unwrap();
    inserted.push(insert_old_style(&client, r#"{"name": "Grace"}"#).await);

    let (held, events) = claim(&store).await;
    let claimed: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    assert_eq!(claimed, [inserted[0], inserted[2], inserted[1], inserted[3]], "the old backlog keeps its order");
    assert!(events.iter().all(|event| event.defect.is_none() && event.headers.is_empty()));
    held.settle(vec![Outcome::Published; 4], &POLICY).await.unwrap();
    assert_eq!(count(&client, "outbox_events WHERE status = 'PUBLISHED' AND published_at IS NOT NULL").await, 4);
}

#[tokio::test]
async fn half_migrated_tables_are_completed() {
    let states = [
        "DROP INDEX idx_outbox_pending",
        "ALTER TABLE outbox_events DROP CONSTRAINT ck_outbox_status",
        "ALTER TABLE outbox_events ADD COLUMN last_error TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outbox_events ADD COLUMN available_at TIMESTAMPTZ NOT NULL DEFAULT now(),
         ADD COLUMN headers JSONB NOT NULL DEFAULT '{}'",
    ];
    for state in states {
        let (_database, client, store) = empty_database().await;
        client.batch_execute(CREATE_OUTBOX_EVENTS).await.unwrap();
        client.batch_execute(state).await.unwrap();
        insert_old_style(&client, "1").await;
        store.migrate_up().await.unwrap();
        store.check_schema().await.unwrap();
        client.batch_execute("UPDATE outbox_events SET status = 'FAILED'").await.expect(state);
        assert_eq!(
            count(&client, "pg_indexes WHERE tablename = 'outbox_events' AND indexname LIKE 'idx%'").await,
            6,
            "{state}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_migrators_one_does_the_work_and_none_fails() {
    let (database, client, _) = empty_database().await;
    let migrators = (0..10).map(|_| {
        let store = store(&database);
        tokio::spawn(async move { store.migrate_up().await })
    });
    let mut applied = Vec::new();
    for migrator in migrators.collect::<Vec<_>>() {
        applied.push(migrator.await.unwrap().unwrap());
    }
    applied.sort();
    assert_eq!(applied.pop().unwrap(), migrations_from(3));
    assert!(applied.iter().all(Vec::is_empty), "{applied:?}");
    assert_eq!(count(&client, "outbox_migrations").await, MIGRATIONS.len() as i64);
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_and_can_be_run_again() {
    let (_database, client, store) = empty_database().await;
    client.batch_execute("CREATE VIEW outbox_events AS SELECT 1 AS id").await.unwrap();
    let error = store.migrate_up().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unusable);
    assert!(error.to_string().contains("0003_create_outbox_events"), "{error}");
    client.batch_execute("DROP VIEW outbox_events").await.unwrap();
    assert_eq!(store.migrate_up().await.unwrap(), migrations_from(3));
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_is_explained() {
    let (_database, client, store) = empty_database().await;
    let expect = async |problem: &str| {
        let error = store.check_schema().await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (problem, StoreErrorKind::Unusable));
    };
    expect("table outbox_events does not exist; hint: run outbox-relay migrate up").await;
    client.batch_execute(CREATE_OUTBOX_EVENTS).await.unwrap();
    client.batch_execute(OUTBOX_DEAD_LETTER).await.unwrap();
    expect("table outbox_events has no column available_at, which this relay needs; hint: run outbox-relay migrate up")
        .await;
    store.migrate_up().await.unwrap();
    store.check_schema().await.unwrap();

    let newer = "INSERT INTO outbox_migrations (version, description, success, checksum, execution_time) VALUES";
    client.batch_execute(&format!("{newer} (98, 'add_a_column', true, '', 0)")).await.unwrap();
    store.check_schema().await.unwrap();
    assert_eq!(store.migrate_up().await.unwrap(), [0; 0], "an older relay tolerates a newer additive migration");
    assert_eq!(store.migrate_down(0).await.unwrap_err().kind(), StoreErrorKind::Unusable);
    client.batch_execute(&format!("{newer} (99, 'breaking_ordered_layout', true, '', 0)")).await.unwrap();
    let newest = MIGRATIONS.last().unwrap().version;
    expect(&format!(
        "database schema has migration 0099_breaking_ordered_layout, which this relay (up to {newest:04}) cannot use; \
         hint: upgrade outbox-relay; nothing was changed",
    ))
    .await;
}

#[tokio::test]
async fn outbox_publish_is_part_of_the_callers_transaction() {
    let (_database, client, store) = migrated_database().await;
    client.batch_execute("BEGIN; SELECT outbox_publish('events.player', 'lost', '1'); ROLLBACK").await.unwrap();
    let publish = "BEGIN; SELECT outbox_publish('events.player', 'registered', '{\"a\":1}'); COMMIT";
    client.batch_execute(publish).await.unwrap();
    let full = "SELECT outbox_publish('events.player', 'registered', '{\"b\": 1}', event_key => 'player-7',
        headers => '{\"Tenant\": \"eu-1\"}', carrier => '{\"traceparent\": \"x\"}',
        id => '0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f', available_at => now() - interval '1 hour')";
    let id: Uuid = client.query_one(full, &[]).await.unwrap().get(0);
    assert_eq!(id.to_string(), "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f");
    client.batch_execute("SELECT outbox_publish('later', '', '1', available_at => now() + '1 hour')").await.unwrap();

    let (_claim, events) = claim(&store).await;
    assert_eq!(events.len(), 2);
    assert_eq!((events[0].id, events[0].key.as_deref()), (id, Some("player-7")));
    assert_eq!(events[0].headers["Tenant"], "eu-1");
    assert_eq!(events[0].carrier.get("traceparent"), Some("x"));
    assert_eq!((events[1].event_type.as_str(), events[1].payload.as_ref()), ("registered", &br#"{"a": 1}"#[..]));
    assert_eq!(events[1].id.get_version_num(), 7);
}

#[tokio::test]
async fn outbox_publish_refuses_what_no_relay_could_send() {
    let (_database, client, _) = migrated_database().await;
    let refused = [
        (
            "NULL, 'registered', '1'",
            "outbox_publish: invalid topic: expected tokens separated by single dots, got \"\"",
        ),
        ("'events.player', 'registered', NULL", "outbox_publish: payload must not be NULL"),
        ("'a', 'b', '1', headers => '{\"n\": 1}'", "outbox_publish: headers must be a JSON object of strings"),
        ("'a', 'b', '1', headers => '[\"n\"]'", "outbox_publish: headers must be a JSON object of strings"),
        ("'a', 'b', '1', headers => '\"n\"'", "outbox_publish: headers must be a JSON object of strings"),
        ("'a', 'b', '1', carrier => '[]'", "outbox_publish: carrier must be a JSON object"),
    ];
    for (arguments, message) in refused {
        let error = client.batch_execute(&format!("SELECT outbox_publish({arguments})")).await.unwrap_err();
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!((error.message(), error.code()), (message, &SqlState::INVALID_PARAMETER_VALUE), "{arguments}");
    }
    let nothing_to_say = "SELECT outbox_publish('a', NULL, 'null', NULL, NULL, NULL)";
    client.batch_execute(nothing_to_say).await.unwrap();
}

#[tokio::test]
async fn outbox_publish_finds_its_outbox_from_any_search_path() {
    let (_database, client, _) = migrated_database().await;
    client.batch_execute("CREATE SCHEMA elsewhere; SET search_path = elsewhere").await.unwrap();
    client.batch_execute("SELECT public.outbox_publish('a', 'b', '1')").await.unwrap();
    assert_eq!(count(&client, "public.outbox_events").await, 1);
}

#[tokio::test]
async fn ids_made_by_the_database_are_version_7_and_in_order() {
    let (_database, client, _) = migrated_database().await;
    let before = Uuid::now_v7();
    let mut ids = Vec::new();
    for _ in 0..200 {
        let id: Uuid = client.query_one("SELECT outbox_uuid_v7()", &[]).await.unwrap().get(0);
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        ids.push(id);
    }
    assert!(ids.is_sorted(), "{ids:?}");
    let seconds = |id: &Uuid| id.get_timestamp().expect("version 7 has a time").to_unix().0;
    assert!(seconds(&before).abs_diff(seconds(&ids[0])) < 60);

    let many = client.query("SELECT outbox_uuid_v7() FROM generate_series(1, 10000)", &[]).await.unwrap();
    assert_eq!(many.iter().map(|row| row.get::<_, Uuid>(0)).collect::<HashSet<_>>().len(), 10_000);
    let insert = "INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '1') RETURNING id";
    let defaulted: Uuid = client.query_one(insert, &[]).await.unwrap().get(0);
    assert_eq!(defaulted.get_version_num(), 7);
}

#[tokio::test]
async fn every_producer_writes_the_same_row() {
    let (database, _client, store) = migrated_database().await;
    let publisher = OutboxPublisher::default();
    let event = || {
        let event = NewEvent::new("events.player", "registered", &serde_json::json!({"name": "Ada"})).unwrap();
        event.key("player-7").header("Tenant", "eu-1")
    };

    let sqlx_pool = sqlx::PgPool::connect(&database.url()).await.unwrap();
    let mut transaction = sqlx_pool.begin().await.unwrap();
    publisher.publish(&mut transaction, event()).await.unwrap();
    publisher.publish_all(&mut transaction, vec![event(), event()]).await.unwrap();
    transaction.commit().await.unwrap();
    let mut rolled_back = sqlx_pool.begin().await.unwrap();
    publisher.publish(&mut rolled_back, event()).await.unwrap();
    rolled_back.rollback().await.unwrap();

    let mut client = database.client().await;
    let mut transaction = client.transaction().await.unwrap();
    publisher.publish(&mut transaction, event()).await.unwrap();
    transaction.commit().await.unwrap();

    let (_claim, events) = claim(&store).await;
    assert_eq!(events.len(), 4);
    let unlike = |event: &Event| Event { id: Uuid::nil(), created_at: Default::default(), ..event.clone() };
    assert!(events.iter().all(|event| unlike(event) == unlike(&events[0])), "{events:?}");
    assert_eq!((events[0].key.as_deref(), events[0].headers["Tenant"].as_str()), (Some("player-7"), "eu-1"));
}

#[tokio::test]
async fn a_wait_ends_when_an_event_is_due_that_nobody_holds() {
    let (_database, client, store) = migrated_database().await;
    let (shortly, long) = (Duration::from_millis(100), Duration::from_secs(3600));
    let wait = async |at_most, except| store.claim(at_most, &ClaimLimit { except, ..limit() }).await.unwrap().claim;
    assert!(wait(shortly, Vec::new()).await.is_none(), "nothing is due");
    client.batch_execute("SELECT outbox_publish('events.player', 'registered', '1')").await.unwrap();
    let route = Route { topic: "events.player".into(), event_type: "registered".into() };
    assert!(wait(shortly, vec![route]).await.is_none(), "its route is left alone");
    let held = wait(long, Vec::new()).await.expect("it is due");
    assert!(wait(shortly, Vec::new()).await.is_none(), "it is held");
    let (held, waiting) =
        (async { held.settle(vec![Outcome::Released], &POLICY).await.unwrap() }, wait(long, Vec::new()));
    let (_, found) = tokio::join!(held, waiting);
    assert!(found.is_some(), "it is free again");
}

#[tokio::test]
async fn columns_that_hold_what_they_should_not_become_defects() {
    let (_database, client, store) = migrated_database().await;
    client
        .batch_execute(
            "ALTER TABLE outbox_events ALTER payload DROP NOT NULL, ALTER topic DROP NOT NULL,
                 ALTER event_type DROP NOT NULL, ALTER carrier DROP NOT NULL, ALTER created_at DROP NOT NULL,
                 ALTER attempt_count DROP NOT NULL, ALTER headers DROP NOT NULL, DISABLE TRIGGER outbox_fill;
             INSERT INTO outbox_events (topic, event_type, payload, event_key) VALUES ('a', 'b', NULL, 'no payload');
             INSERT INTO outbox_events (topic, event_type, payload, carrier, headers, attempt_count, event_key)
                 VALUES (NULL, NULL, '1', NULL, NULL, NULL, 'nulls');
             INSERT INTO outbox_events (topic, event_type, payload, created_at, event_key)
                 VALUES ('a', 'b', '1', NULL, 'no time'), ('a', 'b', '1', 'infinity', 'never'),
                        ('a', 'b', '1', '-infinity', 'always'), ('a', 'b', '1', '20000-01-01', 'far');
             INSERT INTO outbox_events (topic, event_type, payload, available_at, event_key)
                 VALUES ('a', 'b', '1', '-infinity', 'sound');
             INSERT INTO outbox_events (topic, event_type, payload, carrier, headers, event_key)
                 VALUES (repeat('t', 5000), 'b', '1', jsonb_build_object('a', repeat('x', 20000)),
                         jsonb_build_object('a', repeat('x', 2000000)), 'huge')",
        )
        .await
        .unwrap();
    let (held, events) = claim(&store).await;
    let defect = |key: &str| {
        let event = events.iter().find(|event| event.key.as_deref() == Some(key));
        event.expect("every row is claimed").defect.as_deref()
    };
    assert_eq!(defect("sound"), None);
    assert_eq!(defect("nulls"), None, "an empty topic is the validator's to refuse");
    assert_eq!(defect("no payload"), Some("column payload is NULL"));
    assert_eq!(defect("huge"), Some("column headers: expected a JSON object of strings"));
    for key in ["no time", "never", "always", "far"] {
        assert!(defect(key).is_some_and(|defect| defect.starts_with("column created_at")), "{key}");
    }
    store.backlog().await.unwrap();
    let outcomes = vec![Outcome::Charged { error: "refused".into(), retry_in: Duration::MAX }; events.len()];
    let settled = held.settle(outcomes, &SettlePolicy { attempts_max: 1, ..POLICY }).await.unwrap();
    assert_eq!(settled.dead_lettered.len(), events.len());
    assert_eq!(store.list(&Filter::default(), &Page::first(100)).await.unwrap().letters.len(), events.len());
}

/// Numbers of JSON that are a few bytes on disk and, as text, more than the server can make.
#[tokio::test]
async fn a_row_that_the_server_cannot_write_as_text_is_claimed_with_a_defect_and_fails_no_other() {
    let (_database, client, store) = migrated_database().await;
    let bomb = "to_jsonb(ARRAY(SELECT 1e131071 FROM generate_series(1, 9000)))";
    client
        .batch_execute(&format!(
            "INSERT INTO outbox_events (topic, event_type, payload, event_key) VALUES ('a', 'b', '1', 'before');
             INSERT INTO outbox_events (topic, event_type, payload, event_key) VALUES ('a', 'b', {bomb}, 'payload');
             INSERT INTO outbox_events (topic, event_type, payload, headers, carrier, event_key)
                 VALUES ('a', 'b', '2', jsonb_build_object('a', {bomb}), '{{\"tracestate\": \"a=1\"}}', 'headers');
             INSERT INTO outbox_events (topic, event_type, payload, headers, carrier, event_key)
                 VALUES ('a', 'b', '3', '{{\"Tenant\": \"eu-1\"}}', jsonb_build_object('a', {bomb}), 'carrier');
             INSERT INTO outbox_events (topic, event_type, payload, event_key) VALUES ('a', 'b', '4', 'behind');"
        ))
        .await
        .unwrap();
    let stored = "SELECT max(pg_column_size(payload)) FROM outbox_events";
    assert!(client.query_one(stored, &[]).await.unwrap().get::<_, i32>(0) < 10_000, "it is small");

    let mut outcomes = Vec::new();
    let mut found = Vec::new();
    // On a busy machine the time of one claim may not be enough for all of them.
    while let Some(mut held) = claim_now(&store, &limit()).await.unwrap() {
        outcomes.clear();
        for event in held.take_events() {
            let refused = Outcome::Charged { error: "refused".into(), retry_in: Duration::MAX };
            outcomes.push(if event.defect.is_none() { Outcome::Published } else { refused });
            found.push((
                event.key.unwrap(),
                event.payload,
                event.headers.len(),
                event.carrier.is_empty(),
                event.defect,
            ));
        }
        held.settle(std::mem::take(&mut outcomes), &SettlePolicy { attempts_max: 1, ..POLICY }).await.unwrap();
    }
    let defect = |column: &str| Some(format!("column {column} cannot be read as text: it is too long or damaged"));
    let expected = [
        ("before", "1", 0, true, None),
        ("payload", "", 0, true, defect("payload")),
        ("headers", "2", 0, false, defect("headers")),
        ("carrier", "3", 1, true, None),
        ("behind", "4", 0, true, None),
    ];
    let expected = expected.map(|(key, payload, headers, carrier, defect)| {
        (key.to_owned(), bytes::Bytes::from(payload), headers, carrier, defect)
    });
    assert_eq!(found, expected);
    assert_eq!(count(&client, "outbox_events WHERE status = 'FAILED'").await, 2);
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_and_says_no_secret() {
    let away = "host=127.0.0.1 port=1 user=app password=s3cret dbname=shop";
    let store = PostgresStore::new(PostgresConfig::from_dsn(away).unwrap()).unwrap();
    let error = claim_now(&store, &limit()).await.expect_err("nothing listens there");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let health = store.check().await.unwrap_err();
    assert!(health.starts_with("cannot connect to PostgreSQL: "), "{health}");
    let migrate = store.migrate_up().await.unwrap_err();
    assert_eq!(migrate.kind(), StoreErrorKind::Unavailable);
    for shown in [error_chain(&error), health, error_chain(&migrate), format!("{store:?} {error:?} {migrate:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn a_revoked_privilege_is_loud_and_may_be_over_later() {
    let (database, client, store) = migrated_database().await;
    insert_old_style(&client, "1").await;
    let role = format!("weak_{}", database.name());
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON outbox_events TO {role}")).await.unwrap();
    let weak = database.dsn().replace("user=postgres", &format!("user={role}"));
    let weak = PostgresStore::new(PostgresConfig::from_dsn(&weak).unwrap()).unwrap();
    let error = claim_now(&weak, &limit()).await.expect_err("locking a row needs UPDATE");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(
        error_chain(&error).contains("permission denied for table outbox_events (SQLSTATE 42501)"),
        "{}",
        error_chain(&error)
    );
    client.batch_execute(&format!("GRANT UPDATE ON outbox_events TO {role}")).await.unwrap();
    assert!(claim_now(&weak, &limit()).await.unwrap().is_some());
    drop(weak);
    store.prune(Duration::ZERO, 1, None).await.unwrap();
}

#[tokio::test]
async fn every_statement_prepares() {
    let (_database, client, _) = migrated_database().await;
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gamemesh-outbox/src");
    let mut prepared = 0;
    for folder in ["store/postgres/sql", "producer/sql"] {
        for (name, statement) in statements(&library.join(folder)) {
            client.prepare(&statement).await.unwrap_or_else(|error| panic!("{name}: {}", error_chain(&error)));
            prepared += 1;
        }
    }
    assert!(prepared >= 17, "{prepared}");
}

/// Reads the statements of a folder. Where one says `{name}` it goes on as in the file of that name, which is then no
/// statement of its own.
fn statements(folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".sql").filter(|name| !name.starts_with("sqlite")) {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("-- "), "{name} says why it is as it is");
            files.insert(format!("{{{name}}}"), text);
        }
    }
    let mut statements = files.clone();
    statements.retain(|name, _| !files.values().any(|text| text.contains(name)));
    for statement in statements.values_mut() {
        while let Some((name, text)) = files.iter().find(|(name, _)| statement.contains(*name)) {
            *statement = statement.replace(name, text.trim_end());
        }
    }
    statements
}
