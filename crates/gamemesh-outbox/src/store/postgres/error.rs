use std::fmt;
use std::time::Duration;

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::error_chain;
use crate::store::{StoreError, StoreErrorKind, last_error_text};

/// What the server said, without DETAIL: that can quote a whole row, payload included.
#[derive(Debug)]
struct ServerError {
    code: String,
    message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl std::error::Error for ServerError {}

/// Why a statement has no result.
pub(super) trait Failure: Send {
    /// Says whether it is the fault of one row.
    fn is_of_a_row(&self) -> bool;
    /// Says whether it may be the fault of rows.
    fn may_fall_on_rows(&self) -> bool;
    /// Returns what may be shown of it.
    fn cause(self) -> Box<dyn std::error::Error + Send + Sync>;
}

/// The server cannot make a row's text, or finds the row damaged. Nobody else is to blame, and it will not pass.
const OF_A_ROW: [SqlState; 3] = [SqlState::PROGRAM_LIMIT_EXCEEDED, SqlState::INTERNAL_ERROR, SqlState::DATA_CORRUPTED];
/// What many rows of such text at once exhaust: memory, temporary files, time. Perhaps no row is to blame.
const OF_MANY: [SqlState; 4] =
    [SqlState::OUT_OF_MEMORY, SqlState::DISK_FULL, SqlState::CONFIGURATION_LIMIT_EXCEEDED, SqlState::QUERY_CANCELED];

impl Failure for Error {
    fn is_of_a_row(&self) -> bool {
        self.code().is_some_and(|code| OF_A_ROW.contains(code))
    }

    fn may_fall_on_rows(&self) -> bool {
        self.is_of_a_row() || self.code().is_some_and(|code| OF_MANY.contains(code))
    }

    fn cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        match self.as_db_error() {
            Some(error) => {
                Box::new(ServerError { code: error.code().code().to_owned(), message: error.message().to_owned() })
            }
            None => Box::new(self),
        }
    }
}

/// Says in `doing` what failed. Everything that can happen while a relay runs may be over later, a revoked privilege or
/// a table that somebody is rebuilding included: it is tried again, and stays loud. What never heals is found by
/// `check_schema` before the relay starts.
pub(super) fn unavailable(doing: &str, failure: impl Failure) -> StoreError {
    store_error(StoreErrorKind::Unavailable, doing, failure)
}

/// Says in `doing` what failed, where whoever calls knows of which kind that is.
pub(super) fn store_error(kind: StoreErrorKind, doing: &str, failure: impl Failure) -> StoreError {
    StoreError::new(kind, doing).with_source(failure.cause())
}

pub(super) fn no_connection(error: PoolError) -> StoreError {
    const DOING: &str = "cannot connect to PostgreSQL";
    match error {
        PoolError::Backend(error) => unavailable(DOING, error),
        PoolError::Timeout(_) => StoreError::new(StoreErrorKind::Unavailable, format!("{DOING} in time")),
        other => StoreError::new(StoreErrorKind::Unavailable, DOING).with_source(other),
    }
}

pub(super) fn no_answer(doing: &str, waited: Duration) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("{doing}: no answer within {waited:?}"))
}

/// Puts an error and its causes on one line.
pub(super) fn one_line(error: &StoreError) -> String {
    last_error_text(&error_chain(error))
}
