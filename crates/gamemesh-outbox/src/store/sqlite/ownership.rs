use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::warn;
use uuid::Uuid;

use super::same_file::is_at;
use crate::store::{StoreError, StoreErrorKind};

/// Who works on which rows. SQLite has no row locks that outlive a statement, so between processes ownership is a lock on
/// the file `<database>.relay-lock`, which the kernel frees when its holder dies, and within this process a set of ids.
/// Nothing expires.
#[derive(Debug)]
pub(super) struct Ownership {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lock_file: File,
    /// Claims that live or are being made; the file is locked while there are any.
    holds: usize,
    in_flight: HashSet<Uuid>,
}

/// Keeps other processes out, and its own rows from the rest of this one, until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    ownership: Arc<Ownership>,
    ids: Vec<Uuid>,
}

impl Ownership {
    /// Opens the lock file beside `database`. It stays when the process ends; only the lock on it means something.
    pub(super) fn open(database: &Path) -> Result<Self, StoreError> {
        // One lock for one database, whichever path leads to it.
        let unusable = |error| not_opened(StoreErrorKind::Unusable, error);
        let mut path = OsString::from(database.canonicalize().map_err(unusable)?);
        path.push(".relay-lock");
        let path = PathBuf::from(path);
        let lock_file = lock_file(&path).map_err(unusable)?;
        Ok(Self { path, state: Mutex::new(State { lock_file, holds: 0, in_flight: HashSet::new() }) })
    }

    /// Begins a claim, unless another process has one.
    pub(super) fn hold(self: &Arc<Self>) -> Result<Option<Hold>, StoreError> {
        let mut state = self.lock();
        if state.holds == 0 {
            if !is_at(&state.lock_file, &self.path) {
                // Somebody tidied up: other processes would lock another file.
                state.lock_file =
                    lock_file(&self.path).map_err(|error| not_opened(StoreErrorKind::Unavailable, error))?;
            }
            match state.lock_file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    let message = "cannot lock the relay's lock file: expected a local file system";
                    return Err(StoreError::new(StoreErrorKind::Unusable, message).with_source(error));
                }
            }
        }
        state.holds += 1;
        drop(state);
        Ok(Some(Hold { ownership: self.clone(), ids: Vec::new() }))
    }

    /// Lists the rows that this process works on.
    pub(super) fn in_flight(&self) -> Vec<Uuid> {
        self.lock().in_flight.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

fn lock_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn not_opened(kind: StoreErrorKind, error: std::io::Error) -> StoreError {
    StoreError::new(kind, "cannot open the relay's lock file beside the database").with_source(error)
}

impl Hold {
    /// Takes `ids` for this claim.
    pub(super) fn take(&mut self, ids: Vec<Uuid>) {
        self.ownership.lock().in_flight.extend(&ids);
        self.ids = ids;
    }

    pub(super) fn ids(&self) -> &[Uuid] {
        &self.ids
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.ownership.lock();
        for id in &self.ids {
            state.in_flight.remove(id);
        }
        state.holds -= 1;
        if state.holds == 0
            && let Err(error) = state.lock_file.unlock()
        {
            warn!(error = error.to_string(), "relay lock not released: other processes stay out until this one ends");
        }
    }
}
