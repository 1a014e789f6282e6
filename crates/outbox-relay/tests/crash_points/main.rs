//! A relay that ends as `kill -9` ends it, at each place where that could matter: nothing is lost, charged or left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use gamemesh_outbox::store::dead_letters::Action;
use gamemesh_outbox::store::postgres::MIGRATIONS;
use nix::sys::signal::Signal;
use outbox_testkit::chaos::{Replica, Rig, RigConfig};
use outbox_testkit::checker::{Seen, check};
use outbox_testkit::history::{Fault, wall_clock};
use outbox_testkit::servers::PostgresServer;
use outbox_testkit::wait_until;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_outbox-relay");
const TOKEN: &str = "a-token-for-these-tests";
/// Places that a relay comes by while it works, each for the n-th time.
const WORKING: [(&str, u32); 13] = [
    ("claim.before", 3),
    ("claim.after", 2),
    ("nats.sent", 20),
    ("nats.acknowledged", 20),
    ("publish.after", 2),
    ("settle.before", 2),
    ("settle.charged", 1),
    ("settle.charged", 3),
    ("settle.written", 2),
    ("settle.committed", 2),
    ("settle.after", 2),
    ("prune.before", 1),
    ("prune.after", 1),
];

/// Chooses a place for the environment variable `FAILPOINTS`.
fn crash_at(point: &str, time: u32) -> String {
    match time - 1 {
        0 => format!("{point}=return"),
        before => format!("{point}={before}*off->return"),
    }
}

fn config(folder: &Path) -> RigConfig {
    RigConfig {
        relays: 2,
        dedup_window: Duration::from_millis(100),
        settings: vec![("OUTBOX_ADMIN_TOKEN".to_owned(), TOKEN.to_owned())],
        ..RigConfig::new(PROGRAM, folder)
    }
}

/// Waits until the process of `replica` has been killed, and records that.
async fn killed(rig: &Rig, replica: &Replica, point: &str) {
    let at = wall_clock();
    let (run, status) = replica.wait().await.unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{point}: expected the end at this point, got {status}");
    rig.record(at, Fault::Kill(run), point);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_at_any_point_loses_nothing_and_explains_every_copy() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::start(&config(folder.path())).await.unwrap();
    for number in 1..=2 {
        rig.add_producer(format!("producer-{number}"), fastrand::Rng::with_seed(number), 10);
    }
    let (victim, other) = (&rig.replicas()[0], &rig.replicas()[1]);
    other.start(&[]).await.unwrap();
    for (point, time) in WORKING {
        victim.start(&[("FAILPOINTS", &crash_at(point, time))]).await.unwrap();
        killed(&rig, victim, point).await;
    }

    let sql = rig.database().client().await;
    for (action, point) in [
        (Action::Requeue, "change.written"),
        (Action::Requeue, "change.committed"),
        (Action::Discard, "change.written"),
        (Action::Discard, "change.committed"),
    ] {
        let failed = "SELECT FROM outbox_events WHERE status = 'FAILED' LIMIT 1";
        wait_until("an event is set aside", async || sql.query_opt(failed, &[]).await.unwrap()).await;
        victim.start(&[("FAILPOINTS", &crash_at(point, 1))]).await.unwrap();
        let (at, request_id) = (wall_clock(), Uuid::now_v7());
        let request = json!({ "everything": true, "reason": "an experiment", "request_id": request_id });
        victim.get("/healthz").await.unwrap();
        wait_until("the relay is connected", async || victim.get("/readyz").await.ok()).await;
        victim.change(action, TOKEN, &request).await.expect_err("killed before it answers");
        rig.record(at, Fault::Operator { request_id, action, ids: None }, point);
        killed(&rig, victim, point).await;
    }

    victim.start(&[("FAILPOINTS", &crash_at("stop.draining", 1))]).await.unwrap();
    wait_until("the relay is connected", async || victim.get("/readyz").await.ok()).await;
    victim.signal(Signal::SIGTERM).await.unwrap();
    killed(&rig, victim, "stop.draining").await;

    // Some are rolled back.
    let inserted = "SELECT FROM pg_stat_user_tables WHERE relname = 'outbox_events' AND n_tup_ins > 2000";
    wait_until("enough events", async || sql.query_opt(inserted, &[]).await.unwrap()).await;
    rig.come_to_rest().await.unwrap();
    let report = check(&rig.finish().await.unwrap());
    assert!(report.is_clean(), "{report}");
    let kills = WORKING.len() as u64 + 5;
    // The other relay takes over so soon that the bus still knows the ids of most copies.
    let least = [(Seen::Kills, kills), (Seen::Events, 1_000), (Seen::AckedAsDuplicate, 1)];
    assert!(report.shortfalls(&least).is_empty(), "{:?}\n{report}", report.shortfalls(&least));
}

#[tokio::test]
async fn a_migration_killed_half_way_is_taken_up_again() {
    let server = PostgresServer::start().await.unwrap();
    for (point, time) in [("migrate.applied", 1), ("migrate.applied", 3), ("migrate.committed", 1)] {
        let database = server.database().await;
        let migrate = |failpoints: String| {
            let mut command = Command::new(PROGRAM);
            command.args(["migrate", "up"]).env_clear().env("POSTGRES_DSN", database.dsn());
            command.env("FAILPOINTS", failpoints).output()
        };
        let killed = migrate(crash_at(point, time)).await.unwrap();
        assert_eq!(killed.status.signal(), Some(Signal::SIGKILL as i32), "{point} {time}: {killed:?}");
        let again = migrate(String::new()).await.unwrap();
        assert!(again.status.success(), "{point} {time}: {again:?}");
        let sql = database.client().await;
        let applied: i64 = sql.query_one("SELECT count(*) FROM outbox_migrations", &[]).await.unwrap().get(0);
        assert_eq!(applied, i64::try_from(MIGRATIONS.len()).unwrap(), "{point} {time}");
        sql.batch_execute("SELECT outbox_publish('events.player', 'registered', '{}')").await.unwrap();
    }
}
