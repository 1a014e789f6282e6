//! What benchmarks are told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use outbox_relay::positive_duration;

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    positive_duration(text).ok_or_else(|| "expected a duration above 0, as 10s, 5m or 1h30m".to_owned())
}

/// Tells the person in front of the terminal what goes on.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// What every benchmark is told.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Prints JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Removes first what a benchmark that was killed has left behind
    #[arg(long)]
    pub(crate) replace: bool,
    /// Bytes of each payload
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(32..=1_000_000))]
    pub(crate) payload_bytes: u32,
    /// Takes payloads from this file instead: JSON lines as `emit --file` reads them, used in turn
    #[arg(long, value_name = "FILE", conflicts_with = "payload_bytes")]
    pub(crate) corpus: Option<PathBuf>,
}

/// How relays are run.
#[derive(Args, Debug)]
pub(crate) struct Relaying {
    /// Relays at work at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) replicas: u32,
    /// Workers of each relay instead of OUTBOX_WORKERS
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: Option<u32>,
    /// What becomes of published rows instead of OUTBOX_ON_PUBLISHED
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
}

/// What becomes of a published row.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    Mark,
    Delete,
}

impl Relaying {
    /// Returns the settings that the choices replace.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let named = ["OUTBOX_WORKERS", "OUTBOX_WORKERS_MAX"];
        let workers = self.workers.into_iter().flat_map(|workers| named.map(|name| (name, workers.to_string())));
        let mode = self.mode.map(|mode| match mode {
            Mode::Mark => "mark",
            Mode::Delete => "delete",
        });
        workers.chain(mode.map(|mode| ("OUTBOX_ON_PUBLISHED", mode.to_owned()))).collect()
    }
}
