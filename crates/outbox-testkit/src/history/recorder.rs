use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Change, Delivery, Facts, FaultRecord, History, RelayRecord, Transaction, files};

/// Takes records while a run goes on. Clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
enum Kept {
    Memory(Box<History>),
    Folder(Folder),
}

/// The files of a history that is being written.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    producers: BufWriter<File>,
    database: BufWriter<File>,
    bus: BufWriter<File>,
    relays: BufWriter<File>,
    faults: BufWriter<File>,
}

impl Recorder {
    /// Keeps the records in memory.
    pub fn in_memory() -> Self {
        Self::keeping(Kept::Memory(Box::default()))
    }

    /// Writes the records into files in `folder`, which must exist. What was written is there when the run is not.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let create = |name: &str| {
            let path = folder.join(name);
            File::create(&path).map(BufWriter::new).with_context(|| path.display().to_string())
        };
        Ok(Self::keeping(Kept::Folder(Folder {
            path: folder.to_owned(),
            producers: create(files::PRODUCERS)?,
            database: create(files::DATABASE)?,
            bus: create(files::BUS)?,
            relays: create(files::RELAYS)?,
            faults: create(files::FAULTS)?,
        })))
    }

    fn keeping(kept: Kept) -> Self {
        Self { kept: Arc::new(Mutex::new(kept)) }
    }

    /// Takes a record of W.
    ///
    /// # Panics
    ///
    /// As all the others do, if the file cannot be written: a run without evidence is worth nothing.
    pub fn transaction(&self, record: Transaction) {
        self.take(record, |history| &mut history.producers, |folder| &mut folder.producers);
    }

    /// Takes a record of D.
    pub fn change(&self, record: Change) {
        self.take(record, |history| &mut history.database, |folder| &mut folder.database);
    }

    /// Takes a record of P.
    pub fn delivery(&self, record: Delivery) {
        self.take(record, |history| &mut history.bus, |folder| &mut folder.bus);
    }

    /// Takes a record of R.
    pub fn relay(&self, record: RelayRecord) {
        self.take(record, |history| &mut history.relays, |folder| &mut folder.relays);
    }

    /// Takes a record of F.
    pub fn fault(&self, record: FaultRecord) {
        self.take(record, |history| &mut history.faults, |folder| &mut folder.faults);
    }

    /// Ends the recording and returns the history, read back from the files where there are some.
    pub fn finish(&self, facts: Facts) -> Result<History> {
        match &mut *self.lock() {
            Kept::Memory(history) => {
                let mut history = std::mem::take(history);
                history.facts = facts;
                Ok(*history)
            }
            Kept::Folder(folder) => {
                for file in [
                    &mut folder.producers,
                    &mut folder.database,
                    &mut folder.bus,
                    &mut folder.relays,
                    &mut folder.faults,
                ] {
                    file.flush()?;
                }
                let mut file = File::create(folder.path.join(files::FACTS))?;
                files::write_line(&mut file, &facts)?;
                History::read(&folder.path)
            }
        }
    }

    fn take<T: Serialize>(
        &self,
        record: T,
        in_memory: impl FnOnce(&mut History) -> &mut Vec<T>,
        in_folder: impl FnOnce(&mut Folder) -> &mut BufWriter<File>,
    ) {
        match &mut *self.lock() {
            Kept::Memory(history) => in_memory(history).push(record),
            Kept::Folder(folder) => {
                let file = in_folder(folder);
                files::write_line(&mut *file, &record).expect("the folder of the history takes another record");
                file.flush().expect("the folder of the history takes another record");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no code panics while it holds the lock")
    }
}
