//! Each fault: how it is made, what proves that it happened, and how it ends.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use gamemesh_outbox::store::dead_letters::{Action, Options, Request, act};
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::sleep;
use tokio_postgres::Client;
use uuid::Uuid;

use super::relays::Replica;
use super::rig::{ANYBODY, NOBODY, Rig, STREAM};
use crate::history::{Fault, Target, wall_clock};
use crate::proxy::{Direction, Flow};
use crate::wait_until;

const END_SESSIONS: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'outbox-relay'";
/// Of a relay's transactions only a claim waits for the relay.
const HOLDS_ROWS: &str = "SELECT FROM pg_stat_activity
                          WHERE application_name = 'outbox-relay' AND state = 'idle in transaction' LIMIT 1";
const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
/// A relay may be killed before it settles, so one try may not be enough.
const DEADLOCK_TRIES: u32 = 20;
/// How long relays hold their rows then: longer than it takes to get the table, shorter than the publish timeout.
const DEADLOCK_DELAY: Duration = Duration::from_millis(500);

/// How many outages are long, and how long these are: past the time that readiness may take to tell.
const LONG_ONE_IN: u32 = 5;
const LONG: std::ops::Range<u64> = 12_000..15_000;

/// Every kind of fault that a run draws from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL to one relay, which is started again.
    KillRelay,
    /// SIGKILL to all relays at once.
    KillEveryRelay,
    /// SIGTERM to one relay, which has to end cleanly.
    StopRelay,
    /// SIGSTOP to one relay for longer than its timeouts.
    FreezeRelay,
    /// One relay's connections to the database end.
    CutRelayFromDatabase,
    /// One relay hears nothing from the database for a while, while the database hears it.
    DeafenRelayToDatabase,
    /// One relay's connections to the bus end, and new ones are refused for a while.
    CutRelayFromBus,
    /// One relay hears nothing from the bus for a while: acknowledgements are lost.
    DeafenRelayToBus,
    /// The database crashes (SIGQUIT: what is not flushed is lost) and comes back.
    CrashDatabase,
    /// The database ends every session of the relays.
    EndSessions,
    /// The database refuses to write for a while.
    ReadOnlyDatabase,
    /// Somebody locks the table for a while.
    LockTable,
    /// The bus is killed (SIGKILL) and comes back.
    KillBus,
    /// The bus stands still (SIGSTOP) for longer than the publish timeout.
    FreezeBus,
    /// Replies of the bus come late.
    SlowBus,
    /// What relays send to the bus passes at some kilobytes a second.
    SlowLink,
    /// One of several servers of the bus is killed and comes back; it may be the leader of the stream.
    KillBusServer,
    /// The stream takes no more messages for a while.
    FillStream,
    /// Nobody may publish events for a while.
    DenyPublishing,
    /// Other clients use up the database's connections, and those of the relays end.
    UseUpConnections,
    /// Somebody locks table and rows in the other order, until the database finds a deadlock.
    Deadlock,
    /// The disk of the database is full for a while; it may crash for that.
    FillDisk,
    /// The pooler between relays and database is killed and comes back.
    KillPooler,
    /// The database refuses every outcome for a while.
    RefuseOutcomes,
    /// The database refuses the outcome of one row in 64 for a while.
    RefuseSomeOutcomes,
    /// The table is in another schema for a while.
    MoveTable,
    /// Somebody locks the table again and again, and gives up soon each time.
    StormOfLocks,
    /// Somebody else answers in the stream's place.
    AnswerInItsPlace,
    /// A person requeues every dead letter.
    Requeue,
    /// A person discards every dead letter.
    Discard,
}

impl Rig {
    /// Makes one fault happen and ends it. Fails if it did not happen.
    pub async fn inject(&self, kind: Kind, random: &mut fastrand::Rng) -> Result<()> {
        let replica = &self.replicas[random.usize(..self.replicas.len())];
        match kind {
            Kind::KillRelay => self.kill(replica, random).await,
            Kind::KillEveryRelay => self.kill_all().await,
            Kind::StopRelay => self.stop(replica).await,
            Kind::FreezeRelay => self.freeze_relay(replica, random).await,
            Kind::CutRelayFromDatabase => self.cut_from_database(replica).await,
            Kind::DeafenRelayToDatabase => self.deafen(replica, Target::Database, random).await,
            Kind::CutRelayFromBus => self.cut_from_bus(replica, random).await,
            Kind::DeafenRelayToBus => self.deafen(replica, Target::Bus, random).await,
            Kind::CrashDatabase => self.crash_database(random).await,
            Kind::EndSessions => self.end_sessions().await,
            Kind::ReadOnlyDatabase => self.read_only(random).await,
            Kind::LockTable => self.lock_table(random).await,
            Kind::KillBus => self.kill_bus(random).await,
            Kind::FreezeBus => self.freeze_bus(random).await,
            Kind::SlowBus => self.slow_bus(random).await,
            Kind::SlowLink => self.slow_link(random).await,
            Kind::KillBusServer => self.kill_bus_server(random).await,
            Kind::FillStream => self.fill_stream(random).await,
            Kind::DenyPublishing => self.deny_publishing(random).await,
            Kind::UseUpConnections => self.use_up_connections(random).await,
            Kind::Deadlock => self.deadlock().await,
            Kind::FillDisk => self.fill_disk(random).await,
            Kind::KillPooler => self.kill_pooler().await,
            Kind::RefuseOutcomes => self.refuse_outcomes(1, random).await,
            Kind::RefuseSomeOutcomes => self.refuse_outcomes(64, random).await,
            Kind::MoveTable => self.move_table(random).await,
            Kind::StormOfLocks => self.storm_of_locks().await,
            Kind::AnswerInItsPlace => self.answer_in_its_place(random).await,
            Kind::Requeue => self.operate(Action::Requeue).await,
            Kind::Discard => self.operate(Action::Discard).await,
        }
        .with_context(|| format!("fault {kind:?}"))
    }

    async fn kill(&self, replica: &Replica, random: &mut fastrand::Rng) -> Result<()> {
        let _starting = self.starting.read().await;
        let at = wall_clock();
        replica.weigh().await;
        if replica.signal(Signal::SIGKILL).await?.is_some() {
            let (run, status) = replica.wait().await?;
            ensure!(status.code().is_none(), "expected an end by a signal, got {status}");
            self.record(at, Fault::Kill(run), "");
        }
        pause(random, 0..500).await;
        replica.start(&[]).await.map(drop)
    }

    async fn kill_all(&self) -> Result<()> {
        let _starting = self.starting.read().await;
        let at = wall_clock();
        for replica in &self.replicas {
            replica.signal(Signal::SIGKILL).await?;
        }
        for replica in &self.replicas {
            let (run, _) = replica.wait().await?;
            self.record(at, Fault::Kill(run), "all at once");
        }
        for replica in &self.replicas {
            replica.start(&[]).await?;
        }
        Ok(())
    }

    /// A clean end has no fault record: nothing may go wrong because of it. Its exit code is in the relay's history.
    async fn stop(&self, replica: &Replica) -> Result<()> {
        let _starting = self.starting.read().await;
        // Before it serves its endpoints it may not have begun to listen for signals.
        replica.get("/healthz").await?;
        replica.signal(Signal::SIGTERM).await?;
        replica.wait().await?;
        replica.start(&[]).await.map(drop)
    }

    async fn freeze_relay(&self, replica: &Replica, random: &mut fastrand::Rng) -> Result<()> {
        let at = wall_clock();
        let Some(run) = replica.signal(Signal::SIGSTOP).await? else { return Ok(()) };
        pause(random, 500..8_000).await;
        replica.signal(Signal::SIGCONT).await?;
        self.record(at, Fault::Freeze(Target::Relay(run)), "");
        Ok(())
    }

    async fn cut_from_database(&self, replica: &Replica) -> Result<()> {
        let at = wall_clock();
        replica.to_database.cut();
        self.record(at, Fault::Cut { relay: Some(replica.name().to_owned()), server: Target::Database }, "");
        Ok(())
    }

    async fn cut_from_bus(&self, replica: &Replica, random: &mut fastrand::Rng) -> Result<()> {
        let at = wall_clock();
        replica.to_bus.refuse(true);
        replica.to_bus.cut();
        pause(random, 0..4_000).await;
        replica.to_bus.refuse(false);
        self.record(at, Fault::Cut { relay: Some(replica.name().to_owned()), server: Target::Bus }, "");
        Ok(())
    }

    /// What it loses are whole stretches of a byte stream, so the connection makes no sense afterwards and is cut.
    async fn deafen(&self, replica: &Replica, server: Target, random: &mut fastrand::Rng) -> Result<()> {
        let proxy = if server == Target::Database { &replica.to_database } else { &replica.to_bus };
        let (at, before) = (wall_clock(), proxy.dropped(Direction::ToClient));
        proxy.set(Direction::ToClient, Flow::Drop);
        pause(random, 200..4_000).await;
        // Another fault may keep the server silent for a while, or have let its replies pass again.
        let lost = async || {
            proxy.set(Direction::ToClient, Flow::Drop);
            Some(proxy.dropped(Direction::ToClient) - before).filter(|bytes| *bytes > 0)
        };
        let lost = wait_until("replies are lost", lost).await;
        proxy.cut();
        proxy.set(Direction::ToClient, Flow::Pass);
        let fault = Fault::Cut { relay: Some(replica.name().to_owned()), server };
        self.record(at, fault, format!("{lost} bytes of replies lost"));
        Ok(())
    }

    async fn crash_database(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut postgres = self.postgres.lock().await;
        let at = wall_clock();
        postgres.crash()?;
        length(random, 0..3_000).await;
        postgres.restart().await?;
        self.record(at, Fault::Outage(Target::Database), "crashed");
        Ok(())
    }

    async fn end_sessions(&self) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let sql = self.database.client().await;
        let at = wall_clock();
        let ended: i64 = sql.query_one(END_SESSIONS, &[]).await?.get(0);
        self.record(at, Fault::SessionsEnded, format!("{ended} sessions"));
        Ok(())
    }

    async fn read_only(&self, random: &mut fastrand::Rng) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let sql = self.database.client().await;
        let at = wall_clock();
        let set =
            |on: bool| format!("ALTER SYSTEM SET default_transaction_read_only = {}", if on { "on" } else { "off" });
        sql.batch_execute(&set(true)).await?;
        sql.batch_execute("SELECT pg_reload_conf()").await?;
        length(random, 500..3_000).await;
        // This session is read-only by now as well, except for what it says otherwise.
        sql.batch_execute("SET default_transaction_read_only = off").await?;
        sql.batch_execute(&set(false)).await?;
        sql.batch_execute("SELECT pg_reload_conf()").await?;
        self.record(at, Fault::Outage(Target::Database), "read-only");
        Ok(())
    }

    async fn lock_table(&self, random: &mut fastrand::Rng) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let mut sql = self.database.client().await;
        let at = wall_clock();
        let tx = sql.transaction().await?;
        tx.batch_execute("LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE").await?;
        length(random, 200..6_000).await;
        tx.commit().await?;
        self.record(at, Fault::Outage(Target::Database), "table locked");
        Ok(())
    }

    async fn kill_bus(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut bus = self.bus.lock().await;
        let at = wall_clock();
        bus.kill();
        length(random, 0..4_000).await;
        bus.restart().await?;
        self.record(at, Fault::Outage(Target::Bus), "killed");
        Ok(())
    }

    async fn freeze_bus(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut bus = self.bus.lock().await;
        let at = wall_clock();
        bus.signal(Signal::SIGSTOP)?;
        length(random, 500..5_000).await;
        bus.signal(Signal::SIGCONT)?;
        self.record(at, Fault::Freeze(Target::Bus), "");
        Ok(())
    }

    async fn slow_bus(&self, random: &mut fastrand::Rng) -> Result<()> {
        let at = wall_clock();
        let delay = Duration::from_millis(random.u64(10..300));
        self.delay_replies(Some(delay));
        pause(random, 500..3_000).await;
        self.delay_replies(None);
        let fault = Fault::Cut { relay: None, server: Target::Bus };
        self.record(at, fault, format!("replies {} ms late", delay.as_millis()));
        Ok(())
    }

    /// Each relay has a link of its own. What it has waited to send passes when this ends.
    async fn slow_link(&self, random: &mut fastrand::Rng) -> Result<()> {
        let at = wall_clock();
        let rate = random.u32(20_000..200_000);
        let set = |flow| self.replicas.iter().for_each(|replica| replica.to_bus.set(Direction::ToServer, flow));
        set(Flow::Rate(rate));
        length(random, 1_000..8_000).await;
        set(Flow::Pass);
        let fault = Fault::Cut { relay: None, server: Target::Bus };
        self.record(at, fault, format!("{} kB/s", rate / 1_000));
        Ok(())
    }

    fn delay_replies(&self, delay: Option<Duration>) {
        let flow = delay.map_or(Flow::Pass, Flow::Delay);
        self.replicas.iter().for_each(|replica| replica.to_bus.set(Direction::ToClient, flow));
    }

    async fn kill_bus_server(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut bus = self.bus.lock().await;
        let servers = bus.nats()?;
        let server = random.usize(..servers.len());
        let at = wall_clock();
        servers[server].kill();
        pause(random, 500..4_000).await;
        servers[server].restart().await?;
        // Until there are leaders again, requests are not even refused.
        let jetstream = bus.jetstream().await?;
        wait_until("bus and stream have leaders", async || {
            jetstream.query_account().await.ok()?;
            jetstream.get_stream(STREAM).await.ok()
        })
        .await;
        self.record(at, Fault::Outage(Target::Bus), "lost a server");
        Ok(())
    }

    async fn fill_stream(&self, random: &mut fastrand::Rng) -> Result<()> {
        let jetstream = self.bus.lock().await.jetstream().await?;
        let mut stream = jetstream.get_stream(STREAM).await?;
        let at = wall_clock();
        let info = stream.info().await?.clone();
        let max_messages = i64::try_from(info.state.messages)?.max(1);
        let full = Config { max_messages, discard: DiscardPolicy::New, ..info.config.clone() };
        jetstream.update_stream(full).await?;
        pause(random, 500..3_000).await;
        jetstream.update_stream(info.config).await?;
        self.record(at, Fault::Outage(Target::Bus), "full");
        Ok(())
    }

    async fn deny_publishing(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut bus = self.bus.lock().await;
        let [server] = bus.nats()?.as_mut_slice() else { bail!("expected a bus of one server") };
        let at = wall_clock();
        server.configure(NOBODY)?;
        server.process().signal(Signal::SIGHUP)?;
        pause(random, 500..3_000).await;
        server.configure(ANYBODY)?;
        server.process().signal(Signal::SIGHUP)?;
        self.record(at, Fault::Outage(Target::Bus), "denied");
        Ok(())
    }

    async fn use_up_connections(&self, random: &mut fastrand::Rng) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let sql = self.database.client().await;
        let at = wall_clock();
        let mut others = Vec::new();
        let mut refused = 0;
        for round in 0..2 {
            while let Ok(other) = self.database.try_client().await {
                others.push(other);
            }
            refused += 1;
            if round == 0 {
                sql.query(END_SESSIONS, &[]).await?;
            }
        }
        ensure!(refused == 2, "expected that no connection was left");
        pause(random, 500..3_000).await;
        drop(others);
        self.record(at, Fault::Outage(Target::Database), "without connections");
        Ok(())
    }

    /// A relay locks rows and then, to settle, the table; somebody who takes the table first waits for its rows. Replies
    /// of the bus come late meanwhile, so that relays hold rows at any moment.
    async fn deadlock(&self) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let mut sql = self.database.client().await;
        let watcher = self.database.client().await;
        let at = wall_clock();
        self.delay_replies(Some(DEADLOCK_DELAY));
        let found = meet_in_a_deadlock(&mut sql, &watcher).await;
        self.delay_replies(None);
        self.record(at, Fault::SessionsEnded, "a deadlock was found");
        found
    }

    async fn fill_disk(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut postgres = self.postgres.lock().await;
        let folder = self.database_folder().context("the database's disk is nobody else's")?;
        let at = wall_clock();
        let filler = folder.join("filler");
        let mut file = std::fs::File::create(&filler)?;
        let zeros = vec![0; 1 << 20];
        let full = loop {
            if let Err(error) = file.write_all(&zeros) {
                break error;
            }
        };
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "expected a full disk, got {full}");
        pause(random, 2_000..4_000).await;
        std::fs::remove_file(&filler)?;
        if postgres.process().check_running().is_err() {
            postgres.restart().await?;
        }
        self.record(at, Fault::Outage(Target::Database), "disk full");
        Ok(())
    }

    async fn kill_pooler(&self) -> Result<()> {
        let mut pooler = self.pooler.lock().await;
        let at = wall_clock();
        pooler.as_mut().context("there is no pooler")?.restart().await?;
        self.record(at, Fault::SessionsEnded, "the pooler was killed");
        Ok(())
    }

    async fn operate(&self, action: Action) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let request_id = Uuid::now_v7();
        let at = wall_clock();
        let store = PostgresStore::new(PostgresConfig::from_dsn(&self.database.dsn())?)?;
        let request = Request::everything(action, "operator", "an experiment")?.with_id(request_id);
        let changed = act(&store, &request, Options::default(), |_, _| {}).await?.changed;
        let fault = Fault::Operator { request_id, action, ids: None };
        self.record(at, fault, format!("{changed} dead letters"));
        Ok(())
    }
}

/// Takes the table and then the rows, until the database has found a deadlock.
async fn meet_in_a_deadlock(sql: &mut Client, watcher: &Client) -> Result<()> {
    let deadlocks = async || {
        watcher.batch_execute("SELECT pg_stat_clear_snapshot()").await?;
        let row = watcher.query_one(DEADLOCKS, &[]).await?;
        anyhow::Ok(row.get::<_, i64>(0))
    };
    let before = deadlocks().await?;
    for _ in 0..DEADLOCK_TRIES {
        wait_until("a relay holds rows", async || watcher.query_opt(HOLDS_ROWS, &[]).await.ok()?).await;
        let tx = sql.transaction().await?;
        tx.batch_execute("SET LOCAL lock_timeout = '5s'; LOCK TABLE outbox_events IN SHARE MODE").await?;
        // The database may choose this transaction as the victim, which is as good.
        let _ = tx.batch_execute("SELECT FROM outbox_events WHERE status = 'PENDING' FOR UPDATE").await;
        tx.rollback().await?;
        if deadlocks().await? > before {
            return Ok(());
        }
    }
    bail!("no deadlock in {DEADLOCK_TRIES} tries")
}

/// Lets the time of an outage pass: sometimes so long that every surface has to have said so.
pub(super) async fn length(random: &mut fastrand::Rng, milliseconds: std::ops::Range<u64>) {
    let long = random.u32(..LONG_ONE_IN) == 0;
    pause(random, if long { LONG } else { milliseconds }).await;
}

/// Lets a random time pass.
pub(super) async fn pause(random: &mut fastrand::Rng, milliseconds: std::ops::Range<u64>) {
    sleep(Duration::from_millis(random.u64(milliseconds))).await;
}
