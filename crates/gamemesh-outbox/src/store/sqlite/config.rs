use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};

use crate::store::dead_letters::error_class;
use crate::store::{StoreError, StoreErrorKind};

/// Where the database is and how to open it.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    options: SqliteConnectOptions,
    busy_timeout: Duration,
}

impl SqliteConfig {
    /// Names the database file. It must exist, unless [`create_if_missing`](Self::create_if_missing) says otherwise: a
    /// mistyped path should be an error, not an empty outbox.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
        Self { options, busy_timeout: Duration::from_secs(10) }
    }

    /// Reads `sqlite://<path>`, as `DATABASE_URL` has it; `?mode=rwc` creates the file when it is missing.
    ///
    /// A database in memory has no file that a second process could open, so it is refused.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let unusable = |expected: &str| {
            StoreError::new(StoreErrorKind::Unusable, format!("invalid SQLite URL: expected {expected}"))
        };
        if !url.starts_with("sqlite:") {
            return Err(unusable("sqlite://<path>"));
        }
        if url.contains(":memory:") || url.contains("mode=memory") {
            return Err(unusable("a file, got a database in memory"));
        }
        if url.contains("mode=ro") || url.contains("immutable=") {
            return Err(unusable("a database that can be written"));
        }
        // The driver's error quotes what it does not know.
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| unusable("sqlite://<path>, and after a `?` only what SQLite's URLs can hold"))?;
        if options.get_filename().as_os_str().is_empty() {
            return Err(unusable("sqlite://<path>, got no path"));
        }
        Ok(Self { options: options.disable_statement_logging(), ..Self::new("") })
    }

    /// Creates the database file when it is missing.
    #[must_use]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.options = self.options.create_if_missing(create);
        self
    }

    /// Sets how long a write waits for the writer before it; 10 s unless set. SQLite has one writer at a time.
    #[must_use]
    pub fn busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// Returns the path of the database.
    pub fn path(&self) -> &Path {
        self.options.get_filename()
    }

    /// Returns options for the connections of a producer in the same process: commits are on disk when they return, see
    /// [durability](super#durability).
    pub fn connect_options(&self) -> SqliteConnectOptions {
        self.options.clone().busy_timeout(self.busy_timeout).synchronous(SqliteSynchronous::Full)
    }

    /// Options for the store's own connections.
    pub(super) fn relay_options(&self) -> SqliteConnectOptions {
        // Statements put a space before each text, because an empty one may reach a collation as a null pointer.
        let class = |text: &str| error_class(text.strip_prefix(' ').unwrap_or(text));
        self.connect_options()
            .synchronous(SqliteSynchronous::Normal)
            .collation("outbox_error_class", move |left, right| class(left).cmp(&class(right)))
    }

    pub(super) fn patience(&self) -> Duration {
        self.busy_timeout
    }
}
