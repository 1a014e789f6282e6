//! Every command says of a place that it is not what was asked for, and does nothing there.

use outbox_testkit::servers::{PgBouncer, PostgresServer, RedisServer, free_port};
use outbox_testkit::wait_until;

use crate::program::{Relay, run, transcript};

/// What each command does with a database: those that write, and those that read.
const COMMANDS: [&[&str]; 6] = [
    &["migrate", "up"],
    &["migrate", "status"],
    &["status"],
    &["emit", "--topic", "events.player", "--payload", "1"],
    &["dead-letters", "list"],
    &["dead-letters", "requeue", "--all", "--reason", "again", "--yes"],
];

/// Runs each command, expects an exit code, and returns what they printed.
fn every_command(environment: &[(&str, &str)], code: i32) -> Vec<String> {
    COMMANDS
        .iter()
        .map(|command| {
            let output = run(command, environment);
            let text = transcript(&output);
            assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
            text
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_path_that_a_pooler_drops_stops_every_command_and_readiness() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let sql = database.client().await;
    sql.batch_execute("CREATE SCHEMA shop").await.unwrap();
    let public = database.url();
    let shop = format!("{public}?search_path=shop");
    for (url, schema) in [(&public, "public"), (&shop, "shop")] {
        assert!(run(&["migrate", "up"], &[("DATABASE_URL", url)]).status.success());
        sql.batch_execute(&format!("SELECT {schema}.outbox_publish('events.{schema}', 'r', '1')")).await.unwrap();
    }
    let pooler = PgBouncer::start_with(&server, "ignore_startup_parameters = options\n").await.unwrap();
    let through = shop.replace(&format!(":{}/", server.port()), &format!(":{}/", pooler.port()));
    let environment = [("DATABASE_URL", through.as_str()), ("EVENT_BUS", "stdout"), ("OUTBOX_POLL_INTERVAL", "20ms")];
    for text in every_command(&environment, 1) {
        assert!(text.contains("search_path=shop") && text.contains("ALTER ROLE"), "{text}");
    }
    let relay = Relay::start(&environment);
    let logged = relay.wait_for_log("search_path=shop");
    assert!(!logged.contains("relay running"), "{logged}");
    let (head, body) = relay.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 503") && body.contains("search_path=shop"), "{head}\n{body}");
    let waiting = "SELECT (SELECT count(*) FROM public.outbox_events WHERE status = 'PENDING'),
                          (SELECT count(*) FROM shop.outbox_events WHERE status = 'PENDING')";
    let row = sql.query_one(waiting, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1), "nothing was done in either schema");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_schema_ends_a_relay_with_a_hint_and_migrating_mends_it() {
    let database = PostgresServer::shared().database().await;
    let sql = database.client().await;
    let url = |schema: &str| format!("{}?search_path={schema}", database.url());
    let (old, new) = (url("shop"), url("shop_v2"));
    sql.batch_execute("CREATE SCHEMA shop").await.unwrap();
    assert!(run(&["migrate", "up"], &[("DATABASE_URL", &old)]).status.success());
    sql.batch_execute("ALTER SCHEMA shop RENAME TO shop_v2; CREATE SCHEMA shop").await.unwrap();
    assert!(run(&["migrate", "up"], &[("DATABASE_URL", &old)]).status.success());

    let environment = [("DATABASE_URL", new.as_str()), ("EVENT_BUS", "stdout"), ("HTTP_PORT", "0")];
    let ended = run(&["run"], &environment);
    let text = transcript(&ended);
    assert_eq!(ended.status.code(), Some(3), "{text}");
    assert!(text.contains("works in search_path shop") && text.contains("outbox-relay migrate up"), "{text}");
    let doctor = transcript(&run(&["doctor"], &environment));
    assert!(doctor.contains("works in search_path shop"), "{doctor}");

    let mended = transcript(&run(&["migrate", "up"], &environment));
    assert!(
        mended.contains("mended: shop_v2.outbox_publish(") || mended.contains("mended: outbox_publish("),
        "{mended}"
    );
    assert!(transcript(&run(&["migrate", "up"], &environment)).contains("nothing to do"));
    sql.batch_execute("SELECT shop_v2.outbox_publish('events.ours', 'r', '1')").await.unwrap();
    let relay = Relay::start(&environment);
    relay.wait_for_stdout("events.ours");
    assert!(relay.get("/readyz").0.starts_with("HTTP/1.1 200"));

    // And once more, under the relay.
    sql.batch_execute("ALTER SCHEMA shop_v2 RENAME TO shop_v3").await.unwrap();
    wait_until("the relay is not ready, and says why", async || {
        let (head, body) = relay.get("/readyz");
        (head.starts_with("HTTP/1.1 503") && body.contains("outbox_")).then_some(())
    })
    .await;
}

#[test]
fn every_command_names_the_words_that_it_does_not_obey() {
    let words =
        [("connection_limit", "1"), ("pool_timeout", "10"), ("schema", "public"), ("passfile", "x"), ("sslcrl", "x")];
    let url: Vec<String> = words.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let url = format!("postgres://u:s3cret@127.0.0.1/db?pgbouncer=true&{}", url.join("&"));
    let keywords: Vec<String> = words.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let keywords = format!("host=127.0.0.1 user=u password=s3cret dbname=db {}", keywords.join(" "));
    for setting in [("DATABASE_URL", url.as_str()), ("POSTGRES_DSN", keywords.as_str())] {
        for text in every_command(&[setting, ("EVENT_BUS", "stdout")], 2) {
            for (word, _) in words {
                assert!(text.contains(&format!("{word} ")), "expected {word} in {text}");
            }
            assert!(!text.contains("s3cret") && !text.contains("pgbouncer"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_drops_a_promise_about_the_connection() {
    let database = PostgresServer::shared().database().await;
    assert!(run(&["migrate", "up"], &[("DATABASE_URL", &database.url())]).status.success());
    let url = format!("{}?sslmode=disable&channel_binding=require", database.url());
    for text in every_command(&[("DATABASE_URL", &url), ("EVENT_BUS", "stdout")], 1) {
        assert!(text.contains("channel binding"), "{text}");
    }
    let url = format!("{}?sslmode=disable&target_session_attrs=standby", database.url());
    for text in every_command(&[("DATABASE_URL", &url), ("EVENT_BUS", "stdout")], 1) {
        assert!(text.contains("expected target_session_attrs=standby, got a primary"), "{text}");
    }
}

#[test]
fn servers_that_are_away_are_named_with_host_and_port() {
    let (database, bus) = (free_port(), free_port());
    let dsn = format!("host=127.0.0.1,nowhere.invalid port={database},5433 user=relay sslmode=disable");
    let url = format!("redis://127.0.0.1:{bus}");
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "redis"), ("REDIS_URL", url.as_str())];
    let text = transcript(&run(&["status"], &environment));
    for server in [format!("127.0.0.1:{database}: "), "nowhere.invalid:5433: ".to_owned(), format!("127.0.0.1:{bus}: ")]
    {
        assert!(text.contains(&server), "expected {server} in {text}");
    }
    let relay = Relay::start(&environment);
    let logged = relay.wait_for_log("database not reachable yet");
    assert!(logged.contains("nowhere.invalid:5433: ") && logged.contains("onnection refused"), "{logged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_is_refused_by_name() {
    let port = free_port().to_string();
    let node = RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-port", &port]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let database = crate::program::sqlite(folder.path());
    let url = node.url();
    let environment = [("DATABASE_URL", database.as_str()), ("EVENT_BUS", "redis"), ("REDIS_URL", url.as_str())];
    assert!(run(&["migrate", "up"], &environment).status.success());
    let relay = Relay::start(&environment);
    relay.wait_for_log("relay running");
    let (head, body) = relay.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 503") && body.contains("Redis Cluster"), "{head}\n{body}");
    let doctor = transcript(&run(&["doctor"], &environment));
    assert!(doctor.contains("redis.mode") && doctor.contains("Redis Cluster"), "{doctor}");
}
