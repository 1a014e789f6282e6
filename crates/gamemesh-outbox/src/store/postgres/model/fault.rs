use super::super::error::Failure;

/// Why a statement has no result.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a row cannot be read")]
    Row,
    #[error("there is no room for so much")]
    Many,
    #[error("a row cannot be written")]
    Refused,
    #[error("it took too long")]
    OutOfTime,
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

    fn is_of_the_write(&self) -> bool {
        *self == Self::Refused
    }

    fn may_be_of_the_write(&self) -> bool {
        false
    }

    fn is_of_the_encoding(&self) -> bool {
        false
    }

    fn ran_out_of_time(&self) -> bool {
        *self == Self::OutOfTime
    }

    fn reason(&self) -> String {
        self.to_string()
    }

    fn cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        Box::new(self)
    }
}
