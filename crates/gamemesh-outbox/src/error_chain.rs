use std::error::Error;
use std::fmt::{self, Display, Write};

/// The most of a text from outside that is kept, in bytes.
const LINE_BYTES_MAX: usize = 1000;

/// Writes an error and its causes one after the other, with colons between them: one line, bounded. A cause whose text the
/// error before it ends with is not said twice.
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
    let mut chain = bounded_line(error);
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let cause = bounded_line(cause);
        if !chain.ends_with(&cause) {
            chain = bounded_line(&format_args!("{chain}: {cause}"));
        }
    }
    chain
}

/// Makes any text fit for a log, a page and `last_error`: one line, no control characters, bounded. Of a longer text no more is
/// ever copied: servers can say megabytes.
pub(crate) fn bounded_line(text: &(impl Display + ?Sized)) -> String {
    let mut line = Line(String::new());
    // An error ends the writing where the line is full.
    if write!(line, "{text}").is_err() {
        line.0.push('…');
    }
    line.0
}

struct Line(String);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(LINE_BYTES_MAX.saturating_sub(self.0.len()));
        self.0.extend(text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }));
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{BusError, BusErrorKind};

    #[test]
    fn a_line_is_one_line_and_bounded_at_a_whole_character() {
        assert_eq!(bounded_line("fine"), "fine");
        assert_eq!(bounded_line("a\r\nb\u{85}c\u{1b}[31m"), "a  b c [31m");
        assert_eq!(bounded_line(&"x".repeat(LINE_BYTES_MAX)), "x".repeat(LINE_BYTES_MAX));
        let long = bounded_line(&format_args!("{}{}", "x".repeat(LINE_BYTES_MAX - 1), "ä".repeat(10 << 20)));
        assert_eq!(long, format!("{}…", "x".repeat(LINE_BYTES_MAX - 1)));
    }

    #[test]
    fn causes_are_told_once_and_stay_bounded_together() {
        let error = |message: &str| BusError::new(BusErrorKind::Unavailable, message);
        let told = error("cannot connect: refused").with_source(error("refused").with_source(error("by the host")));
        assert_eq!(error_chain(&told), "cannot connect: refused: by the host");
        let long = error(&"a".repeat(900)).with_source(error(&"b".repeat(900)));
        assert!(error_chain(&long).len() <= LINE_BYTES_MAX + "…".len());
    }
}
