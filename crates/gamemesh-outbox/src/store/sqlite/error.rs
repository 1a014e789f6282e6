use crate::store::{StoreError, StoreErrorKind};

/// SQLite's primary result codes, as <https://www.sqlite.org/rescode.html> numbers them.
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const PERM: i32 = 3;
    pub(super) const READONLY: i32 = 8;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
}

/// Returns the primary result code of an error that SQLite itself reported.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Says whether another connection was in the way.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    result_code(error) == Some(code::BUSY)
}

/// Says whether a change of the schema may work another time: not if something is wrong with its SQL.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    error.as_database_error().is_none() || matches!(result_code(error), Some(code::BUSY | code::LOCKED))
}

/// Classifies a failure while `doing` something: a table that is missing or a file that is no database stays so; a busy
/// or a full disk does not.
pub(super) fn store_error(doing: &str, error: sqlx::Error) -> StoreError {
    use code::{CANTOPEN, CORRUPT, ERROR, NOTADB, PERM, READONLY};
    let kind = match result_code(&error) {
        Some(ERROR | PERM | READONLY | CORRUPT | CANTOPEN | NOTADB) => StoreErrorKind::Unusable,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, format!("cannot {doing}")).with_source(error)
}
