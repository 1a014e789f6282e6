//! `outbox-relay bench`: what the relay does with a given database and bus, measured.

mod bus;
mod ceiling;
mod drain;
mod insert;
mod latency;
mod load;
mod meter;
mod processes;
mod relays;
mod report;
mod rows;
mod stage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use gamemesh_outbox::store::OnPublished;

use self::drain::DrainArgs;
use self::insert::InsertArgs;
use self::latency::LatencyArgs;
use self::report::Report;
use self::stage::Stage;
use super::print;
use crate::config::{Config, positive_duration};
use crate::logging::{self, Logger};
use crate::report::CommandError;
use crate::signals;

/// The schema in which a benchmark works.
const SCHEMA: &str = "outbox_bench";
/// Where its events go.
const TOPIC: &str = "outbox_bench.event";
/// What its topics begin with.
const TOPIC_PREFIX: &str = "outbox_bench";
/// The type of the events that are measured.
const EVENT_TYPE: &str = "measured";
/// The JetStream stream that takes them.
const STREAM: &str = "outbox_bench";

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measures how fast relays empty a table, next to the bus alone
    ///
    /// Fills the table, publishes as many events to the bus without any database, starts the relays, measures from the end
    /// of the warm-up to the last event, publishes to the bus alone once more, and checks that each event arrived once.
    Drain(DrainArgs),
    /// Measures how long events take from their commit to the bus, and what relays cost the application beside them
    ///
    /// An application commits at a steady rate, for a while alone and for a while beside relays; a consumer of its own
    /// notes when each event arrives.
    Latency(LatencyArgs),
    /// Measures what an event costs the application that writes it
    ///
    /// The same transactions with a business row alone, with one event in either of two ways, and with many events. No
    /// relay runs, and no bus is needed.
    Insert(InsertArgs),
}

impl BenchCommand {
    fn common(&self) -> &Common {
        match self {
            Self::Drain(args) => &args.common,
            Self::Latency(args) => &args.common,
            Self::Insert(args) => &args.common,
        }
    }

    fn relaying(&self) -> Option<&Relaying> {
        match self {
            Self::Drain(args) => Some(&args.relaying),
            Self::Latency(args) => Some(&args.relaying),
            Self::Insert(_) => None,
        }
    }

    /// Returns how many connections the application has at the same time.
    fn producers(&self) -> u32 {
        match self {
            Self::Drain(_) => 0,
            Self::Latency(args) => args.connections,
            Self::Insert(args) => args.connections,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    positive_duration(text).ok_or_else(|| "expected a duration above 0, as 10s, 5m or 1h30m".to_owned())
}

/// What every benchmark is told.
#[derive(Args, Debug)]
struct Common {
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Removes first what a benchmark that was killed has left behind
    #[arg(long)]
    replace: bool,
    /// Bytes of each payload
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(32..=1_000_000))]
    payload_bytes: u32,
    /// Takes payloads from this file instead: JSON lines as `emit --file` reads them, used in turn
    #[arg(long, value_name = "FILE", conflicts_with = "payload_bytes")]
    corpus: Option<PathBuf>,
}

/// How relays are run.
#[derive(Args, Debug)]
struct Relaying {
    /// Relays at work at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    replicas: u32,
    /// Workers of each relay instead of OUTBOX_WORKERS
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: Option<u32>,
    /// What becomes of published rows instead of OUTBOX_ON_PUBLISHED
    #[arg(long, value_enum)]
    mode: Option<Mode>,
}

/// What becomes of a published row.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Mark,
    Delete,
}

impl Relaying {
    /// Puts the choices over the settings.
    fn apply(&self, config: &mut Config) {
        if let Some(workers) = self.workers {
            config.relay.workers = workers;
        }
        match self.mode {
            Some(Mode::Mark) => config.relay.on_published = OnPublished::Mark,
            Some(Mode::Delete) => config.relay.on_published = OnPublished::Delete,
            None => {}
        }
    }
}

/// Runs a benchmark; whatever happens, nothing of it stays.
pub(crate) async fn bench(
    mut config: Config,
    config_file: Option<&Path>,
    command: BenchCommand,
) -> Result<(), CommandError> {
    config.database()?;
    let tracing = logging::start(Logger::Command, &config.log, &config.otel)?;
    let stop = signals::stop_on_signal()?;
    if cfg!(debug_assertions) {
        say("This is a debug build: its figures say nothing. Measure with `cargo run --release -- bench`.");
    }
    if let Some(relaying) = command.relaying() {
        relaying.apply(&mut config);
    }
    let common = command.common();
    let uses_bus = command.relaying().is_some();
    let stage = Stage::open(config, config_file, command.producers(), uses_bus, common.replace).await?;
    let work = async {
        stage.migrate().await?;
        match &command {
            BenchCommand::Drain(args) => drain::drain(&stage, args).await.map(Report::from),
            BenchCommand::Latency(args) => latency::latency(&stage, args).await.map(Report::from),
            BenchCommand::Insert(args) => insert::insert(&stage, args).await.map(Report::from),
        }
    };
    let worked = tokio::select! {
        biased;
        () = stop.cancelled() => Err(CommandError::unhealthy("stopped before the end: there is no result")),
        worked = work => worked,
    };
    let closed = stage.close().await;
    tracing.flush().await;
    let report = worked?;
    print(&if common.json { format!("{:#}\n", report.json) } else { report.tables })?;
    closed?;
    report.verdict
}

/// Tells the person in front of the terminal what goes on.
fn say(line: &str) {
    eprintln!("{line}");
}
