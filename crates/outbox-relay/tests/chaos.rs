//! Real servers, relays and producers, broken in every way that one can think of, and every record held against the
//! promises. `scripts/chaos` does the same for longer, at random.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gamemesh_outbox::bus::nats::NatsReader;
use nix::unistd::Uid;
use outbox_testkit::chaos::Kind::*;
use outbox_testkit::chaos::{ChaosConfig, Kind, Rig, RigConfig, run};
use outbox_testkit::checker::{Report, Seen, check};
use outbox_testkit::history::collect::bus;
use outbox_testkit::servers::{NatsServer, PostgresServer};
use outbox_testkit::wait_until;
use tempfile::TempDir;
use uuid::Uuid;

use crate::program;

const PROGRAM: &str = env!("CARGO_BIN_EXE_outbox-relay");

fn setting(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Injects `kinds` one after the other. After each, events have to move again.
async fn withstand(config: RigConfig, kinds: &[Kind], least: &[(Seen, u64)]) -> Report {
    let mut random = fastrand::Rng::with_seed(1);
    let mut rig = Rig::start(&config).await.unwrap();
    rig.start_replicas().await.unwrap();
    for number in 1..=2 {
        rig.add_producer(format!("producer-{number}"), fastrand::Rng::with_seed(number), 10);
    }
    events_move(&rig).await;
    for kind in kinds {
        rig.inject(*kind, &mut random).await.unwrap();
        events_move(&rig).await;
    }
    rig.come_to_rest().await.unwrap();
    let report = check(&rig.finish().await.unwrap());
    assert!(report.is_clean(), "{report}");
    let least = [least, &[(Seen::Published, 100)]].concat();
    assert!(report.shortfalls(&least).is_empty(), "{:?}\n{report}", report.shortfalls(&least));
    report
}

/// Waits until an event is published that was inserted after this call.
async fn events_move(rig: &Rig) {
    let sql = wait_until("the database is back", async || rig.database().try_client().await.ok()).await;
    let now: jiff::Timestamp = sql.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0);
    let published = "SELECT FROM outbox_events WHERE status = 'PUBLISHED' AND created_at > $1 LIMIT 1";
    wait_until("events move", async || sql.query_opt(published, &[&now]).await.unwrap()).await;
}

fn config(folder: &TempDir) -> RigConfig {
    RigConfig { relays: 2, ..RigConfig::new(PROGRAM, folder.path()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_break_no_promise() {
    let folder = TempDir::new().unwrap();
    let rig = RigConfig::new(PROGRAM, folder.path());
    let config = ChaosConfig { rig, duration: Duration::from_secs(40), seed: 11, producers: 3, events_max: 10 };
    let report = run(&config).await.unwrap();
    assert!(report.is_clean(), "{report}");
    let least = [(Seen::Kills, 3), (Seen::Outages, 1), (Seen::Events, 1_000), (Seen::AbortedTransactions, 10)];
    assert!(report.checked.shortfalls(&least).is_empty(), "{:?}\n{report}", report.checked.shortfalls(&least));
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_withstand_a_database_in_trouble() {
    let folder = TempDir::new().unwrap();
    let mut config = config(&folder);
    // Under a stricter isolation than they ask for, claims and settlements would fail.
    config.database_settings.push(setting("default_transaction_isolation", "serializable"));
    let kinds = [
        UseUpConnections,
        Deadlock,
        LockTable,
        EndSessions,
        CrashDatabase,
        ReadOnlyDatabase,
        CutRelayFromDatabase,
        DeafenRelayToDatabase,
    ];
    withstand(config, &kinds, &[(Seen::Outages, 4), (Seen::SessionsEnded, 2), (Seen::Cuts, 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_withstand_a_bus_in_trouble() {
    let folder = TempDir::new().unwrap();
    let kinds = [FillStream, DenyPublishing, FreezeBus, KillBus, SlowBus, SlowLink, CutRelayFromBus, DeafenRelayToBus];
    let least = [(Seen::Outages, 3), (Seen::Freezes, 1), (Seen::Cuts, 3), (Seen::Unavailable, 1), (Seen::Unknown, 1)];
    withstand(config(&folder), &kinds, &least).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_withstand_signals_at_any_time() {
    let folder = TempDir::new().unwrap();
    let kinds = [StopRelay, KillRelay, FreezeRelay, KillEveryRelay, StopRelay, Requeue, StopRelay, Discard];
    withstand(config(&folder), &kinds, &[(Seen::Kills, 3), (Seen::Stops, 5), (Seen::Freezes, 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_behind_a_pooler_withstand_its_death() {
    let folder = TempDir::new().unwrap();
    let config = RigConfig { pooled: true, ..config(&folder) };
    let kinds = [KillPooler, EndSessions, CutRelayFromDatabase, KillRelay, CrashDatabase];
    withstand(config, &kinds, &[(Seen::SessionsEnded, 2), (Seen::Outages, 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_withstand_a_bus_of_three_servers_that_loses_any_of_them() {
    let folder = TempDir::new().unwrap();
    let mut config = RigConfig { bus_servers: 3, ..config(&folder) };
    config.settings.push(setting("OUTBOX_NATS_STREAM_REPLICAS", "3"));
    withstand(config, &[KillBusServer; 5], &[(Seen::Outages, 5)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_withstand_a_full_disk_of_the_database() {
    let disk = SmallDisk::mount(192);
    let folder = TempDir::new().unwrap();
    let mut config = RigConfig { database_folder: Some(disk.folder.path().to_owned()), ..config(&folder) };
    config.database_settings.extend([setting("max_wal_size", "32MB"), setting("min_wal_size", "32MB")]);
    withstand(config, &[FillDisk, FillDisk], &[(Seen::Outages, 2)]).await;
}

/// No record of the database's own survives a failover, so this test counts for itself.
#[tokio::test(flavor = "multi_thread")]
async fn relays_follow_a_failover_to_a_standby_and_lose_nothing() {
    let mut primary = PostgresServer::start().await.unwrap();
    let database = primary.database().await;
    let bus = NatsServer::start().await.unwrap();
    let migrated = program::run(&["migrate", "up"], &[("POSTGRES_DSN", &database.dsn())]);
    assert!(migrated.status.success(), "{}", program::transcript(&migrated));
    let standby = primary.standby().await.unwrap();

    let (ports, name) = (format!("{},{}", primary.port(), standby.port()), database.name());
    let dsn = format!(
        "host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname={name} sslmode=disable \
         target_session_attrs=read-write"
    );
    let url = bus.url();
    let settings = [("POSTGRES_DSN", dsn.as_str()), ("NATS_URL", &url), ("OUTBOX_POLL_INTERVAL", "20ms")];
    let _relays = [program::Relay::start(&settings), program::Relay::start(&settings)];
    let insert = "SELECT count(outbox_publish('events.player', 'registered', to_jsonb(n)))
                  FROM generate_series(1, 500) AS n";
    let sql = database.client().await;
    let some = "SELECT FROM outbox_events WHERE status = 'PUBLISHED' LIMIT 1";
    for _ in 0..5 {
        sql.query(insert, &[]).await.unwrap();
    }
    wait_until("events move", async || sql.query_opt(some, &[]).await.unwrap()).await;
    primary.crash().unwrap();
    standby.promote().await.unwrap();

    let sql = standby.same_database(&database).client().await;
    sql.query(insert, &[]).await.unwrap();
    let pending = "SELECT FROM outbox_events WHERE status <> 'PUBLISHED' LIMIT 1";
    wait_until("all is published", async || sql.query_opt(pending, &[]).await.unwrap().is_none().then_some(())).await;
    let rows = sql.query("SELECT id FROM outbox_events", &[]).await.unwrap();
    let committed: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let client = async_nats::connect(&url).await.unwrap();
    let delivered = bus::read(&NatsReader::new(client, "PLAYER")).await.unwrap();
    assert_eq!(delivered.len(), 3_000, "copies within the duplicate window are dropped");
    assert_eq!(delivered.iter().map(|delivery| delivery.id).collect::<HashSet<_>>(), committed);
}

/// A disk in memory, of a few megabytes.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Self {
        assert!(Uid::effective().is_root(), "this test mounts a disk: run it as root, as CI does");
        let folder = TempDir::new().unwrap();
        let options = format!("size={megabytes}m,mode=0777");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(mounted.unwrap().success());
        Self { folder }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server of a failing test may still be at work there: then it goes when that does.
        let _ = Command::new("umount").arg("--lazy").arg::<&Path>(self.folder.path()).status();
    }
}
