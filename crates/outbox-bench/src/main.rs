//! Measures what relays do with a given database and bus.
//!
//! Its modules from the bottom up: `place` and `args` say where and how; `processes`, `rows` and `stage` prepare; `load`,
//! `relays`, `ceiling` and `meter` are what measurements are made of; `conditions` and `times` describe them; `drain`,
//! `latency` and `insert` make them; `report` shows them.

mod args;
mod bus;
mod ceiling;
mod conditions;
mod drain;
mod insert;
mod latency;
mod load;
mod meter;
mod place;
mod processes;
mod relays;
mod report;
mod rows;
mod stage;
mod times;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outbox_relay::{CONFIG_ENV, CommandError, Config, block_on, environment, print, start_for_command, stop_on_signal};

use self::args::{Common, Relaying, say};
use self::drain::DrainArgs;
use self::insert::InsertArgs;
use self::latency::LatencyArgs;
use self::report::Report;
use self::stage::Stage;

/// Measures relays with a database and a bus
///
/// The settings are those of `outbox-relay run`; PostgreSQL, with a bus that lets itself be read. A benchmark works in a
/// schema and a place on the bus of its own (outbox_bench, or its topic outbox_bench.event), which it creates and removes at
/// its end, also after Ctrl-C. It loads the servers as much as it can: keep it away from those that others depend
/// on. docs/performance.md says what the figures mean.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Reads settings from this TOML file; the environment goes before it
    #[arg(long, global = true, value_name = "FILE", env = CONFIG_ENV, hide_env_values = true)]
    config: Option<PathBuf>,
    /// The relay to measure; by default the `outbox-relay` beside this program
    #[arg(long, global = true, value_name = "PROGRAM")]
    relay: Option<PathBuf>,
    #[command(subcommand)]
    benchmark: Benchmark,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum Benchmark {
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

impl Benchmark {
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

fn main() -> ExitCode {
    match block_on(bench(Cli::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// Runs a benchmark; whatever happens, nothing of it stays.
async fn bench(Cli { config: file, relay, benchmark }: Cli) -> Result<(), CommandError> {
    let file = file.filter(|path| !path.as_os_str().is_empty());
    let config = Config::load(environment(), file.as_deref())?;
    let tracing = start_for_command(&config)?;
    let stop = stop_on_signal()?;
    if cfg!(debug_assertions) {
        say("This is a debug build: its figures say nothing. Measure with a release build.");
    }
    let common = benchmark.common();
    let chosen = benchmark.relaying().map(Relaying::settings);
    let uses_bus = chosen.is_some();
    let choices = stage::Choices { chosen: chosen.unwrap_or_default(), file, program: relay };
    let stage = Stage::open(&config, choices, benchmark.producers(), uses_bus, common.replace).await?;
    let work = async {
        stage.migrate().await?;
        match &benchmark {
            Benchmark::Drain(args) => drain::drain(&stage, args).await.map(Report::from),
            Benchmark::Latency(args) => latency::latency(&stage, args).await.map(Report::from),
            Benchmark::Insert(args) => insert::insert(&stage, args).await.map(Report::from),
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
