use super::super::error::Failure;

/// Why a statement has no result.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a row cannot be read")]
    Row,
    #[error("it took too long")]
    Many,
    #[error("the connection or the transaction is gone")]
    Other,
}

impl Failure for Fault {
    fn is_of_a_row(&self) -> bool {
        *self == Self::Row
    }

    fn may_fall_on_rows(&self) -> bool {
        matches!(self, Self::Row | Self::Many)
    }

    fn cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        Box::new(self)
    }
}
