use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::warn;

/// Whether a path still leads to the file that was opened. A file that was deleted or replaced goes on to exist for whoever has
/// it open: what is read there is the past, and what is written there is lost. Clones share what was seen.
#[derive(Clone, Debug)]
pub(super) struct SameFile {
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    file: Option<FileId>,
    changed: Option<Instant>,
}

/// The device and the number on it.
type FileId = (u64, u64);

impl SameFile {
    /// Remembers what `path` leads to now.
    pub(super) fn at(path: &Path) -> Self {
        let seen = Seen { file: of_path(path), changed: None };
        Self { path: path.to_owned(), seen: Arc::new(Mutex::new(seen)) }
    }

    /// Says whether a connection that was made so long ago has the file open to which the path leads now.
    pub(super) fn is_open_since(&self, age: Duration) -> bool {
        let now = of_path(&self.path);
        let mut seen = self.seen.lock().expect("no code panics while it holds the lock");
        if seen.file != now {
            let what = if now.is_some() { "replaced" } else { "removed" };
            warn!(path = %self.path.display(), "the database file was {what} while it was open: it is opened again");
            *seen = Seen { file: now, changed: Some(Instant::now()) };
        }
        now.is_some() && seen.changed.is_none_or(|changed| age < changed.elapsed())
    }
}

/// Says whether `path` leads to `file`.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| Some(id(&metadata)) == of_path(path))
}

fn of_path(path: &Path) -> Option<FileId> {
    path.metadata().ok().map(|metadata| id(&metadata))
}

#[cfg(unix)]
fn id(metadata: &Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;

    (metadata.dev(), metadata.ino())
}

/// Elsewhere a file that is open cannot be replaced.
#[cfg(not(unix))]
fn id(_: &Metadata) -> FileId {
    (0, 0)
}
