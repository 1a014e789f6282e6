use std::future::Future;
use std::pin::Pin;

use deadpool_postgres::{ConfigConnectImpl, Connect};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresConfig;
use super::error::one_line;
use crate::renew::{Renewed, reread};
use crate::store::{StoreError, StoreErrorKind};

/// Makes connections by what the connection string and the certificates are at that moment. Clones share what was read.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    given: PostgresConfig,
    renewed: Renewed<(PostgresConfig, MakeRustlsConnect)>,
}

impl Connector {
    pub(super) fn new(given: PostgresConfig) -> Result<Self, StoreError> {
        let tls = given.tls.connector()?;
        let renewed = Renewed::new("the PostgreSQL connection string", (given.clone(), tls));
        Ok(Self { given, renewed })
    }

    /// Returns what a connection that is made now needs.
    pub(super) fn current(&self) -> (PostgresConfig, MakeRustlsConnect) {
        self.renewed.renew(self.read().map_err(|error| one_line(&error)))
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
        let tls = config.tls.connector()?;
        Ok((config, tls))
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let (config, tls) = self.current();
        Box::pin(async move { ConfigConnectImpl { tls }.connect(&config.server).await })
    }
}
