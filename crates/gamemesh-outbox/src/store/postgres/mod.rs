//! PostgreSQL: the outbox as a table, a claim as the row locks of an open transaction.
//!
//! A crashed relay's rows are free the moment its connection dies; there is no lease to expire. Every statement is
//! unnamed and every setting belongs to its transaction, so the store also works through a pooler in transaction mode.

mod address;
mod asked;
mod claim;
mod config;
mod connector;
mod dead_letters;
#[cfg(feature = "doctor")]
pub mod diagnose;
mod dsn;
mod error;
mod health;
mod holder;
mod holding;
mod looked;
mod migrate;
#[cfg(test)]
mod model;
mod overview;
mod params;
mod place;
mod pool;
mod position;
mod prune;
mod readers;
mod row;
mod row_by_row;
mod schema;
mod server_table;
mod server_time;
mod session;
mod settle;
mod settle_rows;
mod sql;
mod sweep;
mod table;
mod tls;
mod wait;
mod words;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::config::PostgresConfig;
pub use self::pool::{PostgresConnection, ServerConnection};
pub use self::schema::{EXAMPLE_MIGRATIONS, MIGRATIONS};

use self::claim::PostgresClaim;
use self::connector::Connector;
use self::holding::Holdings;
use self::pool::{ConnectionPool, pool};
use self::position::Position;
use self::readers::Readers;
use self::server_table::ServerTable;
use self::session::Session;
use self::table::Time;
use self::wait::wait;
use super::{About, Backlog, Claim, ClaimLimit, Claimed, Store, StoreError};

/// What a person should know of this store.
pub static ABOUT: About = About {
    title: "PostgreSQL",
    #[cfg(feature = "doctor")]
    checks: &diagnose::CHECKS,
};

/// How long the server may take over a statement outside of a claim.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long one statement of a claim may run at least, however short the time for publishing is: looking for what is due may
/// take longer than that.
const STATEMENT_TIME_MIN: Duration = Duration::from_secs(5);

/// The outbox in a PostgreSQL database. Clones share one pool of connections.
#[derive(Clone)]
pub struct PostgresStore {
    pool: ConnectionPool,
    config: PostgresConfig,
    connector: Connector,
    position: Position,
    /// Whether a look may be a statement alone.
    looks_alone: Arc<AtomicBool>,
    readers: Readers,
    holdings: Holdings,
}

impl PostgresStore {
    /// Prepares a pool. Nothing connects yet: the server may come up later than its relay.
    pub fn new(config: PostgresConfig) -> Result<Self, StoreError> {
        let connector = Connector::new(config.clone())?;
        let readers = Readers::new(pool(&connector, readers::CONNECTIONS)?, connector.clone());
        let pool = pool(&connector, config.connections)?;
        let (position, looks_alone) = (Position::new(Instant::now()), Arc::new(AtomicBool::new(true)));
        Ok(Self { pool, config, connector, position, looks_alone, readers, holdings: Holdings::default() })
    }

    /// Takes a connection from the pool, for a producer in the same process. Dropped, it goes back.
    pub async fn connection(&self) -> Result<PostgresConnection, StoreError> {
        let connection = self.pool.get().await.map_err(error::no_connection)?;
        connection.writable()?;
        Ok(connection)
    }

    async fn claim_table(&self) -> Result<ServerTable, StoreError> {
        let session = self.session().await?.for_writing()?;
        Ok(ServerTable::new(self.pool.clone(), session, self.config.synchronous_commit, Arc::clone(&self.looks_alone)))
    }

    async fn session(&self) -> Result<Session, StoreError> {
        self.pool.get().await.map(Session::new).map_err(error::no_connection)
    }
}

#[async_trait]
impl Store for PostgresStore {
    /// Waits outside of the database, and opens a transaction only where a look found something.
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        if !wait_at_most.is_zero() && !wait(|| self.claim_table(), limit, &self.position, wait_at_most).await? {
            return Ok(Claimed { claim: None, took: Duration::ZERO });
        }
        let statement = self.config.statement_time.unwrap_or(limit.lifetime.max(STATEMENT_TIME_MIN));
        let time = Time { idle: limit.lifetime, statement };
        let (claim, took) = PostgresClaim::open(self.claim_table().await?, limit, &self.position, time).await?;
        Ok(Claimed { claim: claim.map(|claim| Box::new(claim) as Box<dyn Claim>), took })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        const DOING: &str = "cannot count the backlog";
        let session = self.session().await?;
        let row = session.client().query_typed_one(sql::BACKLOG, &[]);
        let row =
            session.limited(DOING, ANSWER_WITHIN, "", row).await?.map_err(|error| error::unavailable(DOING, error))?;
        session.give_back();
        let count = |column| row.get::<_, i64>(column).unsigned_abs();
        Ok(Backlog {
            pending: count("pending"),
            failed: count("failed"),
            failing: count("failing"),
            due_later: count("due_later"),
            oldest_due_age: Duration::try_from_secs_f64(row.get("oldest_due_age")).unwrap_or_default(),
        })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("config", &self.config).finish_non_exhaustive()
    }
}
