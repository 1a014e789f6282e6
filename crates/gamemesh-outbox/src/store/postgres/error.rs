use std::fmt;
use std::time::Duration;

use deadpool::managed::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::error_chain::{bounded_line, error_chain};
use crate::store::{StoreError, StoreErrorKind};

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
    /// Says whether it is the fault of one row, if only one was read.
    fn is_of_a_row(&self) -> bool;
    /// Says whether it may be the fault of rows.
    fn may_fall_on_rows(&self) -> bool;
    /// Says whether the server is well and refuses to write this.
    fn is_of_the_write(&self) -> bool;
    /// Says whether the server goes on, though it said something that is usually said of itself: a trigger may have said it, of
    /// one row.
    fn may_be_of_the_write(&self) -> bool;
    /// Says whether the server's encoding has no such characters.
    fn is_of_the_encoding(&self) -> bool;
    /// Says whether the server ended the statement because it took too long.
    fn ran_out_of_time(&self) -> bool;
    /// Says what may be shown of it.
    fn reason(&self) -> String;
    /// Returns what may be shown of it.
    fn cause(self) -> Box<dyn std::error::Error + Send + Sync>;
}

/// Classes of errors that no row is to blame for: connection, authorization, transactions, conflicts with others, names and
/// privileges, resources, locks, interventions. Everything else is said of data: text that the server cannot make, bytes
/// that are no text, a damaged page.
const NOT_OF_DATA: [&str; 11] = ["08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57"];
/// What many rows of a long text at once exhaust: memory and temporary files. Perhaps no row is to blame.
const OF_MANY: [SqlState; 3] = [SqlState::OUT_OF_MEMORY, SqlState::DISK_FULL, SqlState::CONFIGURATION_LIMIT_EXCEEDED];

/// Classes of errors that say something of the server or the connection, and nothing of what was written: connection, resources,
/// operator intervention, system.
const ENDS_MORE_CLASSES: [&str; 4] = ["08", "53", "57", "58"];
/// More of that kind: the transaction was ended, or this server takes no writes at all.
const ENDS_MORE: [SqlState; 4] = [
    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    SqlState::IN_FAILED_SQL_TRANSACTION,
    SqlState::NO_ACTIVE_SQL_TRANSACTION,
    SqlState::READ_ONLY_SQL_TRANSACTION,
];
/// Those of them that no trigger says of another server: the transaction is gone, time is up, or this server has no memory or no
/// disk left, which comes and goes from one statement to the next.
const OF_ALL: [SqlState; 3] =
    [SqlState::IN_FAILED_SQL_TRANSACTION, SqlState::NO_ACTIVE_SQL_TRANSACTION, SqlState::QUERY_CANCELED];
const OF_ALL_CLASSES: [&str; 2] = ["53", "58"];
/// And one of PostgreSQL 17, which the client has no name for: `transaction_timeout` ended the session.
const TRANSACTION_TIMEOUT: &str = "25P04";
const OF_THE_ENCODING: [SqlState; 2] = [SqlState::UNTRANSLATABLE_CHARACTER, SqlState::CHARACTER_NOT_IN_REPERTOIRE];

impl Failure for Error {
    fn is_of_a_row(&self) -> bool {
        self.code().is_some_and(|code| !NOT_OF_DATA.contains(&&code.code()[..2]))
    }

    fn may_fall_on_rows(&self) -> bool {
        self.is_of_a_row() || self.code().is_some_and(|code| OF_MANY.contains(code))
    }

    fn is_of_the_write(&self) -> bool {
        let ends_more = |code: &SqlState| {
            ENDS_MORE_CLASSES.contains(&&code.code()[..2])
                || ENDS_MORE.contains(code)
                || code.code() == TRANSACTION_TIMEOUT
        };
        self.code().is_some_and(|code| !ends_more(code))
    }

    fn may_be_of_the_write(&self) -> bool {
        // What ends a session is FATAL.
        let goes_on = |error: &DbError| error.parsed_severity() == Some(Severity::Error);
        let of_all = |code: &SqlState| OF_ALL.contains(code) || OF_ALL_CLASSES.contains(&&code.code()[..2]);
        !self.is_of_the_write() && self.as_db_error().is_some_and(|error| goes_on(error) && !of_all(error.code()))
    }

    fn is_of_the_encoding(&self) -> bool {
        self.code().is_some_and(|code| OF_THE_ENCODING.contains(code))
    }

    fn ran_out_of_time(&self) -> bool {
        self.code() == Some(&SqlState::QUERY_CANCELED)
    }

    fn reason(&self) -> String {
        self.as_db_error().map_or_else(|| self.to_string(), |error| ServerError::of(error).to_string())
    }

    fn cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        match self.as_db_error() {
            Some(error) => Box::new(ServerError::of(error)),
            None => Box::new(self),
        }
    }
}

impl ServerError {
    fn of(error: &DbError) -> Self {
        let mut message = bounded_line(error.message());
        if *error.code() == SqlState::LOCK_NOT_AVAILABLE {
            message += ": somebody else holds a lock that this needs";
        }
        Self { code: error.code().code().to_owned(), message }
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

/// SQLSTATE classes of what may be over another time: connection, rollback, resources, object in use or locked, operator
/// intervention.
pub(super) const MAY_PASS: [&str; 5] = ["08", "40", "53", "55", "57"];
/// SQLSTATE classes of what was asked for and is not done: data, constraints, and what functions, triggers and views with a
/// check option raise.
const REFUSES: [&str; 6] = ["22", "23", "2F", "38", "44", "P0"];

/// Says in `doing` what failed of what a person asked for, and what can be done about it.
pub(super) fn of_a_question(doing: &str, error: Error) -> StoreError {
    let kind = match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
            const LOCKED: &str =
                "somebody else's lock is in the way; hint: outbox-relay doctor names who locks the table";
            return StoreError::new(StoreErrorKind::Unavailable, format!("{doing}: {LOCKED}"));
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => StoreErrorKind::NotGranted,
        Some(code) if REFUSES.contains(&&code.code()[..2]) => StoreErrorKind::Refused,
        Some(code) if !MAY_PASS.contains(&&code.code()[..2]) => StoreErrorKind::Unusable,
        _ => StoreErrorKind::Unavailable,
    };
    store_error(kind, doing, error)
}

/// Says why the pool has no connection to give.
pub(super) fn no_connection(error: PoolError<StoreError>) -> StoreError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(_) => StoreError::new(
            StoreErrorKind::Unavailable,
            "no connection to PostgreSQL became free in time: all are in use, or being made",
        ),
        other => {
            StoreError::new(StoreErrorKind::Unavailable, "cannot connect to PostgreSQL").with_source(other.to_string())
        }
    }
}

pub(super) fn no_answer(doing: &str, waited: Duration) -> StoreError {
    // No more digits than anybody asked for.
    let waited = Duration::from_millis(waited.as_millis() as u64);
    StoreError::new(StoreErrorKind::Unavailable, format!("{doing}: no answer within {waited:?}"))
}

/// Puts an error and its causes on one line.
pub(super) fn one_line(error: &StoreError) -> String {
    error_chain(error)
}
