use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Facts, History};

pub(super) const PRODUCERS: &str = "producers.jsonl";
pub(super) const DATABASE: &str = "database.jsonl";
pub(super) const BUS: &str = "bus.jsonl";
pub(super) const RELAYS: &str = "relays.jsonl";
pub(super) const FAULTS: &str = "faults.jsonl";
pub(super) const FACTS: &str = "facts.jsonl";

impl History {
    /// Reads the files in `folder`. Each must be there, if only empty: a source that is missing saw nothing.
    pub fn read(folder: &Path) -> Result<Self> {
        let facts: Vec<Facts> = read(folder, FACTS)?;
        let [facts] = facts.as_slice() else {
            anyhow::bail!("{}: expected one record, got {}", folder.join(FACTS).display(), facts.len());
        };
        Ok(Self {
            producers: read(folder, PRODUCERS)?,
            database: read(folder, DATABASE)?,
            bus: read(folder, BUS)?,
            relays: read(folder, RELAYS)?,
            faults: read(folder, FAULTS)?,
            facts: facts.clone(),
        })
    }

    /// Writes the files into `folder`, which must exist; those of an older history are replaced.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write(folder, PRODUCERS, &self.producers)?;
        write(folder, DATABASE, &self.database)?;
        write(folder, BUS, &self.bus)?;
        write(folder, RELAYS, &self.relays)?;
        write(folder, FAULTS, &self.faults)?;
        write(folder, FACTS, std::slice::from_ref(&self.facts))
    }
}

/// Writes one record as one line.
pub(super) fn write_line(mut to: impl Write, record: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut to, record)?;
    Ok(to.write_all(b"\n")?)
}

fn write<T: Serialize>(folder: &Path, name: &str, records: &[T]) -> Result<()> {
    let path = folder.join(name);
    let mut file = BufWriter::new(File::create(&path).with_context(|| path.display().to_string())?);
    records.iter().try_for_each(|record| write_line(&mut file, record))?;
    Ok(file.flush()?)
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Vec<T>> {
    let path = folder.join(name);
    let at = |line: usize| format!("{}, line {line}", path.display());
    let mut file = BufReader::new(File::open(&path).with_context(|| path.display().to_string())?);
    let (mut records, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).with_context(|| at(records.len() + 1))? == 0 {
            return Ok(records);
        }
        // Half a line is half a record, even where it happens to be JSON.
        ensure!(
            line.ends_with(b"\n"),
            "{}: expected the end of the line, got the end of the file",
            at(records.len() + 1)
        );
        records.push(serde_json::from_slice(&line).with_context(|| at(records.len() + 1))?);
    }
}
