//! What a relay on PostgreSQL does while it waits, what it learns from looks that are dear, and how it goes on around rows that
//! cannot be read or removed.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::relay::{Relay, RelayConfig};
use gamemesh_outbox::store::postgres::{MIGRATIONS, PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{ClaimLimit, OnPublished, Outcome, Prune, SettlePolicy, Stays, Store};
use gamemesh_outbox::telemetry::Telemetry;
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use outbox_testkit::{claim_now, wait_until};
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_postgres::Client;
use uuid::Uuid;

const DELETE: SettlePolicy = SettlePolicy { attempts_max: 1, on_published: OnPublished::Delete };

fn config(database: &TestDatabase, name: &str) -> PostgresConfig {
    PostgresConfig::from_dsn(&format!("{} application_name={name}", database.dsn())).unwrap()
}

async fn migrated_database() -> (TestDatabase, Client, PostgresStore) {
    let database = PostgresServer::shared().database().await;
    let store = PostgresStore::new(config(&database, "test")).unwrap();
    store.migrate_up().await.unwrap();
    let client = database.client().await;
    (database, client, store)
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

/// Claims once, publishes what can be, and returns the payloads with the defects.
async fn carry(store: &PostgresStore) -> Vec<(String, Option<String>)> {
    let Ok(Some(mut claim)) = claim_now(store, &limit()).await else { return Vec::new() };
    let (mut outcomes, mut carried) = (Vec::new(), Vec::new());
    for event in claim.take_events() {
        let refused = Outcome::Charged { error: "refused".into(), retry_in: Duration::ZERO };
        outcomes.push(if event.defect.is_none() { Outcome::Published } else { refused });
        carried.push((String::from_utf8_lossy(&event.payload).into_owned(), event.defect));
    }
    // What cannot be settled in time comes back.
    if claim.settle(outcomes, &DELETE).await.is_ok() { carried } else { Vec::new() }
}

/// Starts relays as so many processes would be: each with a pool and a position of its own.
fn start_relays(relays: &mut JoinSet<()>, database: &TestDatabase, count: usize, relay: &RelayConfig) {
    for _ in 0..count {
        let store = PostgresStore::new(config(database, "relay")).unwrap();
        let relay = Relay::new(store, MemoryBus::default(), relay.clone(), Telemetry::new("test"));
        relays.spawn(async move { relay.run(std::future::pending()).await.unwrap() });
    }
}

/// Adds columns as a migration does that has little patience, and returns how many.
async fn change_the_table(client: &Client, columns: Range<u32>) -> u32 {
    client.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
    let (mut changed, mut every) = (0, interval(Duration::from_millis(100)));
    for column in columns {
        every.tick().await;
        let change = format!("ALTER TABLE outbox_events ADD COLUMN another_{column} int");
        changed += u32::from(client.batch_execute(&change).await.is_ok());
    }
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_can_be_changed_beside_five_relays_that_wait_or_work() {
    let (database, client, _) = migrated_database().await;
    let mut relays = JoinSet::new();
    start_relays(&mut relays, &database, 5, &RelayConfig::default());
    let connected = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'relay'";
    wait_until("every relay looks", async || (client.query(connected, &[]).await.unwrap().len() >= 5).then_some(()))
        .await;
    let idle = change_the_table(&client, 0..10).await;

    let producer = database.client().await;
    relays.spawn(async move {
        let mut every = interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            producer.batch_execute("SELECT outbox_publish('events.player', 'registered', '1')").await.unwrap();
        }
    });
    let published = "SELECT FROM outbox_events WHERE status = 'PUBLISHED' LIMIT 1";
    wait_until("events pass", async || client.query_opt(published, &[]).await.unwrap()).await;
    let busy = change_the_table(&client, 10..20).await;
    // Before, none of them succeeded. A machine that stands still for a moment costs one or two.
    assert!(idle >= 7 && busy >= 7, "of 10 changes each: {idle} beside idle relays, {busy} beside busy ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_asks_nothing_within_its_interval_and_has_no_transaction_open() {
    let (database, client, _) = migrated_database().await;
    let mut relays = JoinSet::new();
    let relay = RelayConfig { poll_interval: Duration::from_secs(3600), ..RelayConfig::default() };
    start_relays(&mut relays, &database, 1, &relay);
    client.batch_execute("SELECT outbox_publish('events.player', 'registered', '1')").await.unwrap();
    let published = "SELECT FROM outbox_events WHERE status = 'PUBLISHED'";
    wait_until("the event passes", async || client.query_opt(published, &[]).await.unwrap()).await;
    let silent = "SELECT FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'relay'
                  HAVING now() - max(query_start) > interval '4 seconds' AND bool_and(state = 'idle')";
    wait_until("nothing is asked any more", async || client.query_opt(silent, &[]).await.unwrap()).await;
}

#[tokio::test]
async fn a_wait_sees_what_comes_whatever_isolation_the_database_prefers() {
    let (database, client, store) = migrated_database().await;
    let name = database.name();
    let strict = format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'");
    client.batch_execute(&strict).await.unwrap();
    let store = {
        drop(store);
        PostgresStore::new(config(&database, "test")).unwrap()
    };
    for _ in 0..2 {
        let insert =
            async { client.batch_execute("SELECT outbox_publish('events.player', 'registered', '1')").await.unwrap() };
        let limit = limit();
        let (claimed, ()) = tokio::join!(store.claim(Duration::from_secs(3600), &limit), insert);
        let claim = claimed.unwrap().claim.expect("it is due");
        claim.settle(vec![Outcome::Published], &DELETE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_passes_dead_entries_that_cannot_be_walked_over_and_what_lies_among_them_is_found() {
    let (database, client, _) = migrated_database().await;
    let (witness, insert) =
        (database.client().await, "INSERT INTO outbox_events (id, event_type, topic, payload, available_at)");
    // With an old snapshot no dead entry goes away.
    witness.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_events").await.unwrap();
    client
        .batch_execute(&format!(
            "ALTER TABLE outbox_events SET (autovacuum_enabled = off);
             {insert} SELECT gen_random_uuid(), 'dead', 'events.player', '{{}}', now() - n * interval '1 ms'
                      FROM generate_series(1, 300000) AS n;
             DELETE FROM outbox_events;
             {insert} VALUES (gen_random_uuid(), 'live', 'events.player', '\"behind all\"', now() - interval '1 hour'),
                             (gen_random_uuid(), 'live', 'events.player', '\"among them\"', now() - interval '2 minutes');"
        ))
        .await
        .unwrap();
    // A relay that begins now, and whose looks may take no longer than a small part of the way.
    let mut config = config(&database, "test");
    config.statement_time = Some(Duration::from_millis(30));
    let store = PostgresStore::new(config).unwrap();
    let mut carried = Vec::new();
    for new in ["1", "2"] {
        client
            .batch_execute(&format!("{insert} VALUES (gen_random_uuid(), 'live', 'events.player', '{new}', now())"))
            .await
            .unwrap();
        wait_until("the new event passes", async || {
            carried.extend(carry(&store).await.into_iter().map(|(payload, _)| payload));
            carried.iter().any(|payload| payload == new).then_some(())
        })
        .await;
    }
    wait_until("the old ones are found", async || {
        carried.extend(carry(&store).await.into_iter().map(|(payload, _)| payload));
        (carried.len() == 4).then_some(())
    })
    .await;
    let carried: HashSet<&str> = carried.iter().map(String::as_str).collect();
    assert_eq!(carried, HashSet::from(["1", "2", r#""behind all""#, r#""among them""#]));
    witness.batch_execute("COMMIT").await.unwrap();
}

/// A database that lets bytes through that are no text of any encoding.
#[tokio::test]
async fn rows_of_bytes_that_are_no_text_become_defects_and_keep_no_other() {
    let database = PostgresServer::shared().database().await;
    let name = format!("{}_bytes", database.name());
    let client = database.client().await;
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'");
    client.batch_execute(&create).await.unwrap();
    let dsn = database.dsn().replace(database.name(), &name);
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for migration in MIGRATIONS {
        client.batch_execute(migration.up).await.unwrap();
    }
    client
        .batch_execute(
            r#"INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '1');
               INSERT INTO outbox_events (topic, event_type, payload) VALUES (E'bad\xff', 'b', '2');
               INSERT INTO outbox_events (topic, event_type, payload, headers) VALUES ('a', 'b', '3', E'{"h": "\xff"}');
               INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', E'"\xff"');
               INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '5');"#,
        )
        .await
        .unwrap();
    let store = PostgresStore::new(PostgresConfig::from_dsn(&dsn).unwrap()).unwrap();
    let carried: BTreeMap<String, bool> =
        carry(&store).await.into_iter().map(|(payload, defect)| (payload, defect.is_some())).collect();
    let expected = [("1", false), ("2", true), ("3", true), ("", true), ("5", false)];
    assert_eq!(carried, expected.map(|(payload, defect)| (payload.to_owned(), defect)).into_iter().collect());
    assert!(carry(&store).await.is_empty(), "they are set aside");
    drop((store, client));
    database.client().await.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
}

/// A payload whose pages are damaged on the disk.
#[tokio::test]
async fn a_damaged_row_becomes_a_defect_and_keeps_no_other() {
    let (_database, client, store) = migrated_database().await;
    client
        .batch_execute(
            "CREATE EXTENSION pg_surgery;
             ALTER TABLE outbox_events ALTER payload SET STORAGE EXTERNAL;
             INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '1');
             INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', to_jsonb(repeat('x', 5000)));
             INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '3');
             SELECT heap_force_kill(reltoastrelid::regclass, ARRAY['(0,1)']::tid[])
             FROM pg_class WHERE oid = 'outbox_events'::regclass",
        )
        .await
        .unwrap();
    let damaged = "column payload cannot be read as text: it is too long or damaged".to_owned();
    let expected = [("1".to_owned(), None), (String::new(), Some(damaged)), ("3".to_owned(), None)];
    assert_eq!(carry(&store).await, expected);
}

/// Inserts published rows, and returns their ids, oldest first.
async fn published(client: &Client, count: i32) -> Vec<Uuid> {
    let insert = "INSERT INTO outbox_events (event_type, topic, payload, status, published_at)
                  SELECT 'registered', 'events.player', '{}', 'PUBLISHED', now() - interval '1 hour' + n * interval '1 ms'
                  FROM generate_series(1, $1::int) AS n";
    client.execute(insert, &[&count]).await.unwrap();
    let ids = client.query("SELECT id FROM outbox_events ORDER BY published_at", &[]).await.unwrap();
    ids.iter().map(|row| row.get(0)).collect()
}

/// Whatever keeps a row in the table, it is named, and all others go in the same round.
#[tokio::test]
async fn a_published_row_that_stays_is_named_with_the_reason_and_keeps_no_other() {
    let trigger = |body: &str| {
        format!(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
             CREATE TRIGGER keep BEFORE DELETE ON outbox_events FOR EACH ROW WHEN (OLD.id = '{{id}}')
             EXECUTE FUNCTION keep()"
        )
    };
    let table = |more: &str| {
        format!(
            "CREATE TABLE inbox (event_id uuid REFERENCES outbox_events (id) {more});
             INSERT INTO inbox VALUES ('{{id}}')"
        )
    };
    let cases = [
        (table(""), "SQLSTATE 23503"),
        (table("DEFERRABLE INITIALLY DEFERRED"), "SQLSTATE 23503"),
        (trigger("RETURN NULL;"), "is there a trigger"),
        (trigger("RAISE 'this one is evidence';"), "this one is evidence (SQLSTATE P0001)"),
        (trigger("PERFORM 1 / 0; RETURN OLD;"), "SQLSTATE 22012"),
    ];
    for (keeps, reason) in cases {
        let (_database, client, store) = migrated_database().await;
        let ids = published(&client, 500).await;
        client.batch_execute(&keeps.replace("{id}", &ids[3].to_string())).await.unwrap();
        let pruned = store.prune(Duration::from_secs(60), 1000, None).await.unwrap();
        let [Stays { id, reason: got }] = &pruned.stay[..] else { panic!("{keeps}: {pruned:?}") };
        assert_eq!((*id, pruned.removed), (ids[3], 499), "{keeps}");
        assert!(got.contains(reason), "{keeps}: {got}");
    }
}
