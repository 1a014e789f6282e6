use std::error::Error;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::carrier::Carrier;
use crate::event::{Event, Headers};
use crate::store::dead_letters::{Cursor, InvalidCursor};
use crate::store::payload_too_large;

/// Microseconds since 2000-01-01 UTC, as the server sends them. It knows infinities and years that no other clock has,
/// so reading one never fails; turning it into a [`Timestamp`] may.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerTime(i64);

impl ServerTime {
    const EPOCH_MICROS: i64 = 946_684_800_000_000;

    fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.0.checked_add(Self::EPOCH_MICROS)?).ok()
    }

    /// The nearest time that can be shown.
    pub(super) fn nearest(self) -> Timestamp {
        self.timestamp().unwrap_or(if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }
}

impl ToSql for ServerTime {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

/// A cursor holds the time as the server counts it, infinities included.
impl ServerTime {
    pub(super) fn cursor(self, id: Uuid) -> Cursor {
        Cursor::new(self.0.to_string(), id)
    }

    pub(super) fn of(cursor: &Cursor) -> Result<Self, InvalidCursor> {
        cursor.number().map(Self)
    }
}

impl<'a> FromSql<'a> for ServerTime {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        i64::from_sql(ty, raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// Reads a row of `claim.sql`. Whatever is wrong with it becomes the event's defect: the columns are data that anybody
/// may have written, and the neighbours must not suffer.
pub(super) fn event(row: &Row, event_bytes: u64) -> Event {
    let id = row.get("id");
    let mut defect = None;
    let topic = or_defect(text(row, "topic"), &mut defect).unwrap_or_default();
    let event_type = or_defect(text(row, "event_type"), &mut defect).unwrap_or_default();
    let key = or_defect(text(row, "event_key"), &mut defect);
    let headers = or_defect(headers(row), &mut defect);
    let payload = or_defect(payload(row, event_bytes), &mut defect);
    let created_at = or_defect(created_at(row), &mut defect);
    let carrier = carrier(row).unwrap_or_else(|| {
        tracing::warn!(event_id = %id, "unreadable carrier: the event starts a new trace");
        Carrier::default()
    });
    let attempt_count = row.get::<_, Option<i32>>("attempt_count").unwrap_or_default();
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

fn text(row: &Row, column: &str) -> Result<Option<String>, String> {
    // Fails only where the database's encoding lets bytes through that are no text.
    row.try_get(column).map_err(|_| format!("column {column} is not UTF-8"))
}

fn headers(row: &Row) -> Result<Headers, String> {
    let Some(headers) = text(row, "headers")? else { return Ok(Headers::new()) };
    serde_json::from_str(&headers).map_err(|_| "column headers: expected a JSON object of strings".into())
}

fn carrier(row: &Row) -> Option<Carrier> {
    match text(row, "carrier") {
        Ok(Some(carrier)) => Carrier::from_json(&carrier).ok(),
        Ok(None) => Some(Carrier::default()),
        Err(_) => None,
    }
}

fn payload(row: &Row, event_bytes: u64) -> Result<Bytes, String> {
    match (text(row, "payload")?, row.get::<_, Option<i64>>("payload_bytes")) {
        (Some(payload), _) => Ok(payload.into()),
        (None, Some(got)) => Err(payload_too_large(event_bytes, got.unsigned_abs())),
        (None, None) => Err("column payload is NULL".into()),
    }
}

fn created_at(row: &Row) -> Result<Timestamp, String> {
    let created_at: Option<ServerTime> = row.get("created_at");
    let timestamp = created_at.and_then(ServerTime::timestamp);
    timestamp.ok_or_else(|| "column created_at: expected a time between the years 0 and 9999".into())
}
