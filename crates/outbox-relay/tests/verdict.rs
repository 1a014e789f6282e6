//! Ready means that it works: faults of both sides begin and end, most of them while nothing is due, and `/readyz`, the
//! gauges, the API and `status` say the same, within ten seconds.

use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer, TestDatabase, free_port};
use outbox_testkit::wait_until;
use serde_json::Value;
use sqlx::{Connection, SqliteConnection};
use tokio_postgres::Client;

use crate::documents::{read, root};
use crate::probe::{Settings, environment};
use crate::program::{Relay, run, sqlite, transcript};

/// A verdict is right within this time of a fault's begin and of its end.
const WITHIN: Duration = Duration::from_secs(10);

/// A relay that may do what `roles.sql` allows it, on a database of its own server, and Redis.
struct Scene {
    server: PostgresServer,
    database: TestDatabase,
    admin: Client,
    redis: RedisServer,
    relay: Relay,
}

impl Scene {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(more: &[(&'static str, &str)]) -> Self {
        let server = PostgresServer::start().await.unwrap();
        let database = server.database().await;
        let redis = RedisServer::start().await.unwrap();
        let migrated = run(&["migrate", "up"], &[("POSTGRES_DSN", &database.dsn())]);
        assert!(migrated.status.success(), "{}", transcript(&migrated));
        let admin = database.client().await;
        admin.batch_execute(&read(&root().join("deployments/postgres/roles.sql"))).await.unwrap();
        admin.batch_execute("CREATE ROLE carrier LOGIN; GRANT outbox_relay, outbox_deleter TO carrier").await.unwrap();
        let dsn = database.dsn().replace("user=postgres", "user=carrier");
        let mut settings = vec![("POSTGRES_DSN", dsn), ("EVENT_BUS", "redis".to_owned()), ("REDIS_URL", redis.url())];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let relay = start(&settings);
        let scene = Self { server, database, admin, redis, relay };
        scene.until_ready("at the start").await;
        scene
    }

    async fn sql(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Waits until the relay is not ready because of `side`, and says what it says.
    async fn until_not_ready(&self, fault: &str, side: &str, said: &str) -> Value {
        let began = Instant::now();
        // What was under way when it began may say something else first.
        let readiness = wait_until(&format!("{fault}: not ready because of {said:?}"), async || {
            let (head, readiness) = agreed(&self.relay);
            let says_it = readiness["reason"].as_str().is_some_and(|reason| reason.contains(said));
            (head.contains(" 503") && readiness[side]["ok"] == false && says_it).then_some(readiness)
        })
        .await;
        assert!(began.elapsed() < WITHIN, "{fault}: {:?}", began.elapsed());
        let reason = readiness["reason"].as_str().unwrap();
        assert!(readiness[side]["since"].is_string() && reason.contains("outbox-relay doctor"), "{readiness}");
        readiness
    }

    async fn until_ready(&self, fault: &str) {
        let began = Instant::now();
        wait_until(&format!("{fault}: ready"), async || agreed(&self.relay).0.contains(" 200").then_some(())).await;
        assert!(began.elapsed() < WITHIN, "{fault}: {:?}", began.elapsed());
    }

    async fn fault(&self, fault: &str, side: &str, said: &str, end: &str) {
        self.sql(fault).await;
        self.until_not_ready(fault, side, said).await;
        self.sql(end).await;
        self.until_ready(fault).await;
    }

    /// Runs a command on this database and bus as somebody who may do everything, and who asks the relay.
    fn ask(&self, command: &str, at: &str) -> Output {
        let (dsn, redis) = (self.database.dsn(), self.redis.url());
        let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "redis"), ("REDIS_URL", &redis)];
        run(&[command, "--relay", at], &environment)
    }
}

fn start(settings: &Settings) -> Relay {
    let relay = Relay::start(&environment(settings));
    relay.wait_for_log("relay running");
    relay
}

/// Returns what `/readyz` says, having compared the gauges and the API with it. Between two questions a fault may begin or
/// end, so that what differs is asked again.
fn agreed(relay: &Relay) -> (String, Value) {
    let mut last = String::new();
    for _ in 0..3 {
        let (head, body) = relay.get("/readyz");
        let readiness: Value = serde_json::from_str(&body).unwrap();
        let metrics = relay.get("/metrics").1;
        let state: Value = serde_json::from_str(&relay.get("/api/v1/state").1).unwrap();
        let up = |side: &str| metrics.contains(&format!("gamemesh_outbox_{side}_up{{service=\"outbox-relay\"}} 1\n"));
        let same = ["store", "bus"].iter().all(|side| {
            let ok = readiness[side]["ok"] == true;
            up(side) == ok && (state[format!("{side}_up")] == true) == ok && state["readiness"][side]["ok"] == ok
        });
        if same {
            return (head, readiness);
        }
        last = format!("{readiness}\n{state}\n{metrics}");
    }
    panic!("one verdict everywhere, got\n{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_withholds_is_known_while_nothing_is_due() {
    let scene = Scene::new().await;
    let revoke = "REVOKE UPDATE (status) ON outbox_events FROM outbox_relay";
    scene.fault(revoke, "store", "permission denied", "GRANT UPDATE (status) ON outbox_events TO outbox_relay").await;
    // An older relay calls another one of that name.
    let newest =
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'outbox_claim' ORDER BY pronargs DESC LIMIT 1";
    let function: String = scene.admin.query_one(newest, &[]).await.unwrap().get(0);
    let (revoke, grant) = (
        format!("REVOKE EXECUTE ON FUNCTION {function} FROM outbox_relay"),
        format!("GRANT EXECUTE ON FUNCTION {function} TO outbox_relay"),
    );
    scene.fault(&revoke, "store", "42501", &grant).await;
    let (rename, back) = (
        format!("ALTER FUNCTION {function} RENAME TO moved"),
        format!("ALTER FUNCTION {} RENAME TO outbox_claim", function.replacen("outbox_claim", "moved", 1)),
    );
    scene.fault(&rename, "store", "does not exist", &back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_deletes_is_asked_whether_it_may() {
    let scene = Scene::with(&[("OUTBOX_ON_PUBLISHED", "delete")]).await;
    let revoke = "REVOKE DELETE ON outbox_events FROM outbox_deleter, outbox_relay";
    scene.fault(revoke, "store", "permission denied", "GRANT DELETE ON outbox_events TO outbox_deleter").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_is_known_while_nothing_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let settings = vec![("DATABASE_URL", sqlite(folder.path())), ("EVENT_BUS", "stdout".to_owned())];
    let migrated = run(&["migrate", "up"], &environment(&settings));
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    let relay = start(&settings);
    let says = async |wanted: &str| {
        let began = Instant::now();
        let what = format!("/readyz says {wanted:?}");
        wait_until(&what, async || {
            let (head, readiness) = agreed(&relay);
            format!("{head} {readiness}").contains(wanted).then_some(())
        })
        .await;
        assert!(began.elapsed() < WITHIN, "{what}: {:?}", began.elapsed());
    };
    says(" 200").await;
    let mut sql = SqliteConnection::connect(&sqlite(folder.path())).await.unwrap();
    for (fault, said, end) in [
        ("BEGIN IMMEDIATE", "another writer has kept the lock", "ROLLBACK"),
        (
            "ALTER TABLE outbox_events RENAME COLUMN published_at TO sent_at",
            "no such column: published_at",
            "ALTER TABLE outbox_events RENAME COLUMN sent_at TO published_at",
        ),
    ] {
        sqlx::query(fault).execute(&mut sql).await.unwrap();
        says(said).await;
        sqlx::query(end).execute(&mut sql).await.unwrap();
        says(" 200").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_doctor_say_what_the_relay_says_whatever_they_see_themselves() {
    let scene = Scene::new().await;
    let at = format!("http://{}", scene.relay.address());
    let well = scene.ask("status", &at);
    assert!(well.status.success() && transcript(&well).contains("ready (http://"), "{}", transcript(&well));
    let revoke = "REVOKE UPDATE (status) ON outbox_events FROM outbox_relay";
    scene.sql(revoke).await;
    scene.until_not_ready(revoke, "store", "42501").await;

    let status = scene.ask("status", &at);
    let text = transcript(&status);
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("reachable from here, but the relay cannot use it"), "{text}");
    assert!(text.contains("NOT READY") && text.contains("42501"), "{text}");
    let doctor = scene.ask("doctor", &at);
    let text = transcript(&doctor);
    assert_eq!(doctor.status.code(), Some(1), "{text}");
    assert!(text.contains("error    relay.ready: NOT READY") && text.contains("42501"), "{text}");
    // The other one is the server's fsync, which tests leave off.
    assert!(text.contains("\n2 errors, "), "{text}");

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let status = scene.ask("status", &nobody);
    let text = transcript(&status);
    assert!(status.status.success() && text.contains(&format!("none answers on {nobody}")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_and_a_failover_are_known_while_nothing_is_due() {
    let mut scene = Scene::new().await;
    scene.fault("BEGIN; LOCK TABLE outbox_events", "store", "lock timeout", "COMMIT").await;
    scene.server.demote().await.unwrap();
    scene.until_not_ready("on a standby", "store", "standby").await;
    scene.server.promote().await.unwrap();
    scene.until_ready("on the primary").await;
}

/// A foreign key locks rows in this way; nothing fails, and the oldest event waits for as long as it lasts.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_somebody_else_holds_are_told_with_who_it_is_and_what_ends_it() {
    let scene = Scene::new().await;
    let locker = scene.database.client().await;
    let pid: i32 = locker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let due = |held: bool, when: &str| {
        format!(
            "INSERT INTO outbox_events (id, event_type, topic, payload, event_key, available_at)
             VALUES (gen_random_uuid(), 'registered', 'events.player', '{{}}', '{held}', {when})"
        )
    };
    // Nobody claims what is due only later, so that the lock comes first.
    scene.sql(&due(true, "now() + interval '1 day'")).await;
    locker.batch_execute("BEGIN; SELECT FROM outbox_events FOR KEY SHARE").await.unwrap();
    scene.sql("UPDATE outbox_events SET available_at = now() - interval '1 hour'").await;
    scene.sql(&due(false, "now()")).await;

    let troubles = || -> Value { serde_json::from_str(&scene.relay.get("/api/v1/troubles").1).unwrap() };
    let name = format!("pid {pid}");
    let held = wait_until("it is told", async || {
        troubles()["troubles"].as_array().unwrap().iter().find(|trouble| trouble["name"] == name.as_str()).cloned()
    })
    .await;
    let reason = held["reason"].as_str().unwrap();
    let end = format!("SELECT pg_terminate_backend({pid});");
    assert!(held["kind"] == "held" && reason.contains("holds 1 of the oldest") && reason.ends_with(&end), "{held}");
    assert!(agreed(&scene.relay).0.contains(" 200"), "the others go through");
    assert!(scene.relay.get("/metrics").1.contains("kind=\"held\"} 1\n"));
    let at = format!("http://{}", scene.relay.address());
    let doctor = run(
        &["doctor", "--relay", &at, "--long-transaction", "1ms"],
        &[("POSTGRES_DSN", &scene.database.dsn()), ("EVENT_BUS", "redis"), ("REDIS_URL", &scene.redis.url())],
    );
    let doctor = transcript(&doctor);
    assert!(doctor.contains("warning  postgres.held: somebody holds 1 of the oldest"), "{doctor}");
    assert!(doctor.contains("outboxeventsheld"), "{doctor}");

    let unpublished = "SELECT coalesce(string_agg(event_key, ','), '') FROM outbox_events WHERE status <> 'PUBLISHED'";
    let waiting = async || scene.admin.query_one(unpublished, &[]).await.unwrap().get::<_, String>(0);
    wait_until("the neighbour is out", async || (waiting().await == "true").then_some(())).await;
    scene.sql(&end).await;
    wait_until("the event is out", async || waiting().await.is_empty().then_some(())).await;
    wait_until("no trouble is left", async || troubles()["troubles"].as_array().unwrap().is_empty().then_some(()))
        .await;
}

/// A setting of the database that no client can see until it writes.
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_that_cannot_be_written_are_known_while_nothing_is_due() {
    let scene = Scene::new().await;
    scene.sql("CREATE PUBLICATION all_of_it FOR TABLE outbox_events").await;
    let (nothing, key) = ("REPLICA IDENTITY NOTHING", "REPLICA IDENTITY DEFAULT");
    let alter = |identity: &str| format!("ALTER TABLE outbox_events {identity}");
    scene.fault(&alter(nothing), "store", "replica identity", &alter(key)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_freezes_or_dies_is_known_while_nothing_is_due() {
    let mut scene = Scene::new().await;
    scene.redis.process().signal(Signal::SIGSTOP).unwrap();
    scene.until_not_ready("frozen", "bus", "answer").await;
    scene.redis.process().signal(Signal::SIGCONT).unwrap();
    scene.until_ready("thawed").await;
    scene.redis.kill();
    scene.until_not_ready("killed", "bus", "events wait in the table").await;
    scene.redis.restart().await.unwrap();
    scene.until_ready("back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_asks_once_an_hour_is_asked_by_its_probe() {
    let mut nats = NatsServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    let settings =
        vec![("DATABASE_URL", database), ("NATS_URL", nats.url()), ("OUTBOX_POLL_INTERVAL", "1h".to_owned())];
    let migrated = run(&["migrate", "up"], &environment(&settings));
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    let relay = start(&settings);
    wait_until("ready", async || agreed(&relay).0.contains(" 200").then_some(())).await;
    nats.process().signal(Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    wait_until("frozen", async || agreed(&relay).0.contains(" 503").then_some(())).await;
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
    nats.process().signal(Signal::SIGCONT).unwrap();
    let began = Instant::now();
    wait_until("thawed", async || agreed(&relay).0.contains(" 200").then_some(())).await;
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
}
