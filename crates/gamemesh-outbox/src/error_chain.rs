use std::error::Error;

/// Writes an error and its causes one after the other, with colons between them.
///
/// ```
/// use std::io::{Error, ErrorKind};
///
/// use gamemesh_outbox::bus::{BusError, BusErrorKind};
///
/// let refused = Error::new(ErrorKind::ConnectionRefused, "connection refused");
/// let error = BusError::new(BusErrorKind::Unavailable, "cannot connect").with_source(refused);
/// assert_eq!(gamemesh_outbox::error_chain(&error), "cannot connect: connection refused");
/// ```
pub fn error_chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
