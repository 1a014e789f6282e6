//! The system under test: one database, one bus, replicas behind proxies, producers, and who writes down what they do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::sync::{Mutex, RwLock};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::PAYLOAD_BYTES_MAX;
use super::bus::{Bus, BusKind};
use super::producers::Producer;
use super::relays::{Replica, Replicas};
use crate::history::collect::bus;
use crate::history::collect::postgres::ChangeLog;
use crate::history::{Configuration, Facts, Fault, FaultRecord, History, Nanos, Recorder, Rest, wall_clock};
use crate::servers::{PgBouncer, PostgresServer, TestDatabase};

/// How long a system without faults may take until nothing is on its way any more.
const REST_WITHIN: Duration = Duration::from_secs(90);
/// The stream that the relays make.
pub(super) const STREAM: &str = "PLAYER";
/// Few connections, so that they can be used up; deadlocks are found before anything else gives up.
const DATABASE_SETTINGS: [(&str, &str); 2] = [("max_connections", "60"), ("deadlock_timeout", "100ms")];
/// Clients without a name may do everything.
pub(super) const ANYBODY: &str = "accounts { APP { jetstream: enabled, users: [{user: app, password: app}] } }
                       no_auth_user: app";
/// Nobody may publish events.
pub(super) const NOBODY: &str = "accounts { APP { jetstream: enabled, users: [{
                           user: app, password: app, permissions: {publish: {deny: [\"events.>\"]}}
                       }] } }
                       no_auth_user: app";
/// How far the records of different sources may disagree about the time.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(20);
const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long published rows are kept: so short that pruning is part of a run.
const RETENTION: Duration = Duration::from_secs(20);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct RigConfig {
    /// The relay's program.
    pub program: PathBuf,
    /// How many replicas of it.
    pub relays: u32,
    /// Where the history and the logs go; it must exist and be empty.
    pub folder: PathBuf,
    /// How long the bus remembers ids; what comes later is stored again.
    pub dedup_window: Duration,
    /// More settings of the relays, in place of the rig's own.
    pub settings: Vec<(String, String)>,
    /// More settings of the database server.
    pub database_settings: Vec<(String, String)>,
    /// Where the database keeps its data; a temporary folder if `None`.
    pub database_folder: Option<PathBuf>,
    /// Whether relays reach the database through PgBouncer in transaction mode.
    pub pooled: bool,
    /// What the relays publish to.
    pub bus: BusKind,
    /// How many servers the bus is made of; Redis has one.
    pub bus_servers: u32,
}

impl RigConfig {
    /// Describes three relays of `program` in front of a bus of one server; history and logs go into `folder`, which must
    /// be empty.
    pub fn new(program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            relays: 3,
            folder: folder.into(),
            // Copies get through after a second, so each has to be explained.
            dedup_window: Duration::from_secs(1),
            settings: Vec::new(),
            database_settings: Vec::new(),
            database_folder: None,
            pooled: false,
            bus: BusKind::Nats,
            bus_servers: 1,
        }
    }
}

/// The running system.
#[derive(Debug)]
pub struct Rig {
    pub(super) recorder: Recorder,
    pub(super) postgres: Mutex<PostgresServer>,
    pub(super) bus: Mutex<Bus>,
    /// Held for writing while no relay could start.
    pub(super) starting: RwLock<()>,
    pub(super) pooler: Mutex<Option<PgBouncer>>,
    pub(super) database: TestDatabase,
    pub(super) replicas: Vec<Replica>,
    config: RigConfig,
    producers: JoinSet<Result<()>>,
    inserting: CancellationToken,
    changes: JoinHandle<Result<ChangeLog>>,
    following: CancellationToken,
}

impl Rig {
    /// Starts the servers and prepares the replicas; producers are added one by one.
    pub async fn start(config: &RigConfig) -> Result<Self> {
        let mut settings = DATABASE_SETTINGS.to_vec();
        settings.extend(config.database_settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let data = config.database_folder.clone().unwrap_or_else(std::env::temp_dir);
        let (postgres, bus) =
            tokio::try_join!(PostgresServer::start_in(&data, &settings), Bus::start(config.bus, config.bus_servers))?;
        let pooler = if config.pooled { Some(PgBouncer::start(&postgres).await?) } else { None };
        let database = postgres.database().await;
        let recorder = Recorder::in_folder(&config.folder)?;
        let environment = environment(config);
        migrate(config, &database).await?;
        let sql = database.client().await;
        let log = ChangeLog::create(sql, "outbox_history").await?;
        let following = CancellationToken::new();
        let changes = tokio::spawn(follow(log, database.clone(), recorder.clone(), following.clone()));

        let common = Replicas {
            program: &config.program,
            environment: &environment,
            folder: &config.folder,
            recorder: &recorder,
        };
        let mut replicas = Vec::new();
        for number in 1..=config.relays {
            let name = format!("relay-{number}");
            let database_port = pooler.as_ref().map_or(postgres.port(), PgBouncer::port);
            let replica = Replica::prepare(&name, &common, (database_port, bus.port()), |to_database, to_bus| {
                let dsn = database.dsn_through(to_database);
                [vec![("POSTGRES_DSN".to_owned(), dsn)], bus.settings(to_bus)].concat()
            });
            replicas.push(replica.await?);
        }
        Ok(Self {
            recorder,
            postgres: Mutex::new(postgres),
            bus: Mutex::new(bus),
            starting: RwLock::default(),
            pooler: Mutex::new(pooler),
            database,
            replicas,
            config: config.clone(),
            producers: JoinSet::new(),
            inserting: CancellationToken::new(),
            changes,
            following,
        })
    }

    /// Returns the database, to be reached directly.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Returns the replicas, of which only those run that were started.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    pub(super) fn bus_kind(&self) -> BusKind {
        self.config.bus
    }

    /// Starts every replica that does not run.
    pub async fn start_replicas(&self) -> Result<()> {
        for replica in &self.replicas {
            if !replica.is_running().await {
                replica.start(&[]).await?;
            }
        }
        Ok(())
    }

    pub(super) fn database_folder(&self) -> Option<&Path> {
        self.config.database_folder.as_deref()
    }

    /// Lets another producer work.
    pub fn add_producer(&mut self, name: String, random: fastrand::Rng, events_max: u64) {
        let (database, recorder) = (self.database.clone(), self.recorder.clone());
        let producer = Producer { name, database, recorder, random, events_max };
        self.producers.spawn(producer.run(self.inserting.clone()));
    }

    /// Stops the producers, sees to it that every replica runs, and waits until nothing is on its way. Returns how long
    /// that took, and the largest resident memory of a relay, in bytes.
    pub async fn come_to_rest(&mut self) -> Result<(Duration, u64)> {
        self.inserting.cancel();
        while let Some(ended) = self.producers.join_next().await {
            ended??;
        }
        self.start_replicas().await?;
        let started = Instant::now();
        timeout(REST_WITHIN, self.until_nothing_is_pending()).await.context("events are still PENDING")??;
        let rested = started.elapsed();
        for replica in &self.replicas {
            replica.weigh().await;
        }
        Ok((rested, self.replicas.iter().map(Replica::memory_max).max().unwrap_or_default()))
    }

    async fn until_nothing_is_pending(&self) -> Result<()> {
        let sql = self.database.client().await;
        let mut ticks = interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let pending = sql.query_one("SELECT count(*) FROM outbox_events WHERE status = 'PENDING'", &[]).await?;
            if pending.get::<_, i64>(0) == 0 {
                return Ok(());
            }
        }
    }

    /// Stops the relays cleanly, and returns everything that was seen.
    pub async fn finish(self) -> Result<History> {
        let rest = self.read_counters().await?;
        for replica in &self.replicas {
            replica.signal(Signal::SIGTERM).await?;
        }
        for replica in &self.replicas {
            replica.wait().await?;
        }
        self.following.cancel();
        let reader = self.bus.lock().await.reader().await?;
        let mut log = self.changes.await??;
        log.reconnect(self.database.client().await).await?;
        log.finish().await?.into_iter().for_each(|change| self.recorder.change(change));
        for delivery in bus::read(&*reader).await? {
            self.recorder.delivery(delivery);
        }
        self.recorder.finish(Facts {
            configuration: Configuration {
                attempts_max: 3,
                retention: Some(nanos(RETENTION)),
                retry_max: nanos(RETRY_BACKOFF_MAX),
                settle_max: nanos(Duration::from_secs(30)),
                ..Configuration::default()
            },
            clock_tolerance: nanos(CLOCK_TOLERANCE),
            // Redis remembers no ids.
            dedup_window: (self.config.bus == BusKind::Nats).then(|| nanos(self.config.dedup_window)),
            relays_trace: false,
            rest: Some(rest),
        })
    }

    /// Reads the counters of every relay once the gauges agree that nothing is pending.
    async fn read_counters(&self) -> Result<Rest> {
        let sql = self.database.client().await;
        let mut ticks = interval(Duration::from_millis(50));
        let read = async {
            loop {
                ticks.tick().await;
                let failed = sql.query_one("SELECT count(*) FROM outbox_events WHERE status = 'FAILED'", &[]).await?;
                let failed = failed.get::<_, i64>(0).unsigned_abs();
                let (mut relays, mut settled) = (Vec::new(), true);
                for replica in &self.replicas {
                    let (counters, gauges) = replica.counters().await?;
                    settled &= gauges == (0, failed);
                    relays.push(counters);
                }
                if settled {
                    return Ok(Rest { at: wall_clock(), pending: 0, failed, relays });
                }
            }
        };
        timeout(REST_WITHIN, read).await.context("the gauges do not say what the table says")?
    }

    /// Records a fault that is over: `fault` began at `at`.
    pub fn record(&self, at: Nanos, fault: Fault, details: impl Into<String>) {
        self.recorder.fault(FaultRecord { at, until: Some(wall_clock()), fault, details: details.into() });
    }
}

fn environment(config: &RigConfig) -> Vec<(String, String)> {
    let payload_bytes_max = PAYLOAD_BYTES_MAX.to_string();
    let dedup_window = format!("{}ms", config.dedup_window.as_millis());
    let own = [
        ("OUTBOX_BATCH_SIZE", "50"),
        ("OUTBOX_WORKERS", "2"),
        ("OUTBOX_POLL_INTERVAL", "100ms"),
        ("OUTBOX_MAX_ATTEMPTS", "3"),
        ("OUTBOX_PAYLOAD_BYTES_MAX", payload_bytes_max.as_str()),
        ("OUTBOX_PUBLISH_TIMEOUT", &format!("{}ms", PUBLISH_TIMEOUT.as_millis())),
        ("OUTBOX_RETRY_BACKOFF", "100ms"),
        ("OUTBOX_RETRY_BACKOFF_MAX", &format!("{}ms", RETRY_BACKOFF_MAX.as_millis())),
        ("OUTBOX_OUTAGE_BACKOFF_MAX", "1s"),
        ("OUTBOX_RETENTION", &format!("{}s", RETENTION.as_secs())),
        ("OUTBOX_NATS_DUPLICATE_WINDOW", &dedup_window),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let replaced = |name: &str| config.settings.iter().any(|(given, _)| given == name);
    own.into_iter().filter(|(name, _)| !replaced(name)).chain(config.settings.clone()).collect()
}

async fn migrate(config: &RigConfig, database: &TestDatabase) -> Result<()> {
    let mut command = tokio::process::Command::new(&config.program);
    command.args(["migrate", "up"]).env_clear().env("POSTGRES_DSN", database.dsn());
    let output = command.output().await.with_context(|| config.program.display().to_string())?;
    ensure!(output.status.success(), "migrate up: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Reads the database's own history until told to stop, and reaches for it again when the server was away.
async fn follow(
    mut log: ChangeLog,
    database: TestDatabase,
    recorder: Recorder,
    stopping: CancellationToken,
) -> Result<ChangeLog> {
    let mut ticks = interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(log),
            _ = ticks.tick() => {}
        }
        match log.poll().await {
            Ok(changes) => changes.into_iter().for_each(|change| recorder.change(change)),
            Err(_) => {
                let Ok(client) = database.try_client().await else { continue };
                // The old connection may hold the slot for another moment.
                let _ = log.reconnect(client).await;
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a short time")
}
