//! Reading a row that anyone may have inserted: whatever it holds, it becomes an event, perhaps with a defect.

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::IgnoredAny;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tracing::warn;
use uuid::Uuid;

use crate::carrier::Carrier;
use crate::event::{Event, Headers};
use crate::store::payload_too_large;

/// The most that is loaded of a carrier, of the headers and of the key, in bytes; more is no trace context, is more than
/// the validator lets through, and is no key.
pub(super) const CARRIER_BYTES_MAX: i64 = 16 * 1024;
pub(super) const HEADERS_BYTES_MAX: i64 = 512 * 1024;
pub(super) const KEY_BYTES_MAX: i64 = 4096;

/// Reads a row of `claim.sql`; `None` for one whose id is not a UUID: nobody could address it.
pub(super) fn read_event(row: &SqliteRow, event_bytes_max: u64) -> Result<Option<Event>, sqlx::Error> {
    let Some(id) = read_id(row.try_get("id")?) else {
        // Only with constraints switched off: ck_outbox_id keeps such rows out.
        warn!("row skipped: expected a UUID as its id");
        return Ok(None);
    };
    let mut defect = None;
    let payload_bytes: i64 = row.try_get("payload_bytes")?;
    let payload: Option<Vec<u8>> = row.try_get("payload")?;
    match &payload {
        None => defect = Some(payload_too_large(event_bytes_max, payload_bytes.unsigned_abs())),
        Some(payload) if !is_json(payload) => defect = Some("payload is not JSON".to_owned()),
        Some(_) => {}
    }
    let headers: Option<Vec<u8>> = row.try_get("headers")?;
    let headers = headers.and_then(|headers| serde_json::from_slice::<Headers>(&headers).ok()).unwrap_or_else(|| {
        defect.get_or_insert_with(|| "headers are not a JSON object of strings".to_owned());
        Headers::new()
    });
    let key: Option<Vec<u8>> = row.try_get("event_key")?;
    if key.is_none() && row.try_get("has_key")? {
        defect.get_or_insert_with(|| format!("event key too large: expected at most {KEY_BYTES_MAX} bytes"));
    }
    // The database keeps due_at in order, so a time that nobody can read falls back to it.
    let times = [row.try_get::<&[u8], _>("created_at")?, row.try_get("due_at")?];
    let created_at = times.into_iter().find_map(read_time).unwrap_or_default();
    Ok(Some(Event {
        id,
        topic: read_text(row.try_get("topic")?),
        event_type: read_text(row.try_get("event_type")?),
        payload: Bytes::from(payload.unwrap_or_default()),
        carrier: read_carrier(id, row.try_get("carrier")?),
        headers,
        key: key.map(read_text),
        created_at,
        attempt_count: read_attempts(row.try_get("attempt_count")?),
        defect,
    }))
}

/// Reads an id in the one spelling that settling looks it up by.
pub(super) fn read_id(stored: &[u8]) -> Option<Uuid> {
    let id = Uuid::try_parse_ascii(stored).ok()?;
    (id.hyphenated().to_string().as_bytes() == stored).then_some(id)
}

/// Reads a name. Bytes that are not UTF-8 become replacement characters, which no validator lets through.
pub(super) fn read_text(stored: Vec<u8>) -> String {
    String::from_utf8(stored).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reads a time as the table's default writes it, with any offset, or as SQLite's own functions do: in UTC.
pub(super) fn read_time(stored: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(stored).ok()?;
    let without_offset = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    text.parse().ok().or_else(without_offset)
}

/// Reads a counter; the column takes any number.
pub(super) fn read_attempts(stored: i64) -> i32 {
    i32::try_from(stored.max(0)).unwrap_or(i32::MAX)
}

fn is_json(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Reads the trace context. A bad one costs the trace, not the event; what it holds is not for the log.
fn read_carrier(id: Uuid, stored: Option<Vec<u8>>) -> Carrier {
    let carrier = stored.and_then(|stored| Carrier::from_json(std::str::from_utf8(&stored).ok()?).ok());
    carrier.unwrap_or_else(|| {
        warn!(event_id = %id, "carrier ignored: expected a JSON object of strings");
        Carrier::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_spelling_that_sqlite_writes() {
        let expected = "2026-01-02T03:04:05Z".parse().ok();
        for spelling in ["2026-01-02T03:04:05.000Z", "2026-01-02 03:04:05", "2026-01-02T04:04:05+01:00"] {
            assert_eq!(read_time(spelling.as_bytes()), expected, "{spelling}");
        }
        for nonsense in ["", "yesterday", "1767323045", "2026-13-01T00:00:00Z"] {
            assert_eq!(read_time(nonsense.as_bytes()), None, "{nonsense}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert!(read_id(b"0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f").is_some());
        for other in ["0192F0C1-2C5F-7CC3-98C4-DC0C0C07398F", "0192f0c12c5f7cc398c4dc0c0c07398f", "", "7"] {
            assert_eq!(read_id(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn json_is_told_from_text_at_any_depth() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for json in ["{}", " 1 ", r#"{"a":1,"a":2}"#, "1234567890123456789012345678901234567890", &deep] {
            assert!(is_json(json.as_bytes()), "{}", &json[..json.len().min(40)]);
        }
        for text in [b"".as_slice(), b"hello", b"{}{}", b"\xff", b"\"\xff\"", b"{}\0"] {
            assert!(!is_json(text), "{text:?}");
        }
    }
}
