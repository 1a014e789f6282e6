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
