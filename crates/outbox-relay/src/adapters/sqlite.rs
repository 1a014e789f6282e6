//! SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use gamemesh_outbox::OutboxPublisher;
use gamemesh_outbox::store;
use gamemesh_outbox::store::schema::Migration;
use gamemesh_outbox::store::sqlite::{self, SqliteConfig, SqliteStore};
use sqlx::{ConnectOptions, Connection};

use super::{EventSource, OpenStore, Opening, Producer, StoreAdapter, invalid, write_all};
use crate::report::CommandError;
use crate::settings::About;
use crate::settings::types::Secret;

/// The adapter.
#[derive(Debug)]
pub(super) struct Sqlite;

#[async_trait]
impl StoreAdapter for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn about(&self) -> &'static store::About {
        &sqlite::ABOUT
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["sqlite"]
    }

    fn settings(&self) -> &'static [&'static About] {
        &[]
    }

    fn migrations(&self) -> &'static [Migration] {
        &sqlite::MIGRATIONS
    }

    fn check(&self, place: &Secret) -> Result<(), CommandError> {
        config(place).map(drop)
    }

    async fn open(&self, wanted: Opening<'_>) -> Result<OpenStore, CommandError> {
        let config = config(wanted.place)?;
        let config = if wanted.create { config.create_if_missing(true) } else { config };
        let store = SqliteStore::open(&config).await.map_err(|error| {
            CommandError::from(error).hint("`outbox-relay migrate up` creates a database that is missing")
        })?;
        Ok(OpenStore { store: Arc::new(store), producer: Box::new(config) })
    }
}

fn config(place: &Secret) -> Result<SqliteConfig, CommandError> {
    SqliteConfig::from_url(place.expose()).map_err(|error| invalid("DATABASE_URL", &error))
}

#[async_trait]
impl Producer for SqliteConfig {
    async fn emit(&self, publisher: &OutboxPublisher, source: &mut dyn EventSource) -> Result<(), CommandError> {
        let cannot = |error| CommandError::failure("nothing was written", error);
        let mut connection = self.connect_options().connect().await.map_err(cannot)?;
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(cannot)?;
        write_all(&mut tx, publisher, source).await?;
        tx.commit().await.map_err(cannot)
    }
}
