//! Claiming row by row, when a row among those that are due keeps the server from answering at all.
//!
//! A column of JSON holds numbers in a form that may be a thousand times shorter than their text. Where that text is longer
//! than the server can make (1 GiB), reading the row is an error, and so is each claim that would return it. The row is
//! found and set aside alone; everybody else goes on.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::error::Failure;
use super::looked::Looked;
use super::place::QueuePlace;
use super::table::{Columns, Step, Table, TableRow};
use crate::event::Event;
use crate::store::ClaimLimit;

/// Claims and reads the oldest due events one by one, in the transaction that is open, for at most about `time`.
pub(super) async fn claim<T: Table>(table: &T, limit: &ClaimLimit, time: Duration) -> Result<Looked, T::Failure> {
    let due = table.hold(limit).await?;
    let started = Instant::now();
    let (mut looked, mut bytes) = (Looked::default(), 0);
    for &id in &due {
        let (row, event) = read(table, id, limit.event_bytes).await?;
        bytes += event.payload.len() as u64;
        let first = looked.events.is_empty();
        if (bytes > limit.bytes && !(first && limit.any_size)) || (started.elapsed() > time && !first) {
            break;
        }
        looked.claim(&row, event);
    }
    let left = due.len() > looked.events.len();
    looked.more_due = due.len() == limit.events as usize || left;
    looked.beyond = left.then_some(QueuePlace::START);
    Ok(looked)
}

async fn read<T: Table>(table: &T, id: Uuid, event_bytes: u64) -> Result<(T::Row, Event), T::Failure> {
    if let Some(row) = try_read(table, id, event_bytes, Columns::ALL).await? {
        let event = row.event(event_bytes);
        return Ok((row, event));
    }
    let readable = async |columns| Ok::<_, T::Failure>(try_read(table, id, event_bytes, columns).await?.is_some());
    let carrier = readable(Columns { carrier: true, ..Columns::NONE }).await?;
    let headers = readable(Columns { headers: true, ..Columns::NONE }).await?;
    // Where both can be read it was the payload; to fail once more would take the server seconds.
    let payload = !(carrier && headers) && readable(Columns { payload: true, ..Columns::NONE }).await?;
    let columns = Columns { payload, carrier, headers };
    let row = table.read(id, event_bytes, columns).await?;
    let mut event = row.event(event_bytes);
    // A carrier costs the trace and not the event.
    let unreadable = [("payload", columns.payload), ("headers", columns.headers)].into_iter().find(|(_, read)| !read);
    if let Some((column, _)) = unreadable {
        event.defect = Some(format!("column {column} cannot be read as text: it is too long or damaged"));
    }
    Ok((row, event))
}

/// Reads these columns, or returns `None` where the row does not let itself be read.
async fn try_read<T: Table>(
    table: &T,
    id: Uuid,
    event_bytes: u64,
    columns: Columns,
) -> Result<Option<T::Row>, T::Failure> {
    table.step(Step::BeforeRow).await?;
    match table.read(id, event_bytes, columns).await {
        Ok(row) => {
            table.step(Step::AfterRow).await?;
            Ok(Some(row))
        }
        Err(failure) if failure.is_of_a_row() => {
            table.step(Step::BackBeforeRow).await?;
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}
