use bytes::Bytes;
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::place::{QueuePlace, RowVersion};
use super::server_time::ServerTime;
use super::table::TableRow;
use crate::carrier::Carrier;
use crate::event::{Event, Headers};
use crate::store::payload_too_large;

/// The columns of `claim.sql`, in their order there: looking a name up for each value of each row would take longer than
/// reading it.
#[derive(Clone, Copy)]
enum Column {
    Version,
    Id,
    Topic,
    EventType,
    Payload,
    PayloadBytes,
    Carrier,
    Headers,
    EventKey,
    CreatedAt,
    AttemptCount,
    AvailableAt,
    Beyond,
}

impl Column {
    /// Reads what the statement never leaves out.
    fn of<'a, T: FromSql<'a>>(self, row: &'a Row) -> T {
        row.get(self as usize)
    }
}

/// A row of `claim.sql`.
impl TableRow for Row {
    fn version(&self) -> RowVersion {
        Column::Version.of(self)
    }

    fn place(&self) -> QueuePlace {
        QueuePlace { at: Column::AvailableAt.of(self), id: Column::Id.of(self) }
    }

    fn is_beyond(&self) -> bool {
        Column::Beyond.of(self)
    }

    fn event(&self, event_bytes: u64) -> Event {
        event(self, event_bytes)
    }
}

/// Reads a row. Whatever is wrong with it becomes the event's defect: the columns are data that anybody may have
/// written, and the neighbours must not suffer.
fn event(row: &Row, event_bytes: u64) -> Event {
    let id = Column::Id.of(row);
    let mut defect = None;
    let topic = or_defect(text(row, Column::Topic, "topic"), &mut defect).unwrap_or_default();
    let event_type = or_defect(text(row, Column::EventType, "event_type"), &mut defect).unwrap_or_default();
    let key = or_defect(text(row, Column::EventKey, "event_key"), &mut defect);
    let headers = or_defect(headers(row), &mut defect);
    let payload = or_defect(payload(row, event_bytes), &mut defect);
    let created_at = or_defect(created_at(row), &mut defect);
    let carrier = carrier(row).unwrap_or_else(|| {
        tracing::warn!(event_id = %id, "unreadable carrier: the event starts a new trace");
        Carrier::default()
    });
    let attempt_count = Column::AttemptCount.of::<Option<i32>>(row).unwrap_or_default();
    Event { id, topic, event_type, payload, carrier, headers, key, created_at, attempt_count, defect }
}

/// Reads a time that may be missing, as near as it can be shown.
pub(super) fn nearest_time(row: &Row, column: &str) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<ServerTime>>(column)?.map(ServerTime::nearest))
}

/// Keeps the first defect and goes on without the value.
fn or_defect<T: Default>(value: Result<T, String>, defect: &mut Option<String>) -> T {
    value.unwrap_or_else(|found| {
        defect.get_or_insert(found);
        T::default()
    })
}

fn text(row: &Row, column: Column, name: &str) -> Result<Option<String>, String> {
    // Fails only where the database's encoding lets bytes through that are no text.
    row.try_get(column as usize).map_err(|_| format!("column {name} is not UTF-8"))
}

fn headers(row: &Row) -> Result<Headers, String> {
    let Some(headers) = text(row, Column::Headers, "headers")? else { return Ok(Headers::new()) };
    serde_json::from_str(&headers).map_err(|_| "column headers: expected a JSON object of strings".into())
}

fn carrier(row: &Row) -> Option<Carrier> {
    match text(row, Column::Carrier, "carrier") {
        Ok(Some(carrier)) => Carrier::from_json(&carrier).ok(),
        Ok(None) => Some(Carrier::default()),
        Err(_) => None,
    }
}

fn payload(row: &Row, event_bytes: u64) -> Result<Bytes, String> {
    match (text(row, Column::Payload, "payload")?, Column::PayloadBytes.of::<Option<i64>>(row)) {
        (Some(payload), _) => Ok(payload.into()),
        (None, Some(got)) => Err(payload_too_large(event_bytes, got.unsigned_abs())),
        (None, None) => Err("column payload is NULL".into()),
    }
}

fn created_at(row: &Row) -> Result<Timestamp, String> {
    let created_at: Option<ServerTime> = Column::CreatedAt.of(row);
    let timestamp = created_at.and_then(ServerTime::timestamp);
    timestamp.ok_or_else(|| "column created_at: expected a time between the years 0 and 9999".into())
}
