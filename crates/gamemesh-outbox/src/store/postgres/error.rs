use std::fmt;
use std::time::Duration;

use deadpool_postgres::PoolError;
use tokio_postgres::Error;

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

/// Says in `doing` what failed. Everything that can happen while a relay runs may be over later, a revoked privilege or
/// a table that somebody is rebuilding included: it is tried again, and stays loud. What never heals is found by
/// `check_schema` before the relay starts.
pub(super) fn unavailable(doing: &str, error: Error) -> StoreError {
    store_error(StoreErrorKind::Unavailable, doing, error)
}

/// Says in `doing` what failed, where whoever calls knows of which kind that is.
pub(super) fn store_error(kind: StoreErrorKind, doing: &str, error: Error) -> StoreError {
    let failed = StoreError::new(kind, doing);
    match error.as_db_error() {
        Some(error) => failed
            .with_source(ServerError { code: error.code().code().to_owned(), message: error.message().to_owned() }),
        None => failed.with_source(error),
    }
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
