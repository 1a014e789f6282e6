use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::super::place::{QueuePlace, RowVersion};
use super::super::server_time::ServerTime;
use super::super::table::{Columns, TableRow};
use crate::carrier::Carrier;
use crate::event::{Event, Headers};
use crate::store::{ClaimLimit, Route, payload_too_large};

/// The largest payload.
pub(super) const PAYLOAD_MAX: usize = 200;
static PAYLOAD: [u8; PAYLOAD_MAX] = [b'7'; PAYLOAD_MAX];

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) route: Route,
    /// Bytes of the payload.
    pub(super) payload: usize,
    /// Bytes of headers and carrier.
    pub(super) headers: u64,
    pub(super) writable: Writable,
    /// What of it can be read.
    pub(super) readable: Columns,
    pub(super) available_at: i64,
    pub(super) state: State,
    pub(super) attempts: u32,
    /// How often it was changed.
    pub(super) version: u32,
    pub(super) committed_at: i64,
    pub(super) held_by: Option<u32>,
    /// Since when nobody holds it.
    pub(super) free_since: i64,
    /// When a look last came by, whether it took this row or older ones.
    pub(super) reached_at: i64,
}

/// What may be written of a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Writable {
    All,
    /// All but that it was published.
    NoMark,
    Nothing,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Pending,
    Published,
    Failed,
}

impl Writable {
    /// Says whether a change is refused: a mark, or another one.
    pub(super) fn refuses(self, is_mark: bool) -> bool {
        match self {
            Self::All => false,
            Self::NoMark => is_mark,
            Self::Nothing => true,
        }
    }
}

impl Row {
    pub(super) fn place(&self) -> QueuePlace {
        QueuePlace { at: ServerTime::at(self.available_at), id: self.id }
    }

    pub(super) fn row_version(&self) -> RowVersion {
        RowVersion::at(u32::try_from(self.id.as_u128() & 0xffff).expect("two bytes"), self.version as u16)
    }

    pub(super) fn can_be_read(&self, columns: Columns) -> bool {
        let Columns { names, payload, carrier, headers } = self.readable;
        (names || !columns.names)
            && (payload || !columns.payload)
            && (carrier || !columns.carrier)
            && (headers || !columns.headers)
    }

    pub(super) fn can_be_published(&self, event_bytes: u64) -> bool {
        self.payload as u64 <= event_bytes && self.can_be_read(Columns { carrier: false, ..Columns::ALL })
    }

    pub(super) fn is_excepted(&self, limit: &ClaimLimit) -> bool {
        limit.except.contains(&self.route) || limit.except_ids.contains(&self.id)
    }

    /// Says what it takes of a claim's bytes.
    pub(super) fn weight(&self, event_bytes: u64) -> u64 {
        (self.payload as u64).min(event_bytes) + self.headers
    }

    pub(super) fn free(&mut self, connection: u32, at: i64) {
        if self.held_by == Some(connection) {
            (self.held_by, self.free_since) = (None, at);
        }
    }
}

/// A row as a statement returns it.
#[derive(Clone, Debug)]
pub(super) struct ModelRow {
    row: Row,
    columns: Columns,
    pub(super) beyond: bool,
    /// A mistake: it says that it stands at the end of the queue.
    pub(super) lies_far_away: bool,
}

impl ModelRow {
    pub(super) fn new(row: &Row, columns: Columns, beyond: bool) -> Self {
        Self { row: row.clone(), columns, beyond, lies_far_away: false }
    }
}

impl TableRow for ModelRow {
    fn version(&self) -> RowVersion {
        self.row.row_version()
    }

    fn place(&self) -> QueuePlace {
        if self.lies_far_away {
            QueuePlace { at: ServerTime::at(i64::MAX), ..self.row.place() }
        } else {
            self.row.place()
        }
    }

    fn is_beyond(&self) -> bool {
        self.beyond
    }

    fn event(&self, event_bytes: u64) -> Event {
        let Row { id, route, payload, attempts, .. } = &self.row;
        let defect = (*payload as u64 > event_bytes).then(|| payload_too_large(event_bytes, *payload as u64));
        let loaded = self.columns.payload && defect.is_none();
        Event {
            id: *id,
            topic: route.topic.clone(),
            event_type: route.event_type.clone(),
            payload: if loaded { Bytes::from_static(&PAYLOAD[..*payload]) } else { Bytes::new() },
            carrier: Carrier::default(),
            headers: Headers::new(),
            key: None,
            created_at: Timestamp::UNIX_EPOCH,
            attempt_count: i32::try_from(*attempts).expect("few attempts"),
            defect,
        }
    }
}

/// Returns how much payload was read.
pub(super) fn bytes(events: &[Event]) -> u64 {
    events.iter().map(|event| event.payload.len() as u64).sum()
}
