//! PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use gamemesh_outbox::OutboxPublisher;
use gamemesh_outbox::store;
use gamemesh_outbox::store::postgres::{self, PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Migration;

use super::{EventSource, OpenStore, Opening, Producer, StoreAdapter, invalid, write_all};
use crate::report::CommandError;
use crate::settings::types::Secret;
use crate::settings::values::{choice, secret};
use crate::settings::{About, Setting, settings};

/// Connections besides those of the workers: for gauges, probes, the pruner and the page, and for routes in trouble, which are
/// tried beside the workers.
pub const CONNECTIONS_BESIDES_WORKERS: u32 = 4;

settings! {
    SETTINGS:
    POSTGRES_DSN: Secret {
        env: "POSTGRES_DSN", key: "database.postgres_dsn", default: None,
        expected: "libpq keywords such as `host=db user=relay dbname=app`",
        help: "The PostgreSQL database that holds outbox_events. Goes before DATABASE_URL. Without sslmode the server's \
               certificate must be valid (verify-full), unless the server is on this machine.";
        parse: secret, secret: true,
    }
    SYNCHRONOUS_COMMIT: bool {
        env: "OUTBOX_SYNCHRONOUS_COMMIT", key: "database.synchronous_commit", default: Some("off"),
        expected: "on or off",
        help: "Whether PostgreSQL syncs the relay's own transactions to disk. Losing one costs a duplicate with the same \
               id, never an event.";
        parse: |text| choice(text, &[("off", false), ("on", true)]),
    }
}

/// The adapter.
#[derive(Debug)]
pub(super) struct Postgres;

#[async_trait]
impl StoreAdapter for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn about(&self) -> &'static store::About {
        &postgres::ABOUT
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["postgres", "postgresql"]
    }

    fn settings(&self) -> &'static [&'static About] {
        SETTINGS
    }

    fn own_setting(&self) -> Option<&'static Setting<Secret>> {
        Some(&POSTGRES_DSN)
    }

    fn migrations(&self) -> &'static [Migration] {
        &postgres::MIGRATIONS
    }

    fn check(&self, place: &Secret) -> Result<(), CommandError> {
        config(place).map(drop)
    }

    async fn open(&self, wanted: Opening<'_>) -> Result<OpenStore, CommandError> {
        let mut config = config(wanted.place)?;
        config.connections = wanted.workers + CONNECTIONS_BESIDES_WORKERS;
        config.synchronous_commit = wanted.values.get(&SYNCHRONOUS_COMMIT);
        config.on_published = wanted.on_published;
        config.dsn_file = wanted.file;
        let store = PostgresStore::new(config)?;
        Ok(OpenStore { store: Arc::new(store.clone()), producer: Box::new(store) })
    }
}

fn config(place: &Secret) -> Result<PostgresConfig, CommandError> {
    PostgresConfig::from_dsn(place.expose()).map_err(|error| invalid("POSTGRES_DSN or DATABASE_URL", &error))
}

#[async_trait]
impl Producer for PostgresStore {
    async fn emit(&self, publisher: &OutboxPublisher, source: &mut dyn EventSource) -> Result<(), CommandError> {
        let cannot = |error| CommandError::failure("nothing was written", error);
        let mut connection = self.connection().await?;
        let mut tx = connection.transaction().await.map_err(cannot)?;
        write_all(&mut *tx, publisher, source).await?;
        tx.commit().await.map_err(cannot)
    }
}
