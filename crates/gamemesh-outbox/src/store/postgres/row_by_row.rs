//! Claiming row by row, when a row among those that are due keeps the server from answering at all.
//!
//! A column of JSON holds numbers in a form that may be a thousand times shorter than their text. Where that text is longer
//! than the server can make (1 GiB), reading the row is an error, and so is each claim that would return it. The same goes for
//! bytes that are no text, and for damaged pages. The row is found and set aside alone; everybody else goes on.

use bytes::Bytes;
use tokio::time::Instant;

use super::error::Failure;
use super::looked::Looked;
use super::place::Part;
use super::table::{Columns, Held, Step, Table, TableRow, Time};
use crate::carrier::Carrier;
use crate::event::{Event, Headers};
use crate::store::ClaimLimit;

/// Claims and reads the oldest due events of a part of the queue one by one, in the transaction that is open, in about half of
/// the time that it may live.
pub(super) async fn claim<T: Table>(
    table: &T,
    limit: &ClaimLimit,
    part: Part,
    time: Time,
) -> Result<Looked, T::Failure> {
    let started = Instant::now();
    let due = table.hold(limit, part, time).await?;
    let started_to_read = Instant::now();
    // Reading the rows is no part of looking for them. Elsewhere the claim that failed was.
    let took = part.is_bite().then(|| started_to_read - started);
    let mut looked = Looked { took, ..Looked::default() };
    let (mut bytes, mut done) = (0, 0);
    let (mut refused, mut stays) = (None, None);
    for held in &due {
        let event = match read(table, held, limit.event_bytes).await {
            Ok(event) => event,
            // Perhaps the row is more than the server has room for. Where others can be read it is not the server's fault,
            // and the row stays as it is.
            Err(failure) if failure.may_fall_on_rows() => {
                table.step(Step::BackBeforeRow).await?;
                refused.get_or_insert(failure);
                stays.get_or_insert(held.place);
                done += 1;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        bytes += event.payload.len() as u64;
        let first = looked.events.is_empty();
        if (bytes > limit.bytes && !(first && limit.any_size)) || (started_to_read.elapsed() > time.idle / 2 && !first)
        {
            break;
        }
        looked.claim(held.place, held.version, event);
        done += 1;
    }
    if let (Some(failure), true) = (refused, looked.events.is_empty()) {
        return Err(failure);
    }
    looked.more_due = due.len() == limit.events as usize || done < due.len();
    looked.beyond = stays.or_else(|| due.get(done).map(|held| held.place));
    Ok(looked)
}

async fn read<T: Table>(table: &T, held: &Held, event_bytes: u64) -> Result<Event, T::Failure> {
    if let Some(row) = try_read(table, held, event_bytes, Columns::ALL).await? {
        return Ok(row.event(event_bytes));
    }
    let readable = async |columns| Ok::<_, T::Failure>(try_read(table, held, event_bytes, columns).await?.is_some());
    let names = readable(Columns { names: true, ..Columns::NONE }).await?;
    let carrier = readable(Columns { carrier: true, ..Columns::NONE }).await?;
    let headers = readable(Columns { headers: true, ..Columns::NONE }).await?;
    // Where all others can be read it was the payload; to fail once more would take the server seconds.
    let payload = !(names && carrier && headers) && readable(Columns { payload: true, ..Columns::NONE }).await?;
    let columns = Columns { names, payload, carrier, headers };
    let Some(row) = try_read(table, held, event_bytes, columns).await? else { return Ok(unreadable(held)) };
    let mut event = row.event(event_bytes);
    // A carrier costs the trace and not the event.
    let column = [("topic, event_type or event_key", names), ("payload", payload), ("headers", headers)];
    if let Some((column, _)) = column.into_iter().find(|(_, read)| !read) {
        event.defect = Some(format!("column {column} cannot be read as text: it is too long or damaged"));
    }
    Ok(event)
}

/// Makes up the event of a row of which nothing can be read but where it stands.
fn unreadable(held: &Held) -> Event {
    Event {
        id: held.place.id,
        topic: String::new(),
        event_type: String::new(),
        payload: Bytes::new(),
        carrier: Carrier::default(),
        headers: Headers::new(),
        key: None,
        created_at: held.place.at.nearest(),
        attempt_count: 0,
        defect: Some("the row cannot be read: it is damaged".to_owned()),
    }
}

/// Reads these columns, or returns `None` where the row does not let itself be read.
async fn try_read<T: Table>(
    table: &T,
    held: &Held,
    event_bytes: u64,
    columns: Columns,
) -> Result<Option<T::Row>, T::Failure> {
    table.step(Step::BeforeRow).await?;
    match table.read(held.place.id, event_bytes, columns).await {
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
