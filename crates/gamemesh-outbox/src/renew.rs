//! Settings that change while the relay runs: passwords and certificates in files that somebody rotates.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tracing::warn;

/// A value that is read again for each new connection, and what it was when it could be read last. Clones share it.
pub struct Renewed<T> {
    /// What a person calls the setting.
    name: &'static str,
    last: Arc<Mutex<Last<T>>>,
}

struct Last<T> {
    value: T,
    stale: bool,
}

impl<T: Clone> Renewed<T> {
    /// Begins with `value`; `name` is what a person calls the setting.
    pub fn new(name: &'static str, value: T) -> Self {
        Self { name, last: Arc::new(Mutex::new(Last { value, stale: false })) }
    }

    /// Takes over what was read now. If that failed, the last value still holds: a file that is being replaced must not
    /// end what works. A person is told once.
    pub fn renew<E: fmt::Display>(&self, read: Result<T, E>) -> T {
        let mut last = self.last.lock().expect("no code panics while it holds the lock");
        match read {
            Ok(value) => *last = Last { value, stale: false },
            Err(error) => {
                if !last.stale {
                    warn!(error = %error, "{} cannot be read again: what it was still holds", self.name);
                }
                last.stale = true;
            }
        }
        last.value.clone()
    }

    /// Returns what was read last.
    pub fn last(&self) -> T {
        self.last.lock().expect("no code panics while it holds the lock").value.clone()
    }
}

impl<T> Clone for Renewed<T> {
    fn clone(&self) -> Self {
        Self { name: self.name, last: self.last.clone() }
    }
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Renewed({})", self.name)
    }
}

/// Returns the text of `file`, or `given` where there is none. Files made by an editor end with a new line. An empty file
/// is one that is just being written: taken as it is, it would be a valid connection string to some other server.
pub fn reread(file: Option<&PathBuf>, given: &str) -> io::Result<String> {
    let Some(file) = file else { return Ok(given.to_owned()) };
    let text = std::fs::read_to_string(file)?;
    match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_leaves_the_last_value() {
        let renewed = Renewed::new("NUMBER", 1);
        assert_eq!(renewed.renew(Ok::<_, String>(2)), 2);
        assert_eq!(renewed.clone().renew(Err("gone")), 2);
        assert_eq!(renewed.renew(Ok::<_, String>(3)), 3);
    }

    #[test]
    fn a_file_that_is_just_being_written_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_path_buf();
        assert_eq!(reread(Some(&path), "").unwrap_err().to_string(), "the file is empty");
        std::fs::write(&path, "host=db\n").unwrap();
        assert_eq!(reread(Some(&path), "").unwrap(), "host=db");
    }
}
