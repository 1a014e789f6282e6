//! Under which conditions something was measured.

use std::collections::BTreeMap;

use gamemesh_outbox::store::OnPublished;
use outbox_relay::CommandError;
use serde::Serialize;

use crate::args::Relaying;
use crate::stage::Stage;

const VERSION: &str = "server_version";
/// Settings of PostgreSQL without which figures cannot be compared.
const SETTINGS: &[&str] =
    &[VERSION, "fsync", "full_page_writes", "max_wal_size", "shared_buffers", "synchronous_commit", "wal_level"];

/// Under which conditions something was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Conditions {
    pub version: &'static str,
    pub build: &'static str,
    pub cpus: Option<usize>,
    pub postgres: String,
    /// What decides how much the server writes, and when.
    pub postgres_settings: BTreeMap<String, String>,
    pub bus: &'static str,
    /// `None`: it was not used.
    pub bus_version: Option<String>,
    pub mode: &'static str,
    pub replicas: Option<u32>,
    pub workers: u32,
    pub batch_size: u32,
    pub batch_size_max: u32,
    pub synchronous_commit: bool,
}

impl Conditions {
    /// Collects them.
    pub(crate) async fn of(stage: &Stage, relaying: Option<&Relaying>) -> Result<Self, CommandError> {
        let sql = stage.sql().await?;
        let rows = sql.query("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY ($1)", &[&SETTINGS]);
        let rows = rows.await.map_err(|error| CommandError::failure("cannot ask for the server's settings", error))?;
        let mut postgres_settings: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let bus_version = match relaying {
            Some(_) => Some(stage.reader().await?.version().await?),
            None => None,
        };
        let config = &stage.config;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            postgres: postgres_settings.remove(VERSION).unwrap_or_default(),
            postgres_settings,
            bus: config.bus_name(),
            bus_version,
            mode: match config.relay.on_published {
                OnPublished::Mark => "mark",
                OnPublished::Delete => "delete",
            },
            replicas: relaying.map(|relaying| relaying.replicas),
            workers: config.relay.workers,
            batch_size: config.relay.batch_size,
            batch_size_max: config.relay.batch_size_max,
            synchronous_commit: config.shown("OUTBOX_SYNCHRONOUS_COMMIT") == Some("on"),
        })
    }
}
