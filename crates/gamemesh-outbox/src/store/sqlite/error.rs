use crate::store::{StoreError, StoreErrorKind};

/// SQLite's primary result codes, as <https://www.sqlite.org/rescode.html> numbers them.
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const PERM: i32 = 3;
    pub(super) const READONLY: i32 = 8;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IOERR: i32 = 10;
    pub(super) const FULL: i32 = 13;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const AUTH: i32 = 23;
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

/// Returns why SQLite refuses to write something, being well itself; otherwise the error.
pub(super) fn refusal(error: sqlx::Error) -> Result<String, sqlx::Error> {
    use code::{
        AUTH, BUSY, CANTOPEN, CORRUPT, FULL, INTERRUPT, IOERR, LOCKED, NOMEM, NOTADB, PERM, PROTOCOL, READONLY,
    };
    let of_the_file =
        [AUTH, BUSY, CANTOPEN, CORRUPT, FULL, INTERRUPT, IOERR, LOCKED, NOMEM, NOTADB, PERM, PROTOCOL, READONLY];
    match (result_code(&error), error.as_database_error()) {
        (Some(code), Some(refused)) if !of_the_file.contains(&code) => Ok(refused.message().to_owned()),
        _ => Err(error),
    }
}

/// Says whether a constraint or a trigger did not let it happen.
pub(super) fn is_constraint(error: &sqlx::Error) -> bool {
    result_code(error) == Some(code::CONSTRAINT)
}

/// Says whether a change of the schema may work another time: not if something is wrong with its SQL.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    error.as_database_error().is_none() || matches!(result_code(error), Some(code::BUSY | code::LOCKED))
}

/// Classifies a failure of a relay at work: the file is put back, the table is migrated, the disk is mounted again, and until
/// then it is not ready. Only what is no database any more stays so.
pub(super) fn at_work_error(doing: &str, error: sqlx::Error) -> StoreError {
    classified(doing, error, &[code::CORRUPT, code::NOTADB])
}

/// Classifies a failure while `doing` something: a table that is missing or a file that is no database stays so; a busy
/// or a full disk does not.
pub(super) fn store_error(doing: &str, error: sqlx::Error) -> StoreError {
    use code::{CANTOPEN, CORRUPT, ERROR, NOTADB, PERM, READONLY};
    classified(doing, error, &[ERROR, PERM, READONLY, CORRUPT, CANTOPEN, NOTADB])
}

fn classified(doing: &str, error: sqlx::Error, unusable: &[i32]) -> StoreError {
    let stays_so = result_code(&error).is_some_and(|code| unusable.contains(&code));
    let kind = if stays_so { StoreErrorKind::Unusable } else { StoreErrorKind::Unavailable };
    StoreError::new(kind, format!("cannot {doing}")).with_source(error)
}
