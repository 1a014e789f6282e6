//! Events as the arrays that `postgres_insert_events.sql` takes, for every PostgreSQL driver.

use jiff::Timestamp;
use uuid::Uuid;

use crate::event::NewEvent;

pub(super) const INSERT_EVENTS: &str = include_str!("sql/postgres_insert_events.sql");

/// The parameters of [`INSERT_EVENTS`], in order.
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) topics: Vec<&'a str>,
    pub(super) event_types: Vec<&'a str>,
    pub(super) payloads: Vec<&'a str>,
    pub(super) carriers: Vec<String>,
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) headers: Vec<String>,
    /// In microseconds since 1970, which every driver can send.
    pub(super) available_at: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(events: &'a [NewEvent]) -> Self {
        let headers =
            |event: &NewEvent| serde_json::to_string(event.headers()).expect("a map of strings always serializes");
        Self {
            ids: events.iter().map(NewEvent::id).collect(),
            topics: events.iter().map(NewEvent::topic).collect(),
            event_types: events.iter().map(NewEvent::event_type).collect(),
            payloads: events.iter().map(NewEvent::payload).collect(),
            carriers: events.iter().map(|event| event.trace_carrier().to_json()).collect(),
            keys: events.iter().map(NewEvent::event_key).collect(),
            headers: events.iter().map(headers).collect(),
            available_at: events.iter().map(|event| event.due_at().map(Timestamp::as_microsecond)).collect(),
        }
    }
}
