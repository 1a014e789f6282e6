//! Makes connections: every command's, one way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use super::PostgresConfig;
use super::address::{ServerAddress, resolve};
use super::asked::{SessionFacts, Suits};
use super::error::{Failure, one_line};
use super::pool::ServerConnection;
use crate::error_chain;
use crate::failed_lately::FailedLately;
use crate::renew::{Renewed, reread};
use crate::store::{StoreError, StoreErrorKind};

/// How long all addresses together may take, each its share, unless the connection string says how long each may.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The least that an address has, however many there are.
const SHARE_MIN: Duration = Duration::from_secs(1);

/// Makes connections by what the connection string and the certificates are at that moment. Clones share what was read and
/// met.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    given: PostgresConfig,
    renewed: Renewed<(PostgresConfig, MakeRustlsConnect)>,
    met: Arc<Met>,
}

/// What was met on the way to servers.
#[derive(Debug, Default)]
struct Met {
    failed: FailedLately,
    /// Whether the last try came to a session.
    answered: AtomicBool,
    /// While nobody answers, one try at a time is enough: more would pile up at a pooler that only listens.
    turn: Mutex<()>,
}

/// All addresses failed, each in its own way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoServer(String);

impl Connector {
    pub(super) fn new(given: PostgresConfig) -> Result<Self, StoreError> {
        let tls = given.tls.connector(&given.session)?;
        let renewed = Renewed::new("the PostgreSQL connection string", (given.clone(), tls));
        Ok(Self { given, renewed, met: Arc::default() })
    }

    /// Returns what a connection that is made now needs.
    pub(super) fn current(&self) -> (PostgresConfig, MakeRustlsConnect) {
        self.renewed.renew(self.read().map_err(|error| one_line(&error)))
    }

    /// Returns what was read last.
    pub(super) fn last(&self) -> PostgresConfig {
        self.renewed.last().0
    }

    fn read(&self) -> Result<(PostgresConfig, MakeRustlsConnect), StoreError> {
        let config = match &self.given.dsn_file {
            Some(file) => {
                let cannot =
                    |error| StoreError::new(StoreErrorKind::Unusable, "cannot read its file").with_source(error);
                PostgresConfig::from_dsn(&reread(Some(file), "").map_err(cannot)?)?
            }
            None => self.given.clone(),
        };
        let tls = config.tls.connector(&config.session)?;
        Ok((config, tls))
    }

    /// Connects to the first address that comes to a session as the string asks for. Each has its own share of the time.
    pub(super) async fn connect(&self) -> Result<ServerConnection, StoreError> {
        let _turn = self.turn().await?;
        let (config, tls) = self.current();
        let (mut addresses, mut failures) = resolve(&config.servers, CONNECT_WITHIN).await;
        if config.shuffled {
            fastrand::shuffle(&mut addresses);
        }
        self.met.failed.last(&mut addresses);
        let mut second_choice = None;
        let within = config.connect_timeout.unwrap_or_else(|| share(addresses.len()));
        for address in &addresses {
            let trying = self.met.failed.trying(address);
            match attempt(&config, address, tls.clone(), within).await {
                Ok((connection, Suits::Well)) => {
                    trying.works();
                    self.met.answered.store(true, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok((connection, Suits::IfNeedBe)) => {
                    trying.works();
                    second_choice.get_or_insert(connection);
                }
                Ok((_, Suits::No(failure))) | Err(failure) => failures.push(format!("{address}: {failure}")),
            }
        }
        self.met.answered.store(second_choice.is_some(), Ordering::Relaxed);
        second_choice.ok_or_else(|| no_server(failures.join("; ")))
    }

    /// Waits until nobody else tries, unless somebody came through lately.
    async fn turn(&self) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, StoreError> {
        if self.met.answered.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let turn = timeout(CONNECT_WITHIN, self.met.turn.lock()).await;
        turn.map(Some)
            .map_err(|_| no_server(format!("{}: nobody answers, and another try goes on", self.last().shown())))
    }
}

/// Explains an error that blames the server for what may be the certificate's nature.
fn refused(problem: &str) -> String {
    if problem.contains("server did not use channel binding") {
        return format!("{problem}; or its certificate is of a kind that gives none, such as RSA-PSS and Ed25519");
    }
    problem.to_owned()
}

fn no_server(failures: String) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "cannot connect to PostgreSQL").with_source(NoServer(failures))
}

fn share(addresses: usize) -> Duration {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    (CONNECT_WITHIN / addresses).max(SHARE_MIN)
}

/// Tries one address, up to a session that was asked what it is. Given up, it closes its connection.
async fn attempt(
    config: &PostgresConfig,
    address: &ServerAddress,
    tls: MakeRustlsConnect,
    within: Duration,
) -> Result<(ServerConnection, Suits), String> {
    let late = || format!("no answer within {within:?}");
    let began = Instant::now();
    let driver = address.config(&config.session);
    let connected = timeout(within, driver.connect(tls)).await.map_err(|_| late())?;
    let (client, connection) = connected.map_err(|error| refused(&error_chain(&*error.cause())))?;
    let place = address.to_string();
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            warn!(server = place, error = error_chain(&*error.cause()), "connection to PostgreSQL ended");
        }
    });
    // Ends the task when it is dropped.
    let client = ClientWrapper::new(client, task);
    let left = within.saturating_sub(began.elapsed());
    let facts = SessionFacts::ask(&client, &config.asked, left).await;
    let facts = facts.map_err(|problem| if began.elapsed() >= within { late() } else { problem })?;
    let suits = facts.suits(config.target);
    Ok((ServerConnection::new(client, address.clone(), facts), suits))
}
