use std::error::Error;
use std::ops::RangeInclusive;

use bytes::BytesMut;
use jiff::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::store::dead_letters::{Cursor, InvalidCursor};

/// Microseconds since 2000-01-01 UTC, as the server sends them. It knows infinities and years that no other clock has,
/// so reading one never fails; turning it into a [`Timestamp`] may.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ServerTime(i64);

impl ServerTime {
    const EPOCH_MICROS: i64 = 946_684_800_000_000;
    /// Before every other.
    pub(super) const FIRST: Self = Self(i64::MIN);
    /// After every other.
    pub(super) const LAST: Self = Self(i64::MAX);

    #[cfg(test)]
    pub(super) fn at(micros: i64) -> Self {
        Self(micros)
    }

    /// The time so many microseconds before, for infinities they themselves.
    pub(super) fn before(self, micros: i64) -> Self {
        if matches!(self.0, i64::MIN | i64::MAX) { self } else { Self(self.0.saturating_sub(micros)) }
    }

    pub(super) fn timestamp(self) -> Option<Timestamp> {
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

impl<'a> FromSql<'a> for ServerTime {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        i64::from_sql(ty, raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// A cursor holds the time as the server counts it, infinities included.
impl ServerTime {
    pub(super) fn cursor(self, id: Uuid) -> Cursor {
        Cursor::new(self.0.to_string(), id)
    }

    pub(super) fn of(cursor: &Cursor) -> Result<Self, InvalidCursor> {
        // From 4714 BC to the year 294276, and both infinities: the server refuses what lies beyond.
        const KNOWN: RangeInclusive<i64> = -211_813_488_000_000_000..=9_223_371_331_199_999_999;
        let micros = cursor.number()?;
        let known = KNOWN.contains(&micros) || matches!(micros, i64::MIN | i64::MAX);
        known.then_some(Self(micros)).ok_or(InvalidCursor)
    }
}
