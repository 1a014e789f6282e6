//! What goes to the terminal: data to standard output, everything else to standard error.

use std::io::Write;

use crate::report::CommandError;

/// Writes data to standard output.
pub fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CommandError::failure("cannot write to standard output", error))
}

/// Makes any text fit for one line of a terminal: names in the database are data that anybody may have written.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
