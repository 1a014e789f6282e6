//! Breaks a real system at random for a while and checks what came of it: see `scripts/chaos --help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use outbox_testkit::chaos::{BusKind, ChaosConfig, RigConfig, run};
use outbox_testkit::checker::check;
use outbox_testkit::history::History;

/// Kills relays, crashes the database, freezes the bus, cuts connections, all at random, while producers insert events;
/// then checks every record of it.
///
/// Exits with 1 if a promise was broken. The history, the logs, the report (report.json) and its summary (summary.txt) are
/// left in the folder.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// How long faults come, such as 90s, 10m or 1h
    #[arg(long, default_value = "1m", value_parser = duration)]
    duration: Duration,
    /// What decides which faults come; drawn if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Replicas of the relay
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    relays: u32,
    /// Applications that insert events, 20 transactions a second each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    producers: u32,
    /// The most events in one transaction
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    events: u64,
    /// What the relays publish to
    #[arg(long, value_enum, default_value_t = BusKind::Nats)]
    bus: BusKind,
    /// The program to be broken
    #[arg(long, required_unless_present = "check")]
    program: Option<PathBuf>,
    /// Where everything is left; it must be empty or absent
    #[arg(long)]
    folder: PathBuf,
    /// Breaks nothing, and judges once more what an earlier run left in the folder
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let folder = arguments.folder;
    if arguments.check {
        let report = check(&History::read(&folder)?);
        eprint!("{report}");
        return Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    ensure!(folder.read_dir()?.next().is_none(), "{}: expected an empty folder", folder.display());
    let program = arguments.program.context("expected the program to be broken")?;
    let program = program.canonicalize().with_context(|| program.display().to_string())?;
    let config = ChaosConfig {
        rig: RigConfig { relays: arguments.relays, bus: arguments.bus, ..RigConfig::new(program, &folder) },
        duration: arguments.duration,
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        producers: arguments.producers,
        events_max: arguments.events,
    };
    eprintln!("seed {}, in {}", config.seed, folder.display());
    let report = run(&config).await?;
    std::fs::write(folder.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    std::fs::write(folder.join("summary.txt"), report.to_string())?;
    eprint!("{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn duration(text: &str) -> Result<Duration> {
    let signed: jiff::SignedDuration = text.parse().with_context(|| format!("expected a duration, got {text:?}"))?;
    Duration::try_from(signed).with_context(|| format!("expected a duration, got {text:?}"))
}
