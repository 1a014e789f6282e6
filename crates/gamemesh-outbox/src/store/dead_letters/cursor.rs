use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// A place in the order of dead letters, which is the time of insertion and then the id. It stays good when the letter is
/// gone. As a string it is opaque and holds only digits and letters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// The time, as the store sorts by it.
    position: String,
    id: Uuid,
}

/// A string that no [`Cursor`] or [`Continuation`] gave.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid cursor: expected one that an answer has held")]
pub struct InvalidCursor;

impl Cursor {
    pub(crate) fn new(position: impl Into<String>, id: Uuid) -> Self {
        Self { position: position.into(), id }
    }

    pub(crate) fn position(&self) -> &str {
        &self.position
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the position as a number, in a store that sorts by one.
    pub(crate) fn number(&self) -> Result<i64, InvalidCursor> {
        self.position().parse().map_err(|_| InvalidCursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id.simple(), hex(self.position.as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (id, position) = text.split_at_checked(32).ok_or(InvalidCursor)?;
        let id = Uuid::try_parse(id).map_err(|_| InvalidCursor)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        };
        let position: Option<Vec<u8>> = position.as_bytes().chunks(2).map(byte).collect();
        let position = String::from_utf8(position.ok_or(InvalidCursor)?).map_err(|_| InvalidCursor)?;
        Ok(Self { position, id })
    }
}

/// Where a request that was stopped goes on. As a string it is opaque.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Continuation {
    /// Where the last batch ended.
    pub(super) after: Cursor,
    /// The newest letter when the request began.
    pub(super) up_to: Cursor,
}

impl fmt::Display for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.after, self.up_to)
    }
}

impl FromStr for Continuation {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (after, up_to) = text.split_once('-').ok_or(InvalidCursor)?;
        Ok(Self { after: after.parse()?, up_to: up_to.parse()? })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_as_a_string() {
        let cursor = Cursor::new("2026-01-02 03:04:05é", Uuid::from_u128(7));
        let text = cursor.to_string();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        assert_eq!(text.parse(), Ok(cursor.clone()));
        let continuation = Continuation { after: cursor.clone(), up_to: cursor };
        assert_eq!(continuation.to_string().parse(), Ok(continuation));
    }

    #[test]
    fn a_string_of_somebody_else_is_no_cursor() {
        let id = Uuid::from_u128(7).simple().to_string();
        for text in ["", "7", "é", &format!("{id}0"), &format!("{id}zz"), &format!("{id}ff"), &format!("{id}é")] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
            assert_eq!(text.parse::<Continuation>(), Err(InvalidCursor), "{text}");
            assert_eq!(format!("{id}-{text}").parse::<Continuation>(), Err(InvalidCursor), "{text}");
        }
    }
}
