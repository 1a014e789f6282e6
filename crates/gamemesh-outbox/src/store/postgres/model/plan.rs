use std::time::Duration;

use fastrand::Rng;
use uuid::Uuid;

use super::super::table::Columns;
use super::row::{PAYLOAD_MAX, Row, State, Writable};
use crate::store::Route;

pub(super) const POLL_INTERVAL_MAX: Duration = Duration::from_millis(1500);

/// What a seed decides before a run.
pub(super) struct Plan {
    pub(super) replicas: usize,
    pub(super) workers: usize,
    pub(super) events: u32,
    pub(super) bytes: u64,
    pub(super) event_bytes: u64,
    pub(super) lifetime: Duration,
    /// How long the server lets a statement run.
    pub(super) statement: Duration,
    pub(super) poll_interval: Duration,
    /// How long publishing takes, at most, in milliseconds.
    pub(super) publish: u64,
    /// Whether index entries stay when their rows are gone.
    pub(super) keeps_dead: bool,
    /// How long a look takes to walk over one of them.
    pub(super) walk: Duration,
    /// How long a claim takes to write out a row.
    pub(super) write: Duration,
    /// How many statements in ten thousand meet each kind of fault.
    pub(super) faults: u32,
    /// How many in ten thousand are late.
    pub(super) late: u32,
    /// How long a replica lives, about, in milliseconds.
    pub(super) crash_after: u64,
    /// How many claims in a thousand are not settled, or with anything but success.
    pub(super) misfortune: u32,
    /// In the order in which they commit.
    pub(super) producers: Vec<Producer>,
}

/// A transaction that inserts rows.
pub(super) struct Producer {
    pub(super) commits_at: Duration,
    pub(super) rows: Vec<Row>,
}

impl Plan {
    pub(super) fn of(rng: &mut Rng) -> Self {
        let keeps_dead = rng.bool();
        Self {
            replicas: rng.usize(1..=3),
            workers: rng.usize(1..=4),
            events: rng.u32(1..=10),
            bytes: rng.u64(50..=400),
            event_bytes: rng.u64(100..=PAYLOAD_MAX as u64),
            lifetime: Duration::from_millis(rng.u64(500..=2000)),
            statement: Duration::from_millis(rng.u64(600..=2000)),
            poll_interval: Duration::from_millis(rng.u64(100..=POLL_INTERVAL_MAX.as_millis() as u64)),
            publish: rng.choice([0, 2, 20, 100]).expect("one of them"),
            keeps_dead,
            walk: Duration::from_micros(match rng.u32(0..4) {
                _ if !keeps_dead => 0,
                // What became due in the same instant can be walked over in one statement: no bite is smaller.
                0 => rng.u64(10_000..=20_000),
                _ => rng.u64(0..=5000),
            }),
            write: Duration::from_micros(if rng.u32(0..3) == 0 { rng.u64(0..=20_000) } else { 0 }),
            faults: if rng.bool() { rng.u32(0..=50) } else { 0 },
            late: if rng.bool() { rng.u32(0..=3000) } else { 0 },
            crash_after: rng.choice([1000, 1_000_000]).expect("one of them"),
            misfortune: if rng.bool() { rng.u32(0..=300) } else { 0 },
            producers: producers(rng),
        }
    }
}

/// Draws who inserts what. A row's time is that of its transaction's beginning, or what the producer says.
fn producers(rng: &mut Rng) -> Vec<Producer> {
    let until = rng.choice([100, 2000, 4000]).expect("one of them");
    let unreadable = if rng.u32(0..4) == 0 { rng.u32(0..=20) } else { 0 };
    let unwritable = if rng.u32(0..8) == 0 { rng.choice([3, 20, 100]).expect("one of them") } else { 0 };
    let mut rows = 0;
    let producer = |_| {
        let begins_at = rng.i64(0..=until);
        let takes = if rng.u32(0..10) == 0 { rng.i64(0..=3000) } else { rng.i64(0..=5) };
        let count = rng.usize(1..=8);
        let rows = (0..count).map(|_| {
            rows += 1;
            let shift = match rng.u32(0..20) {
                0 => rng.i64(-10_000..=0),
                1 => rng.i64(0..=3000),
                _ => 0,
            };
            row(rng, rows, (begins_at + shift) * 1000, unreadable, unwritable)
        });
        let rows = rows.collect();
        Producer { commits_at: Duration::from_millis((begins_at + takes).unsigned_abs()), rows }
    };
    let mut producers: Vec<Producer> = (0..16).map(producer).collect();
    producers.sort_by_key(|producer| producer.commits_at);
    producers
}

fn row(rng: &mut Rng, number: u16, available_at: i64, unreadable: u32, unwritable: u32) -> Row {
    let mut can_be_read = || rng.u32(0..100) >= unreadable;
    let readable =
        Columns { names: can_be_read(), payload: can_be_read(), carrier: can_be_read(), headers: can_be_read() };
    // Their ids say nothing of when they are due.
    let id = Uuid::from_u128(u128::from(rng.u64(..)) << 64 | u128::from(number));
    Row {
        id,
        route: route(rng.usize(0..ROUTES)),
        payload: if rng.u32(0..5) == 0 { rng.usize(0..=PAYLOAD_MAX) } else { rng.usize(0..=50) },
        headers: rng.u64(0..=10),
        writable: match rng.u32(0..100) {
            drawn if drawn >= unwritable => Writable::All,
            drawn if drawn % 2 == 0 => Writable::NoMark,
            _ => Writable::Nothing,
        },
        readable,
        available_at,
        state: State::Pending,
        attempts: 0,
        version: 0,
        committed_at: 0,
        held_by: None,
        free_since: 0,
        reached_at: 0,
    }
}

pub(super) const ROUTES: usize = 3;

pub(super) fn route(number: usize) -> Route {
    Route { topic: format!("events.{number}"), event_type: String::new() }
}
