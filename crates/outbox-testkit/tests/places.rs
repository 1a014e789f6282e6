//! Places that are not what they were taken for: hosts that say nothing, poolers that drop settings, schemas that moved,
//! encodings, standbys.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use futures_util::future::join_all;
use gamemesh_outbox::error_chain;
use gamemesh_outbox::store::postgres::{MIGRATIONS, PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{ClaimLimit, HealthCheck, Prune, StoreError, StoreErrorKind};
use outbox_testkit::servers::{PgBouncer, PostgresServer, TestDatabase};
use outbox_testkit::{claim_now, wait_until};

fn store(dsn: &str) -> PostgresStore {
    PostgresStore::new(PostgresConfig::from_dsn(dsn).unwrap()).unwrap()
}

fn limit() -> ClaimLimit {
    let lifetime = Duration::from_secs(60);
    ClaimLimit {
        events: 100,
        bytes: 4 << 20,
        any_size: true,
        event_bytes: 1 << 20,
        lifetime,
        except: Vec::new(),
        except_ids: Vec::new(),
    }
}

/// Claims, and returns the topics of the claimed events.
async fn topics(store: &PostgresStore) -> Result<Vec<String>, StoreError> {
    let claim = claim_now(store, &limit()).await?;
    let topics = claim.map(|mut claim| claim.take_events().into_iter().map(|event| event.topic).collect());
    Ok(topics.unwrap_or_default())
}

/// A server that takes connections and says nothing. It tells of each whether all before it were closed when it came.
fn mute_server() -> (u16, Receiver<bool>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        let mut before: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let closed = before.iter_mut().all(|stream| stream.read_to_end(&mut Vec::new()).is_ok());
            before.push(stream);
            if sender.send(closed).is_err() {
                return;
            }
        }
    });
    (port, seen)
}

fn hosts(database: &TestDatabase, ports: &[u16], more: &str) -> String {
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    format!("host={hosts} port={ports} user=postgres dbname={} sslmode=disable {more}", database.name())
}

#[tokio::test]
async fn a_host_that_says_nothing_costs_its_share_of_the_time_once() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    store(&database.dsn()).migrate_up().await.unwrap();
    for more in ["", "connect_timeout=1"] {
        let (mute, seen) = mute_server();
        let store = store(&hosts(&database, &[mute, server.port()], more));
        store.check().await.unwrap();
        assert_eq!(topics(&store).await.unwrap(), [""; 0]);
        // More connections than one: they begin behind the host that failed.
        let held = join_all((0..4).map(|_| store.connection())).await;
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(seen.try_iter().count(), 1, "{more}");
    }
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{}?connect_timeout=1&sslmode=disable",
        mute_server().0,
        server.port(),
        database.name()
    );
    store(&url).check().await.unwrap();
}

#[tokio::test]
async fn tries_that_get_no_answer_are_closed_and_made_one_by_one() {
    let database = PostgresServer::shared().database().await;
    let (mute, seen) = mute_server();
    let store = store(&hosts(&database, &[mute], "connect_timeout=1"));
    let tries = join_all((0..4).map(|_| store.connection())).await;
    for error in tries.into_iter().map(|tried| tried.map(|_| ()).unwrap_err()) {
        let shown = error_chain(&error);
        assert!(shown.contains(&format!("127.0.0.1:{mute}: no answer within 1s")), "{shown}");
    }
    let closed: Vec<bool> = seen.try_iter().collect();
    assert_eq!(closed, [true; 4], "never two at a time");
}

#[tokio::test]
async fn every_address_that_failed_is_named_with_its_reason() {
    let (mute, _seen) = mute_server();
    let dsn = format!(
        "host=127.0.0.1,nowhere.invalid,127.0.0.1 port=1,5432,{mute} user=postgres password=s3cret sslmode=disable connect_timeout=1"
    );
    let error = store(&dsn).migration_status().await.unwrap_err();
    let shown = error_chain(&error);
    for part in [
        "cannot connect to PostgreSQL: ",
        "127.0.0.1:1: ",
        "onnection refused",
        "nowhere.invalid:5432: ",
        &format!("127.0.0.1:{mute}: no answer"),
    ] {
        assert!(shown.contains(part), "expected {part:?} in {shown}");
    }
    assert!(!shown.contains("s3cret"));
}

#[tokio::test]
async fn a_pooler_that_drops_settings_is_noticed_before_anything_is_done() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let sql = database.client().await;
    sql.batch_execute("CREATE SCHEMA shop").await.unwrap();
    for schema in ["public", "shop"] {
        let direct = store(&format!("{} search_path={schema}", database.dsn()));
        direct.migrate_up().await.unwrap();
        let publish = format!("SELECT {schema}.outbox_publish('events.{schema}', 'r', '1')");
        sql.batch_execute(&publish).await.unwrap();
    }
    let pooler =
        PgBouncer::start_with(&server, "ignore_startup_parameters = options,extra_float_digits\n").await.unwrap();
    let through = database.dsn_through(pooler.port());
    for asked in ["search_path=shop", "options='-c search_path=shop'", "options=-csearch_path=shop,pg_catalog"] {
        let store = store(&format!("{through} {asked}"));
        let error = topics(&store).await.unwrap_err();
        let shown = error_chain(&error);
        assert!(shown.contains("asked for search_path=shop") && shown.contains("ALTER ROLE"), "{asked}: {shown}");
        assert!(store.check().await.unwrap_err().contains("search_path"), "{asked}");
        store.migrate_up().await.expect_err("it would migrate another schema");
        store.prune(Duration::ZERO, 1, None).await.expect_err("it would prune another schema");
        assert!(store.connection().await.is_err(), "a producer would write into another schema");
    }
    // Another setting, which is a promise as well; and the same one in other words.
    let error = topics(&store(&format!("{through} statement_timeout=7s"))).await.unwrap_err();
    assert!(error_chain(&error).contains("asked for statement_timeout=7s, got \"0\""), "{}", error_chain(&error));
    sql.batch_execute(&format!("ALTER DATABASE {} SET statement_timeout = 7000", database.name())).await.unwrap();
    // The way out that the message names works without a restart.
    let store = store(&format!("{through} search_path=shop statement_timeout=7s"));
    let error = topics(&store).await.unwrap_err();
    assert!(error_chain(&error).contains("search_path"), "{}", error_chain(&error));
    sql.batch_execute(&format!("ALTER DATABASE {} SET search_path = shop", database.name())).await.unwrap();
    wait_until("the pooler's connections have the new default", async || {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        sql.query(end, &[]).await.unwrap();
        (topics(&store).await.ok()? == ["events.shop"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_renamed_schema_is_told_and_mended_by_migrating_and_no_neighbour_is_touched() {
    let database = PostgresServer::shared().database().await;
    let sql = database.client().await;
    let at = |schema: &str| store(&format!("{} search_path={schema}", database.dsn()));
    sql.batch_execute("CREATE SCHEMA shop").await.unwrap();
    let running = at("shop");
    running.migrate_up().await.unwrap();
    running.check().await.unwrap();
    sql.batch_execute("ALTER SCHEMA shop RENAME TO shop_v2").await.unwrap();
    let gone = running.check().await.unwrap_err();
    assert!(gone.contains("in schema shop_v2") && gone.contains("search_path"), "{gone}");
    sql.batch_execute("CREATE SCHEMA shop").await.unwrap();
    at("shop").migrate_up().await.unwrap();
    at("shop").check().await.unwrap();

    let moved = at("shop_v2");
    let error = moved.check_schema().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unusable);
    assert!(
        error.to_string().contains("works in search_path shop") && error.to_string().contains("migrate up"),
        "{error}"
    );
    assert!(moved.check().await.unwrap_err().contains("works in search_path shop"));
    sql.batch_execute("SELECT shop_v2.outbox_publish('events.stray', 'r', '1')").await.unwrap();
    assert_eq!(moved.migrate_up().await.unwrap(), [0; 0], "functions are code, and need no migration");
    moved.check().await.unwrap();
    assert_eq!(moved.mend().await.unwrap(), [""; 0], "nothing is left to mend");
    sql.batch_execute("SELECT shop_v2.outbox_publish('events.ours', 'r', '1')").await.unwrap();
    assert_eq!(topics(&moved).await.unwrap(), ["events.ours"]);
    assert_eq!(topics(&at("shop")).await.unwrap(), ["events.stray"]);
}

#[tokio::test]
async fn a_table_that_was_moved_away_from_its_functions_and_books_is_told_and_completed() {
    let database = PostgresServer::shared().database().await;
    let sql = database.client().await;
    let at = |path: &str| store(&format!("{} search_path={path}", database.dsn()));
    at("public").migrate_up().await.unwrap();
    sql.batch_execute("CREATE SCHEMA shop; ALTER TABLE outbox_events SET SCHEMA shop").await.unwrap();
    let error = at("public").check_schema().await.unwrap_err().to_string();
    assert!(error.contains("but in schema shop"), "{error}");
    let moved = at("shop,public");
    let error = moved.check_schema().await.unwrap_err().to_string();
    assert!(error.contains("is in schema shop, and function outbox_claim in schema public"), "{error}");
    assert!(error.contains("migrate up"), "{error}");
    moved.migrate_up().await.unwrap();
    moved.check_schema().await.unwrap();
    sql.batch_execute("SET search_path = shop, public; SELECT outbox_publish('events.ours', 'r', '1')").await.unwrap();
    assert_eq!(topics(&moved).await.unwrap(), ["events.ours"]);
}

/// A schema that comes before the outbox's in the search path would get a second outbox, empty, and hide the first.
#[tokio::test]
async fn no_second_outbox_is_made_in_front_of_the_one_that_is_used() {
    let database = PostgresServer::shared().database().await;
    let sql = database.client().await;
    store(&database.dsn()).migrate_up().await.unwrap();
    sql.batch_execute("CREATE SCHEMA postgres").await.unwrap();
    let error = store(&database.dsn()).migrate_up().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unusable);
    assert!(error.to_string().contains("is in schema public"), "{error}");
    store(&format!("{} search_path=public", database.dsn())).migrate_up().await.unwrap();
    store(&database.dsn()).check_schema().await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_made_again_under_a_store_is_missed_and_used_again() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let maintenance = server.database().await.client().await;
    let store = store(&database.dsn());
    store.migrate_up().await.unwrap();
    let name = database.name();
    maintenance.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    let gone = store.check().await.unwrap_err();
    assert!(gone.contains(&format!("database \"{name}\" does not exist")), "{gone}");
    maintenance.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let empty = store.check().await.unwrap_err();
    assert!(empty.contains("table outbox_events does not exist; hint: run outbox-relay migrate up"), "{empty}");
    store.migrate_up().await.unwrap();
    database.client().await.batch_execute("SELECT outbox_publish('events.again', 'r', '1')").await.unwrap();
    store.check().await.unwrap();
    assert_eq!(topics(&store).await.unwrap(), ["events.again"]);
}

#[tokio::test]
async fn no_new_outbox_is_made_where_not_every_character_can_be_written() {
    let server = PostgresServer::shared();
    for encoding in ["LATIN1", "SQL_ASCII", "LATIN2"] {
        let database = server.database_in(encoding).await;
        let dsn = database.dsn();
        let error = store(&dsn).migrate_up().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unusable);
        assert!(error.to_string().contains(&format!("server_encoding {encoding}")), "{error}");
        // One that is there already goes on: what it can hold is delivered.
        let sql = database.client().await;
        sql.batch_execute(MIGRATIONS[0].up).await.unwrap();
        let old = store(&dsn);
        old.migrate_up().await.unwrap();
        old.check_schema().await.unwrap();
        sql.batch_execute("SELECT outbox_publish('events.old', 'r', '1')").await.unwrap();
        assert_eq!(topics(&old).await.unwrap(), ["events.old"]);
    }
}

#[tokio::test]
async fn a_standby_is_named_and_left_for_the_primary() {
    let primary = PostgresServer::start().await.unwrap();
    let database = primary.database().await;
    store(&database.dsn()).migrate_up().await.unwrap();
    let standby = primary.standby().await.unwrap();
    let replica = standby.same_database(&database);
    wait_until("the standby has the database", async || replica.try_client().await.ok()).await;

    let alone = store(&replica.dsn());
    let problem = format!("127.0.0.1:{} is a standby", standby.port());
    assert!(alone.check().await.unwrap_err().contains(&problem));
    assert!(topics(&alone).await.unwrap_err().to_string().contains(&problem));
    assert!(alone.migrate_up().await.unwrap_err().to_string().contains(&problem));
    alone.migration_status().await.expect("reading works");
    for attributes in ["", "target_session_attrs=read-write", "target_session_attrs=primary"] {
        let both = store(&hosts(&database, &[standby.port(), primary.port()], attributes));
        both.check().await.unwrap_or_else(|error| panic!("{attributes}: {error}"));
    }
    let error = store(&hosts(&database, &[primary.port()], "target_session_attrs=standby")).check().await.unwrap_err();
    assert!(error.contains("expected target_session_attrs=standby, got a primary that takes writes"), "{error}");
    let standbys = store(&hosts(&database, &[primary.port(), standby.port()], "target_session_attrs=prefer-standby"));
    let error = standbys.connection().await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(&problem), "{error}");

    // A standby that becomes the primary is used without a restart.
    standby.promote().await.unwrap();
    wait_until("the new primary is used", async || alone.check().await.ok()).await;
    topics(&alone).await.unwrap();
}
