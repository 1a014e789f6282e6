//! `bench latency`: how long an event takes from its commit to the bus, and what that costs the application.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use jiff::Timestamp;
use outbox_relay::CommandError;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::args::{Common, Relaying, duration, say};
use crate::bus::{Reader, Seen};
use crate::conditions::Conditions;
use crate::load::{self, Commit, Form, Load, commit_times, histogram, record};
use crate::meter::{Cpu, Meter};
use crate::relays::Relays;
use crate::rows::{Payloads, Sample};
use crate::stage::Stage;
use crate::times::Times;

/// How long an event may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// The application alone and beside relays, in an order in which a machine that slowly changes favours neither.
const SLICES: [bool; 4] = [false, true, true, false];
/// How long relays rest before idling is measured.
const COME_TO_REST: Duration = Duration::from_secs(2);

/// The arguments of `bench latency`.
#[derive(Args, Debug)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) relaying: Relaying,
    /// Transactions a second, each with one event; a slow answer does not slow them down
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long to measure with relays, and as long again without: 30s, 5m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// How long each part of it runs before it is measured
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// Connections of the application
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: u32,
    /// Measures as well what relays cost that have nothing to do for so long, and the first event after it
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle: Option<Duration>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyResult {
    pub conditions: Conditions,
    pub rate: u32,
    pub connections: u32,
    pub seconds: f64,
    #[serde(flatten)]
    pub payload: Sample,
    pub events: u64,
    /// From the return of COMMIT to the bus's own time stamp of the message.
    pub commit_to_stored: Times,
    /// From the return of COMMIT to a consumer that has the message; one clock.
    pub commit_to_consumer: Times,
    pub commit_with_relay: Times,
    pub commit_without_relay: Times,
    pub cpu_seconds_per_1000_events: Cpu,
    pub database_cpu_seconds_per_1000_events_without_relay: Option<f64>,
    pub relay_peak_rss_bytes: Option<u64>,
    pub idle: Option<Idle>,
    pub lost: u64,
    pub duplicates: u64,
}

/// What relays cost that have nothing to do.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Idle {
    pub seconds: f64,
    /// Of one processor, all relays together.
    pub relay_cpu_percent: Option<f64>,
    /// Transactions of the whole database.
    pub transactions_per_second: f64,
    /// The first event afterwards, from its commit to a consumer.
    pub first_event_ms: f64,
}

/// Measures.
pub(crate) async fn latency(stage: &Stage, args: &LatencyArgs) -> Result<LatencyResult, CommandError> {
    let payloads = Payloads::of(&args.common)?;
    load::create_table(stage).await?;
    // Has the place created, so that it can be followed.
    stage.bus().await?;
    let reader = stage.reader().await?;
    let meter = Meter::new(stage, Some(&reader)).await?;
    let arrivals = Arrivals::listen(reader.clone());
    let mut run = Run { stage, args, payloads, meter, arrivals, sums: Sums::default() };
    for with_relay in SLICES {
        if with_relay {
            run.with_relay().await?
        } else {
            run.alone().await?
        }
        load::clear(stage).await?;
    }
    let idle = match args.idle {
        Some(idle) => Some(run.idle(idle).await?),
        None => None,
    };
    let Run { payloads, arrivals, sums, .. } = run;
    Ok(LatencyResult {
        conditions: Conditions::of(stage, Some(&args.relaying)).await?,
        rate: args.rate,
        connections: args.connections,
        seconds: args.duration.as_secs_f64(),
        payload: payloads.sample,
        events: sums.to_stored.0.len(),
        commit_to_stored: Times::of(&sums.to_stored.0),
        commit_to_consumer: Times::of(&sums.to_consumer.0),
        commit_with_relay: Times::of(&sums.with_relay.0),
        commit_without_relay: Times::of(&sums.alone.0),
        cpu_seconds_per_1000_events: mean(&sums.cpu_with_relay),
        database_cpu_seconds_per_1000_events_without_relay: mean(&sums.cpu_alone).database,
        relay_peak_rss_bytes: sums.peak_rss_bytes,
        idle,
        lost: sums.lost,
        duplicates: arrivals.copies + sums.dropped_by_the_bus,
    })
}

/// One measurement on its way.
struct Run<'a> {
    stage: &'a Stage,
    args: &'a LatencyArgs,
    payloads: Payloads,
    meter: Meter<'a>,
    arrivals: Arrivals,
    sums: Sums,
}

/// What the slices add up to.
#[derive(Default)]
struct Sums {
    to_stored: Sum,
    to_consumer: Sum,
    with_relay: Sum,
    alone: Sum,
    cpu_with_relay: Vec<Cpu>,
    cpu_alone: Vec<Cpu>,
    peak_rss_bytes: Option<u64>,
    lost: u64,
    dropped_by_the_bus: u64,
}

struct Sum(Histogram<u64>);

impl Default for Sum {
    fn default() -> Self {
        Self(histogram())
    }
}

impl Run<'_> {
    fn load(&self) -> Load {
        Load {
            form: Form::Library,
            batch: 1,
            connections: self.args.connections,
            rate: Some(self.args.rate),
            warm_up: self.args.warm_up,
            duration: self.args.duration * 2 / SLICES.len() as u32,
        }
    }

    async fn alone(&mut self) -> Result<(), CommandError> {
        say("The application alone");
        let before = self.meter.read(None).await?;
        let commits = self.load().run(self.stage, &self.payloads.texts).await?;
        let after = self.meter.read(None).await?;
        self.sums.cpu_alone.push(after.since(&before, commits.len() as f64).0);
        add(&mut self.sums.alone, &commit_times(&commits));
        Ok(())
    }

    async fn with_relay(&mut self) -> Result<(), CommandError> {
        let relays = self.start_relays().await?;
        say("The application and the relay");
        let clocks = (Instant::now(), Timestamp::now());
        let before = self.meter.read(Some(&relays)).await?;
        let commits = self.load().run(self.stage, &self.payloads.texts).await?;
        let ids: Vec<Uuid> = commits.iter().map(|commit| commit.id).collect();
        self.sums.lost += self.arrivals.wait_for(&ids).await?;
        let after = self.meter.read(Some(&relays)).await?;
        self.sums.cpu_with_relay.push(after.since(&before, commits.len() as f64).0);
        add(&mut self.sums.with_relay, &commit_times(&commits));
        for commit in commits.iter().filter(|commit| commit.counts) {
            if let Some(seen) = self.arrivals.seen.get(&commit.id) {
                record(&mut self.sums.to_stored.0, seen.stored - wall_clock(commit, clocks));
                record(&mut self.sums.to_consumer.0, seen.at.saturating_duration_since(commit.at).as_secs_f64());
            }
        }
        self.stop_relays(relays).await
    }

    /// Starts the relays and has each of them seen one event at least.
    async fn start_relays(&mut self) -> Result<Relays, CommandError> {
        let relays = Relays::start(self.args.relaying.replicas, self.stage).await?;
        self.first_event().await.map_err(|error| error.hint(format!("the relays said: {}", relays.said())))?;
        Ok(relays)
    }

    async fn stop_relays(&mut self, relays: Relays) -> Result<(), CommandError> {
        self.sums.peak_rss_bytes = self.sums.peak_rss_bytes.max(relays.peak_rss_bytes());
        self.sums.dropped_by_the_bus += relays.dropped_by_the_bus().await?;
        relays.stop().await
    }

    /// Commits one event and returns how long it takes to a consumer.
    async fn first_event(&mut self) -> Result<Duration, CommandError> {
        let load = Load { connections: 1, rate: Some(1), warm_up: Duration::ZERO, ..self.load() };
        let load = Load { duration: Duration::from_millis(1), ..load };
        let commits = load.run(self.stage, &self.payloads.texts).await?;
        let ids: Vec<Uuid> = commits.iter().map(|commit| commit.id).collect();
        if self.arrivals.wait_for(&ids).await? > 0 {
            return Err(CommandError::unhealthy(format!("the relay published nothing within {PATIENCE:?}")));
        }
        Ok(self.arrivals.seen[&ids[0]].at.saturating_duration_since(commits[0].at))
    }

    async fn idle(&mut self, duration: Duration) -> Result<Idle, CommandError> {
        let relays = self.start_relays().await?;
        say("The relay with nothing to do");
        tokio::time::sleep(COME_TO_REST).await;
        let (cpu, transactions, started) = (relays.cpu_seconds(), self.transactions().await?, Instant::now());
        tokio::time::sleep(duration).await;
        let seconds = started.elapsed().as_secs_f64();
        let used = relays.cpu_seconds().zip(cpu).map(|(after, before)| after - before);
        let transactions = self.transactions().await? - transactions;
        let first_event = self.first_event().await?;
        self.stop_relays(relays).await?;
        Ok(Idle {
            seconds,
            relay_cpu_percent: used.map(|used| used / seconds * 100.0),
            transactions_per_second: transactions / seconds,
            first_event_ms: first_event.as_secs_f64() * 1e3,
        })
    }

    async fn transactions(&self) -> Result<f64, CommandError> {
        let count = "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database
                     WHERE datname = current_database()";
        let row = self.stage.sql().await?.query_one(count, &[]).await;
        Ok(row.map_err(|error| CommandError::failure("cannot count transactions", error))?.get(0))
    }
}

fn add(sum: &mut Sum, part: &Histogram<u64>) {
    sum.0.add(part).expect("it grows as needed");
}

fn wall_clock(commit: &Commit, (instant, timestamp): (Instant, Timestamp)) -> f64 {
    timestamp.as_nanosecond() as f64 / 1e9 + commit.at.saturating_duration_since(instant).as_secs_f64()
}

fn mean(parts: &[Cpu]) -> Cpu {
    let mean =
        |of: fn(&Cpu) -> Option<f64>| parts.iter().map(of).sum::<Option<f64>>().map(|sum| sum / parts.len() as f64);
    Cpu { relay: mean(|cpu| cpu.relay), database: mean(|cpu| cpu.database), bus: mean(|cpu| cpu.bus) }
}

/// What an independent consumer has seen.
struct Arrivals {
    reading: JoinSet<Result<(), CommandError>>,
    receiver: UnboundedReceiver<Seen>,
    seen: HashMap<Uuid, Seen>,
    copies: u64,
}

impl Arrivals {
    fn listen(reader: Reader) -> Self {
        let (sender, receiver) = unbounded_channel();
        let mut reading = JoinSet::new();
        reading.spawn(async move { reader.read(sender).await });
        Self { reading, receiver, seen: HashMap::new(), copies: 0 }
    }

    /// Waits until all of `ids` have arrived and returns how many did not.
    async fn wait_for(&mut self, ids: &[Uuid]) -> Result<u64, CommandError> {
        let deadline = Instant::now() + PATIENCE;
        let mut missing = ids.iter().filter(|id| !self.seen.contains_key(id)).count();
        let wanted: std::collections::HashSet<Uuid> = ids.iter().copied().collect();
        while missing > 0 {
            let next = tokio::select! {
                biased;
                next = timeout_at(deadline, self.receiver.recv()) => next,
                Some(ended) = self.reading.join_next() => {
                    ended.map_err(|error| CommandError::failure("the consumer ended badly", error))??;
                    continue;
                }
            };
            let Ok(Some(seen)) = next else { break };
            if self.seen.insert(seen.id, seen).is_some() {
                self.copies += 1;
            } else if wanted.contains(&seen.id) {
                missing -= 1;
            }
        }
        Ok(missing as u64)
    }
}
