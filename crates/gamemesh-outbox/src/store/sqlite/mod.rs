//! SQLite: the outbox of one machine, embedded.
//!
//! # Ownership
//!
//! A claim reads and writes nothing, so that publishing never blocks a producer; settling is one short write
//! transaction. Between processes, a lock on `<database>.relay-lock` says who may claim: the kernel frees it when its
//! holder dies, and nothing expires. One process has claims at a time; another one, which finds the lock taken, claims
//! nothing and stands by. Within a process, clones of one [`SqliteStore`] keep apart by the ids they hold. Two handles
//! opened separately are two processes in this respect.
//!
//! The lock and WAL mode need a local file system; a network share has neither.
//!
//! # Durability
//!
//! A crash of the process loses nothing that was committed, whatever the settings. A loss of power is different: in WAL
//! mode `synchronous=NORMAL` does not wait for the disk, and the last commits can vanish. Event and business rows vanish
//! together, so the database stays consistent, but the relay may have published such an event already: consumers
//! would know of something that never happened. So producers should commit with `synchronous=FULL`, SQLite's default
//! and that of [`SqliteConfig::connect_options`]. The relay's own marks use `NORMAL`: losing one costs a duplicate with
//! the same id, never an event.
//!
//! # Producers
//!
//! Begin a transaction that will write with `begin_with("BEGIN IMMEDIATE")`: SQLite lets a transaction that began with
//! a read fail when it comes to write and another one was faster. Any program can insert with the columns `id`,
//! `event_type`, `topic` and `payload` alone.
//!
//! # Time
//!
//! The store's clock is the clock of the machine. Set back by an hour, rows inserted before wait for an hour.

mod admin;
mod claim;
mod config;
mod dead_letters;
#[cfg(feature = "doctor")]
pub mod diagnose;
mod error;
mod migrate;
mod overview;
mod ownership;
mod producer;
mod row;
mod same_file;
mod schema;
mod settle;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

pub use self::config::SqliteConfig;
use self::error::{is_busy, store_error};
use self::ownership::Ownership;
use self::same_file::SameFile;
pub use self::schema::MIGRATIONS;
use self::watch::CommitWatch;
use super::{About, Backlog, Claim, ClaimLimit, Claimed, Store, StoreError, StoreErrorKind};

/// What a person should know of this store.
pub static ABOUT: About = About {
    title: "SQLite",
    #[cfg(feature = "doctor")]
    checks: &diagnose::CHECKS,
};

const BACKLOG: &str = include_str!("sql/backlog.sql");

/// Readers never wait for anybody; a few serve the relay's workers, its gauges and the admin page.
const READERS_MAX: u32 = 4;
/// How many of them people's questions may use: gauges and probes never wait for people.
const QUESTIONS_MAX: usize = 2;
/// How long a question waits for its place.
const PLACE_WITHIN: Duration = Duration::from_secs(2);

/// The outbox in a SQLite database. Clones share it.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    readers: SqlitePool,
    questions: Semaphore,
    /// One connection: SQLite has one writer at a time, and waiting here is fairer than polling its lock.
    writer: SqlitePool,
    ownership: Arc<Ownership>,
    /// One claim is made at a time, so that no two pick the same rows.
    claiming: Mutex<()>,
    commits: CommitWatch,
}

impl SqliteStore {
    /// Opens the database and puts it in WAL mode. The tables are the business of
    /// [`Schema`](super::schema::Schema).
    pub async fn open(config: &SqliteConfig) -> Result<Self, StoreError> {
        let options = config.relay_options();
        enter_wal_mode(&options, config.patience()).await.map_err(|error| store_error("open the database", error))?;
        let ownership = Arc::new(Ownership::open(config.path())?);
        let options = options.create_if_missing(false);
        let file = SameFile::at(config.path());
        let inner = Inner {
            readers: pool(READERS_MAX, &file).connect_lazy_with(options.clone()),
            writer: pool(1, &file).connect_lazy_with(options.clone()),
            questions: Semaphore::new(QUESTIONS_MAX),
            ownership,
            claiming: Mutex::default(),
            commits: CommitWatch::new(options, file),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes a place for a question of somebody.
    async fn question(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let busy = |_| StoreError::new(StoreErrorKind::Busy, "the database is busy with other questions");
        let place = timeout(PLACE_WITHIN, self.inner.questions.acquire()).await.map_err(busy)?;
        Ok(place.expect("the semaphore is never closed"))
    }

    /// Opens the database that `sqlite://<path>` names, see [`SqliteConfig::from_url`].
    pub async fn from_url(url: &str) -> Result<Self, StoreError> {
        Self::open(&SqliteConfig::from_url(url)?).await
    }
}

/// A pool that lets go of connections to a file that is no longer at its path.
fn pool(connections: u32, file: &SameFile) -> SqlitePoolOptions {
    let file = file.clone();
    SqlitePoolOptions::new().max_connections(connections).before_acquire(move |_, connection| {
        let is_open = file.is_open_since(connection.age);
        Box::pin(async move { Ok(is_open) })
    })
}

/// Switches the file to WAL mode, where it stays. SQLite does not wait by itself for the lock that this takes.
async fn enter_wal_mode(options: &SqliteConnectOptions, patience: Duration) -> Result<(), sqlx::Error> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + patience;
    let mut connection = options.connect().await?;
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").execute(&mut connection).await {
            Ok(_) => return connection.close().await,
            Err(error) if is_busy(&error) && Instant::now() < deadline => tokio::time::sleep(RETRY_INTERVAL).await,
            Err(error) => return Err(error),
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        if !wait_at_most.is_zero() {
            // The deadline alone is a normal end: what had to wait may be due.
            let _ = tokio::time::timeout(wait_at_most, self.inner.commits.committed()).await;
        }
        let started = Instant::now();
        let claim = claim::claim(&self.inner, limit).await?.map(|claim| Box::new(claim) as Box<dyn Claim>);
        Ok(Claimed { claim, took: started.elapsed() })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let counted = sqlx::query_as::<_, (i64, i64, i64, i64, i64)>(BACKLOG).fetch_one(&self.inner.readers).await;
        let (pending, failed, failing, due_later, age) =
            counted.map_err(|error| store_error("count the backlog", error))?;
        Ok(Backlog {
            pending: pending.unsigned_abs(),
            failed: failed.unsigned_abs(),
            failing: failing.unsigned_abs(),
            due_later: due_later.unsigned_abs(),
            oldest_due_age: Duration::from_millis(age.unsigned_abs()),
        })
    }
}
