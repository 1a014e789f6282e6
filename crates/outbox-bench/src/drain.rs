//! `bench drain`: how fast relays empty a table.

use std::future::ready;
use std::time::Duration;

use clap::Args;
use futures_util::TryStreamExt;
use gamemesh_outbox::store::postgres::{PostgresConnection, ServerConnection};
use outbox_relay::CommandError;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::args::{Common, Relaying, say};
use crate::bus::{Progress, Reader};
use crate::ceiling::{Ceiling, ceiling};
use crate::conditions::Conditions;
use crate::meter::{Cpu, Meter};
use crate::place::EVENT_TYPE;
use crate::relays::Relays;
use crate::rows::{self, Payloads, Sample, Scenario};
use crate::stage::Stage;
use crate::times::grouped;

/// How often to ask how far the bus is: often enough to hit the end of the warm-up, and no work to speak of.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often to count connections.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);
/// How long nothing may happen before the measurement is given up.
const STALL: Duration = Duration::from_secs(60);

/// The arguments of `bench drain`.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) relaying: Relaying,
    /// Events to measure
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Events to publish before the measurement begins
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    warm_up: u64,
    /// What the table is like
    #[arg(long, value_enum, default_value_t = Scenario::Fresh)]
    scenario: Scenario,
    /// How many rows the scenario has instead of those that its name says
    #[arg(long, value_name = "NUMBER")]
    scenario_rows: Option<u64>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Drained {
    pub conditions: Conditions,
    pub scenario: Scenario,
    pub scenario_rows: u64,
    pub events: u64,
    pub warm_up: u64,
    #[serde(flatten)]
    pub payload: Sample,
    /// Events whose time was taken: `events`, less what was published between two looks at the end of the warm-up.
    pub measured_events: u64,
    pub seconds: f64,
    pub events_per_second: f64,
    pub ceiling_before: Ceiling,
    pub ceiling_after: Ceiling,
    pub ceiling_events_per_second: f64,
    pub share_of_ceiling: f64,
    pub cpu_seconds_per_1000_events: Cpu,
    pub wal_bytes_per_event: f64,
    pub relay_peak_rss_bytes: Option<u64>,
    /// Of the relay that took longest.
    pub start_to_ready_ms: f64,
    /// The most that one relay had at the same time, as far as somebody looked.
    pub relay_connections: u32,
    #[serde(flatten)]
    pub found: Found,
}

/// What was in the table and on the bus in the end.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Found {
    /// Marked as published or deleted, and not on the bus.
    pub lost: u64,
    /// On the bus more than once, or recognised by it and dropped.
    pub duplicates: u64,
    /// On the bus, though the table has no such event, or has it as not published.
    pub unknown: u64,
    /// Still in the table as PENDING or FAILED.
    pub unpublished: u64,
    /// Whether some are meant to be left.
    #[serde(skip)]
    pub backlog_expected: bool,
}

/// Measures.
pub(crate) async fn drain(stage: &Stage, args: &DrainArgs) -> Result<Drained, CommandError> {
    let payloads = Payloads::of(&args.common)?;
    let scenario_rows = args.scenario_rows.unwrap_or(args.scenario.rows());
    let table = Table { args, scenario_rows };
    table.fill(stage, &payloads).await?;
    let ceiling = async || {
        say("Measuring the bus alone");
        let [warm_up, count] = [args.warm_up.min(args.events), args.events].map(|count| count as usize);
        ceiling(stage, &payloads.texts, warm_up, count).await
    };
    let before = ceiling().await?;
    let pinned = match args.scenario {
        Scenario::Pinned => Some(pin(stage).await?),
        _ => None,
    };
    let measured = measure(stage, &table).await?;
    drop(pinned);
    let after = ceiling().await?;
    let mean = (before.events_per_second + after.events_per_second) / 2.0;
    let Measured { begin, end, cpu, wal_bytes_per_event, .. } = measured;
    let measured_events = end.messages - begin.messages;
    let seconds = end.last_stored - begin.last_stored;
    let events_per_second = measured_events as f64 / seconds;
    Ok(Drained {
        conditions: Conditions::of(stage, Some(&args.relaying)).await?,
        scenario: args.scenario,
        scenario_rows,
        events: args.events,
        warm_up: args.warm_up,
        payload: payloads.sample,
        measured_events,
        seconds,
        events_per_second,
        ceiling_before: before,
        ceiling_after: after,
        ceiling_events_per_second: mean,
        share_of_ceiling: events_per_second / mean,
        cpu_seconds_per_1000_events: cpu,
        wal_bytes_per_event,
        relay_peak_rss_bytes: measured.relay_peak_rss_bytes,
        start_to_ready_ms: measured.start_to_ready.as_secs_f64() * 1e3,
        relay_connections: measured.relay_connections,
        found: measured.found,
    })
}

/// What stands in the table at the beginning.
struct Table<'a> {
    args: &'a DrainArgs,
    scenario_rows: u64,
}

impl Table<'_> {
    /// Events before the measured ones.
    fn warm_up(&self) -> u64 {
        let pinned = if self.args.scenario == Scenario::Pinned { self.scenario_rows } else { 0 };
        self.args.warm_up + pinned
    }

    /// Events up to the last measured one.
    fn last(&self) -> u64 {
        self.warm_up() + self.args.events
    }

    /// Events that can be published.
    fn all(&self) -> u64 {
        let behind = if self.args.scenario == Scenario::Pending10m { self.scenario_rows } else { 0 };
        self.last() + behind
    }

    async fn fill(&self, stage: &Stage, payloads: &Payloads) -> Result<(), CommandError> {
        say(&format!("Inserting {} events", grouped(self.all())));
        let sql = stage.sql().await?;
        rows::spoil(&sql, self.args.scenario, self.scenario_rows).await?;
        payloads.insert(&sql, self.all()).await?;
        rows::note_ids(&sql).await?;
        rows::settle(&sql).await
    }
}

/// Opens a transaction that sees the table as it is now. Dropped, the connection ends, and the transaction with it.
async fn pin(stage: &Stage) -> Result<ServerConnection, CommandError> {
    let sql = PostgresConnection::take(stage.sql().await?);
    let pin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_events WHERE false";
    let pinned = sql.batch_execute(pin).await;
    pinned.map_err(|error| CommandError::failure("cannot open the old transaction", error))?;
    Ok(sql)
}

/// The raw result.
struct Measured {
    begin: Progress,
    end: Progress,
    cpu: Cpu,
    wal_bytes_per_event: f64,
    relay_peak_rss_bytes: Option<u64>,
    start_to_ready: Duration,
    relay_connections: u32,
    found: Found,
}

async fn measure(stage: &Stage, table: &Table<'_>) -> Result<Measured, CommandError> {
    let reader = stage.reader().await?;
    let meter = Meter::new(stage, Some(&reader)).await?;
    say("Measuring the relay");
    let mut relays = Relays::start(table.args.relaying.replicas, stage).await?;
    let mut connections = Connections { stage, most: 0, counted: Instant::now() };
    let begin = await_messages(&reader, &mut relays, &mut connections, table.warm_up()).await?;
    let used_before = meter.read(Some(&relays)).await?;
    let end = await_messages(&reader, &mut relays, &mut connections, table.last()).await?;
    if table.all() == table.last() {
        await_settled(&mut relays, &mut connections, table.all()).await?;
    }
    let used = meter.read(Some(&relays)).await?;
    let (cpu, wal_bytes_per_event) = used.since(&used_before, (end.messages - begin.messages) as f64);
    connections.count().await?;
    let start_to_ready = relays.start_to_ready().await?;
    let relay_peak_rss_bytes = relays.peak_rss_bytes();
    let dropped_by_the_bus = relays.dropped_by_the_bus().await?;
    relays.stop().await?;
    let mut found = find(stage, &reader, table).await?;
    found.duplicates += dropped_by_the_bus;
    reader.remove().await?;
    Ok(Measured {
        begin,
        end,
        cpu,
        wal_bytes_per_event,
        relay_peak_rss_bytes,
        start_to_ready,
        relay_connections: connections.most,
        found,
    })
}

/// Waits until the bus has stored as many messages.
async fn await_messages(
    reader: &Reader,
    relays: &mut Relays,
    connections: &mut Connections<'_>,
    count: u64,
) -> Result<Progress, CommandError> {
    let mut patience = Patience::new();
    loop {
        let progress = reader.progress().await?;
        if progress.messages >= count.max(1) {
            return Ok(progress);
        }
        patience.check(relays, progress.messages)?;
        connections.look().await?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until the relays have recorded the outcome of as many events.
async fn await_settled(relays: &mut Relays, connections: &mut Connections<'_>, count: u64) -> Result<(), CommandError> {
    let mut patience = Patience::new();
    loop {
        let settled = relays.published().await?;
        if settled >= count {
            return Ok(());
        }
        patience.check(relays, settled)?;
        connections.look().await?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Looks now and then at how many connections a relay has.
struct Connections<'a> {
    stage: &'a Stage,
    most: u32,
    counted: Instant,
}

impl Connections<'_> {
    async fn look(&mut self) -> Result<(), CommandError> {
        if self.counted.elapsed() < COUNT_INTERVAL {
            return Ok(());
        }
        self.count().await
    }

    async fn count(&mut self) -> Result<(), CommandError> {
        self.most = self.most.max(self.stage.relay_connections().await?);
        self.counted = Instant::now();
        Ok(())
    }
}

/// Gives up when nothing moves.
struct Patience {
    seen: u64,
    moved: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { seen: 0, moved: Instant::now() }
    }

    fn check(&mut self, relays: &mut Relays, seen: u64) -> Result<(), CommandError> {
        relays.check()?;
        if seen > self.seen {
            *self = Self { seen, moved: Instant::now() };
        }
        if self.moved.elapsed() < STALL {
            return Ok(());
        }
        let problem = format!("{seen} events so far; the relays said: {}", relays.said());
        Err(CommandError::failure(format!("no event was published for {STALL:?}"), problem))
    }
}

/// Holds the table against the bus, id by id.
async fn find(stage: &Stage, reader: &Reader, table: &Table<'_>) -> Result<Found, CommandError> {
    say("Checking that each event arrived once");
    let cannot = |error| CommandError::failure("cannot ask which events are published", error);
    let sql = stage.sql().await?;
    let left =
        format!("SELECT count(*) FROM outbox_events WHERE event_type = '{EVENT_TYPE}' AND status <> 'PUBLISHED'");
    let unpublished = sql.query_one(&left, &[]).await.map_err(cannot)?.get::<_, i64>(0).unsigned_abs();
    let mut copies = reader.copies().await?;
    let duplicates = copies.values().map(|copies| copies - 1).sum();
    // What is gone was published, too: relays delete nothing else.
    let published = "SELECT id FROM bench_inserted LEFT JOIN outbox_events USING (id)
                     WHERE status IS NULL OR status = 'PUBLISHED'";
    let published = sql.query_raw(published, Vec::<i64>::new()).await.map_err(cannot)?;
    let lost = published.try_fold(0, |lost, row| {
        let arrived = copies.remove(&row.get::<_, Uuid>(0)).is_some();
        ready(Ok(if arrived { lost } else { lost + 1 }))
    });
    let lost = lost.await.map_err(cannot)?;
    Ok(Found {
        lost,
        duplicates,
        unknown: copies.len() as u64,
        unpublished,
        backlog_expected: table.all() > table.last(),
    })
}
