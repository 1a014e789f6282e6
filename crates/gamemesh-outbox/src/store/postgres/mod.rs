//! PostgreSQL: the outbox as a table, a claim as the row locks of an open transaction.
//!
//! A crashed relay's rows are free the moment its connection dies; there is no lease to expire. Every statement is
//! unnamed and every setting belongs to its transaction, so the store also works through a pooler in transaction mode.

mod claim;
mod config;
mod connector;
mod dead_letters;
#[cfg(feature = "doctor")]
pub mod diagnose;
mod dsn;
mod error;
mod looked;
mod migrate;
#[cfg(test)]
mod model;
mod overview;
mod params;
mod place;
mod position;
mod row;
mod row_by_row;
mod schema;
mod server_table;
mod server_time;
mod session;
mod settle;
mod sql;
mod table;
mod tls;
mod wait;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::time::Instant;
use tokio_postgres::types::Type;

pub use self::config::PostgresConfig;
pub use self::schema::{EXAMPLE_MIGRATIONS, MIGRATIONS};

use self::claim::PostgresClaim;
use self::connector::Connector;
use self::params::micros;
use self::position::Position;
use self::server_table::ServerTable;
use self::session::{Session, answer};
use super::{About, Backlog, Claim, ClaimLimit, Claimed, HealthCheck, Prune, Store, StoreError, StoreErrorKind};

/// What a person should know of this store.
pub static ABOUT: About = About {
    title: "PostgreSQL",
    #[cfg(feature = "doctor")]
    checks: &diagnose::CHECKS,
};

/// How long a connection may take to be made, or to become free.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the server may take over a statement outside of a claim.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a health check may take: probes do not wait long either.
const HEALTHY_WITHIN: Duration = Duration::from_secs(3);

/// The outbox in a PostgreSQL database. Clones share one pool of connections.
#[derive(Clone)]
pub struct PostgresStore {
    pool: Pool,
    config: PostgresConfig,
    #[cfg_attr(not(feature = "doctor"), allow(dead_code, reason = "only an examination connects without the pool"))]
    connector: Connector,
    position: Position,
}

impl PostgresStore {
    /// Prepares a pool. Nothing connects yet: the server may come up later than its relay.
    pub fn new(config: PostgresConfig) -> Result<Self, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let connector = Connector::new(config.clone())?;
        let manager = Manager::from_connect(config.server.clone(), connector.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(config.connections.max(1) as usize)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_WITHIN))
            .create_timeout(Some(CONNECT_WITHIN))
            .build()
            .map_err(|error| {
                StoreError::new(StoreErrorKind::Unusable, "cannot build the connection pool").with_source(error)
            })?;
        Ok(Self { pool, config, connector, position: Position::new(Instant::now()) })
    }

    /// Takes a connection from the pool, for a producer in the same process. Dropped, it goes back.
    pub async fn connection(&self) -> Result<deadpool_postgres::Object, StoreError> {
        self.pool.get().await.map_err(error::no_connection)
    }

    async fn session(&self) -> Result<Session, StoreError> {
        self.pool.get().await.map(Session::new).map_err(error::no_connection)
    }
}

#[async_trait]
impl Store for PostgresStore {
    /// Waits in the database: the claim follows without another word from here.
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        let table = ServerTable::new(self.session().await?, self.config.synchronous_commit);
        let (claim, took) = PostgresClaim::open(table, limit, &self.position, wait_at_most).await?;
        Ok(Claimed { claim: claim.map(|claim| Box::new(claim) as Box<dyn Claim>), took })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let session = self.session().await?;
        let row = session.client().query_typed_one(sql::BACKLOG, &[]);
        let row = answer("cannot count the backlog", ANSWER_WITHIN, row).await?;
        session.give_back();
        let count = |column| row.get::<_, i64>(column).unsigned_abs();
        Ok(Backlog {
            pending: count("pending"),
            failed: count("failed"),
            oldest_due_age: Duration::try_from_secs_f64(row.get("oldest_due_age")).unwrap_or_default(),
        })
    }
}

#[async_trait]
impl Prune for PostgresStore {
    async fn prune(&self, retention: Duration, limit: u32) -> Result<u64, StoreError> {
        let session = self.session().await?;
        let params = [(&micros(retention) as _, Type::INT8), (&i64::from(limit) as _, Type::INT8)];
        let pruned = session.client().execute_typed(sql::PRUNE, &params);
        let pruned = answer("cannot prune published events", ANSWER_WITHIN, pruned).await?;
        session.give_back();
        Ok(pruned)
    }
}

#[async_trait]
impl HealthCheck for PostgresStore {
    async fn check(&self) -> Result<(), String> {
        let ask = async {
            let session = self.session().await?;
            answer("PostgreSQL does not answer", HEALTHY_WITHIN, session.client().batch_execute("SELECT 1")).await?;
            session.give_back();
            Ok::<(), StoreError>(())
        };
        match tokio::time::timeout(HEALTHY_WITHIN, ask).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error::one_line(&error)),
            Err(_) => Err(format!("PostgreSQL does not answer within {HEALTHY_WITHIN:?}")),
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("config", &self.config).finish_non_exhaustive()
    }
}
