//! Claiming row by row, when a row among those that are due keeps the server from answering at all.
//!
//! A column of JSON holds numbers in a form that may be a thousand times shorter than their text. Where that text is longer
//! than the server can make (1 GiB), reading the row is an error, and so is each claim that would return it. The row is
//! found and set aside alone; everybody else goes on.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::error::is_of_a_row;
use super::looked::Looked;
use super::params::pairs;
use super::place::QueuePlace;
use super::session::Session;
use super::{row, sql};
use crate::event::Event;
use crate::store::ClaimLimit;

/// Claims and reads the oldest due events one by one, in the transaction that is open, for at most about `time`.
pub(super) async fn claim(session: &Session, limit: &ClaimLimit, time: Duration) -> Result<Looked, Error> {
    let (topics, event_types) = pairs(&limit.except);
    let params = [
        (&i64::from(limit.events) as _, Type::INT8),
        (&topics as _, Type::TEXT_ARRAY),
        (&event_types as _, Type::TEXT_ARRAY),
    ];
    let due = session.client().query_typed(sql::LOCK_DUE, &params).await?;
    let started = Instant::now();
    let (mut read_rows, mut bytes) = (Vec::new(), 0);
    for id in due.iter().map(|row| row.get("id")) {
        let (row, event) = read(session, id, limit.event_bytes).await?;
        bytes += event.payload.len() as u64;
        let first = read_rows.is_empty();
        if (bytes > limit.bytes && !(first && limit.any_size)) || (started.elapsed() > time && !first) {
            break;
        }
        read_rows.push((row, event));
    }
    let left = due.len() > read_rows.len();
    let more_due = due.len() == limit.events as usize || left;
    Ok(Looked::of(read_rows.into_iter(), left.then_some(QueuePlace::START), more_due))
}

/// Which of the columns are read that may be unreadable.
#[derive(Clone, Copy)]
struct Columns {
    payload: bool,
    carrier: bool,
    headers: bool,
}

impl Columns {
    const NONE: Self = Self { payload: false, carrier: false, headers: false };
    const ALL: Self = Self { payload: true, carrier: true, headers: true };
}

async fn read(session: &Session, id: Uuid, event_bytes: u64) -> Result<(Row, Event), Error> {
    if let Some(row) = try_read(session, id, event_bytes, Columns::ALL).await? {
        let event = row::event(&row, event_bytes);
        return Ok((row, event));
    }
    let readable = async |columns| Ok::<_, Error>(try_read(session, id, event_bytes, columns).await?.is_some());
    let carrier = readable(Columns { carrier: true, ..Columns::NONE }).await?;
    let headers = readable(Columns { headers: true, ..Columns::NONE }).await?;
    // Where both can be read it was the payload; to fail once more would take the server seconds.
    let payload = !(carrier && headers) && readable(Columns { payload: true, ..Columns::NONE }).await?;
    let columns = Columns { payload, carrier, headers };
    let row = read_columns(session, id, event_bytes, columns).await?;
    let mut event = row::event(&row, event_bytes);
    // A carrier costs the trace and not the event.
    let unreadable = [("payload", columns.payload), ("headers", columns.headers)].into_iter().find(|(_, read)| !read);
    if let Some((column, _)) = unreadable {
        event.defect = Some(format!("column {column} cannot be read as text: it is too long or damaged"));
    }
    Ok((row, event))
}

/// Reads these columns, or returns `None` where the row does not let itself be read.
async fn try_read(session: &Session, id: Uuid, event_bytes: u64, columns: Columns) -> Result<Option<Row>, Error> {
    session.client().batch_execute("SAVEPOINT before_row").await?;
    match read_columns(session, id, event_bytes, columns).await {
        Ok(row) => {
            session.client().batch_execute("RELEASE before_row").await?;
            Ok(Some(row))
        }
        Err(error) if is_of_a_row(&error) => {
            session.client().batch_execute("ROLLBACK TO before_row; RELEASE before_row").await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn read_columns(session: &Session, id: Uuid, event_bytes: u64, columns: Columns) -> Result<Row, Error> {
    let event_bytes = i64::try_from(event_bytes).unwrap_or(i64::MAX);
    let params = [
        (&id as _, Type::UUID),
        (&event_bytes as _, Type::INT8),
        (&columns.payload as _, Type::BOOL),
        (&columns.carrier as _, Type::BOOL),
        (&columns.headers as _, Type::BOOL),
    ];
    let mut rows = session.client().query_typed(sql::READ_ONE, &params).await?;
    Ok(rows.pop().expect("the row is there: this transaction has locked it"))
}
