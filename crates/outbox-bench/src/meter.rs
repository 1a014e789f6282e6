//! Reads what relays, database and bus have used so far.

use outbox_relay::CommandError;
use serde::Serialize;

use crate::bus::Reader;
use crate::relays::Relays;
use crate::stage::Stage;

/// Reads them one after the other, as close to each other as that can be.
pub(crate) struct Meter<'a> {
    stage: &'a Stage,
    bus: Option<&'a Reader>,
    bus_server: Option<i32>,
    postmaster: Option<i32>,
}

/// What was used up to one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    relay: Option<f64>,
    database: Option<f64>,
    bus: Option<f64>,
    wal_bytes: f64,
}

/// CPU seconds, each `None` where the processes cannot be seen from here.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cpu {
    pub relay: Option<f64>,
    pub database: Option<f64>,
    pub bus: Option<f64>,
}

impl<'a> Meter<'a> {
    /// Finds the processes.
    pub(crate) async fn new(stage: &'a Stage, bus: Option<&'a Reader>) -> Result<Self, CommandError> {
        let postmaster = stage.postmaster().await?;
        let bus_server = match bus {
            Some(bus) => bus.server().await,
            None => None,
        };
        Ok(Self { stage, bus, bus_server, postmaster })
    }

    /// Reads what was used so far.
    pub(crate) async fn read(&self, relays: Option<&Relays>) -> Result<Reading, CommandError> {
        let relay = relays.and_then(Relays::cpu_seconds);
        let database = self.postmaster.and_then(crate::processes::tree_cpu_seconds);
        let bus = match self.bus {
            Some(bus) => bus.cpu_seconds(self.bus_server).await,
            None => None,
        };
        let sql = self.stage.sql().await?;
        let position = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
        let row = sql.query_one(position, &[]).await;
        let row = row.map_err(|error| CommandError::failure("cannot read the position of the WAL", error))?;
        Ok(Reading { relay, database, bus, wal_bytes: row.get(0) })
    }
}

impl Reading {
    /// Returns what was used since `before`: CPU seconds for 1,000 of `count`, and WAL bytes for each.
    pub(crate) fn since(&self, before: &Self, count: f64) -> (Cpu, f64) {
        let each = |after: Option<f64>, before: Option<f64>| Some((after? - before?) * 1000.0 / count);
        let cpu = Cpu {
            relay: each(self.relay, before.relay),
            database: each(self.database, before.database),
            bus: each(self.bus, before.bus),
        };
        (cpu, (self.wal_bytes - before.wal_bytes) / count)
    }
}
