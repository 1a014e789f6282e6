//! The pool of connections, and when one in it is looked at again.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio::time::Instant;

use super::address::ServerAddress;
use super::asked::{SessionFacts, Suits};
use super::connector::{CONNECT_WITHIN, Connector};
use crate::store::{StoreError, StoreErrorKind};

/// How long what a session said of itself is believed.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long it may take to say it again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A connection of the pool's, in use. Dropped, it goes back.
pub type PostgresConnection = Object<Connections>;

/// A connection to a server, and what that said of the session.
#[derive(Debug)]
pub struct ServerConnection {
    client: ClientWrapper,
    address: ServerAddress,
    facts: SessionFacts,
    asked: Instant,
}

impl ServerConnection {
    pub(super) fn new(client: ClientWrapper, address: ServerAddress, facts: SessionFacts) -> Self {
        Self { client, address, facts, asked: Instant::now() }
    }

    /// Says whether the server knows a limit for whole transactions.
    pub(super) fn limits_transactions(&self) -> bool {
        self.facts.limits_transactions
    }

    /// Says whether it certainly leads to the server, and not to a pooler or a gateway in front of it.
    pub(super) fn is_direct(&self) -> bool {
        self.facts.is_at(self.address.ip, self.address.port)
    }

    /// Fails where nothing can be written, whatever is tried.
    pub(super) fn writable(&self) -> Result<(), StoreError> {
        if !self.facts.standby {
            return Ok(());
        }
        let problem = format!(
            "{} is a standby, which takes no writes; hint: name the primary, or all servers with \
             target_session_attrs=read-write",
            self.address
        );
        Err(StoreError::new(StoreErrorKind::Unavailable, problem))
    }
}

impl Deref for ServerConnection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for ServerConnection {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}

/// Makes the pool's connections, and says which of them are still good.
#[derive(Debug)]
pub struct Connections(Connector);

impl Connections {
    pub(super) fn connector(&self) -> &Connector {
        &self.0
    }
}

/// The pool.
pub(super) type ConnectionPool = Pool<Connections>;

/// Prepares a pool of up to `size` connections. How long one may take to be made is the connector's business.
pub(super) fn pool(connector: &Connector, size: u32) -> Result<ConnectionPool, StoreError> {
    let pool = Pool::builder(Connections(connector.clone()))
        .max_size(size.max(1) as usize)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_WITHIN))
        .build();
    pool.map_err(|error| {
        StoreError::new(StoreErrorKind::Unusable, "cannot build the connection pool").with_source(error)
    })
}

impl Manager for Connections {
    type Type = ServerConnection;
    type Error = StoreError;

    async fn create(&self) -> Result<ServerConnection, StoreError> {
        self.0.connect().await
    }

    /// Asks a session again now and then what it is: servers change their roles, and poolers their settings.
    async fn recycle(&self, connection: &mut ServerConnection, _: &Metrics) -> RecycleResult<StoreError> {
        if connection.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        let is_old = connection.asked.elapsed() >= BELIEVED;
        if !is_old && !connection.facts.standby {
            return Ok(());
        }
        let config = self.0.last();
        let facts = SessionFacts::ask(&connection.client, &config.asked, ANSWER_WITHIN).await;
        let facts = facts.map_err(RecycleError::message)?;
        match facts.suits(config.target) {
            // A second choice is let go in time, for another server may be the first one by now.
            Suits::IfNeedBe if is_old && config.servers.len() > 1 => {
                Err(RecycleError::message("there may be a better one"))
            }
            Suits::Well | Suits::IfNeedBe => {
                connection.facts = facts;
                if is_old {
                    connection.asked = Instant::now();
                }
                Ok(())
            }
            Suits::No(difference) => Err(RecycleError::message(difference)),
        }
    }
}
