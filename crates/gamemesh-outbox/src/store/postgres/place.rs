//! The two places of a row: in the queue, and in the table.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::server_time::ServerTime;

/// A place in the queue: when an event is due, and its id.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct QueuePlace {
    pub(super) at: ServerTime,
    pub(super) id: Uuid,
}

impl QueuePlace {
    pub(super) const START: Self = Self { at: ServerTime::FIRST, id: Uuid::nil() };
    /// Behind every event.
    pub(super) const END: Self = Self { at: ServerTime::LAST, id: Uuid::max() };
}

/// A part of the queue: from a place on, and where it has an end, up to there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Part {
    pub(super) from: QueuePlace,
    pub(super) until: Option<QueuePlace>,
}

impl Part {
    pub(super) const ALL: Self = Self::behind(QueuePlace::START);

    /// Everything from `from` on.
    pub(super) const fn behind(from: QueuePlace) -> Self {
        Self { from, until: None }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, place: QueuePlace) -> bool {
        place >= self.from && self.until.is_none_or(|until| place < until)
    }

    /// Says whether it is what lies somewhere before the newest.
    pub(super) fn is_bite(&self) -> bool {
        self.until.is_some()
    }
}

/// Where in the table a version of a row lies: block and line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RowVersion([u8; 6]);

#[cfg(test)]
impl RowVersion {
    pub(super) fn at(block: u32, line: u16) -> Self {
        let ([a, b, c, d], [e, f]) = (block.to_be_bytes(), line.to_be_bytes());
        Self([a, b, c, d, e, f])
    }
}

impl ToSql for RowVersion {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for RowVersion {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TID
    }
}
