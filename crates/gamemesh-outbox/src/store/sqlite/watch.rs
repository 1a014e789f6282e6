use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::Mutex;

use super::same_file::SameFile;

/// How often to look: well below what a person notices, and 40 reads of shared memory in a second cost nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// Notices commits by any connection of any process.
#[derive(Debug)]
pub(super) struct CommitWatch {
    options: SqliteConnectOptions,
    file: SameFile,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// A connection of its own: `data_version` tells what others did since this connection last looked.
    connection: Option<(SqliteConnection, Instant)>,
    version: Option<i64>,
}

impl CommitWatch {
    pub(super) fn new(options: SqliteConnectOptions, file: SameFile) -> Self {
        Self { options, file, seen: Mutex::default() }
    }

    /// Returns when something was committed since the last call returned, which may be before this one; never returns
    /// if the database cannot be read.
    pub(super) async fn committed(&self) {
        let mut seen = self.seen.lock().await;
        while let Ok(changed) = seen.look(&self.options, &self.file).await {
            if changed {
                return;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        seen.connection = None;
        std::future::pending().await
    }
}

impl Seen {
    async fn look(&mut self, options: &SqliteConnectOptions, file: &SameFile) -> Result<bool, sqlx::Error> {
        self.connection.take_if(|(_, made)| !file.is_open_since(made.elapsed()));
        let (connection, _) = match &mut self.connection {
            Some(connection) => connection,
            missing => missing.insert((options.connect().await?, Instant::now())),
        };
        let version = sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await?;
        Ok(self.version.replace(version) != Some(version))
    }
}
