use std::collections::BTreeMap;

use tokio::time::Instant;
use uuid::Uuid;

use super::super::place::{Part, QueuePlace};
use super::super::table::Step;
use super::fault::Fault;
use super::row::{Row, State};
use super::rules::Rule;
use super::watch::Watch;
use crate::event::Event;
use crate::store::ClaimLimit;

/// The table and the transactions on it. Times are microseconds since the run began.
pub(super) struct Server {
    began: Instant,
    pub(super) rows: Vec<Row>,
    /// The index of what is pending.
    pub(super) queue: BTreeMap<QueuePlace, usize>,
    /// Index entries of rows that are gone, which an old transaction keeps alive.
    dead: Vec<QueuePlace>,
    keeps_dead: bool,
    pub(super) transactions: BTreeMap<u32, Transaction>,
    pub(super) watch: Watch,
    /// Whether every row can be written by now, whatever it is.
    pub(super) refuses_nothing: bool,
    /// A mistake: rows are claimed whoever holds them.
    pub(super) ignores_locks: bool,
}

/// A transaction of a connection.
pub(super) struct Transaction {
    lifetime: i64,
    /// Since when the server waits for a statement.
    idle_since: Option<i64>,
    aborted: bool,
    /// How many changes there were at the point within the transaction to go back to, if there is one.
    savepoint: Option<usize>,
    pub(super) held: Vec<usize>,
    pub(super) changes: Vec<(usize, Change)>,
}

/// What becomes of a row when its transaction commits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Publish,
    Charge { available_at: i64, failed: bool },
    Defer { available_at: i64 },
}

impl Server {
    pub(super) fn new(keeps_dead: bool) -> Self {
        Self {
            began: Instant::now(),
            rows: Vec::new(),
            queue: BTreeMap::new(),
            dead: Vec::new(),
            keeps_dead,
            transactions: BTreeMap::new(),
            watch: Watch::default(),
            refuses_nothing: false,
            ignores_locks: false,
        }
    }

    pub(super) fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_micros()).expect("a run is short")
    }

    pub(super) fn find(&self, id: Uuid) -> usize {
        self.rows.iter().position(|row| row.id == id).expect("a row of the table")
    }

    /// A producer's transaction commits.
    pub(super) fn insert(&mut self, rows: Vec<Row>) {
        let now = self.now();
        for mut row in rows {
            (row.committed_at, row.free_since) = (now, now);
            self.queue.insert(row.place(), self.rows.len());
            self.rows.push(row);
        }
    }

    /// Says over how much a look at a part of the queue walks before it comes to anything.
    pub(super) fn dead_in(&self, part: Part) -> u32 {
        let dead = self.dead.iter().filter(|place| part.contains(**place)).count();
        u32::try_from(dead).expect("a run is short")
    }

    /// Lists what a connection holds, each row with its version.
    pub(super) fn held(&self, connection: u32) -> Vec<(usize, u32)> {
        let held = self.transactions.get(&connection).into_iter().flat_map(|transaction| &transaction.held);
        held.map(|index| (*index, self.rows[*index].version)).collect()
    }

    /// A claim was not opened.
    pub(super) fn failed_to_open(&mut self, connection: u32) {
        let now = self.now();
        self.watch.failed_to_open(connection, &mut self.rows, now);
    }

    /// A claim was opened.
    pub(super) fn claimed(&mut self, connection: u32, events: &[Event], limit: &ClaimLimit) {
        let found: Vec<usize> = events.iter().map(|event| self.find(event.id)).collect();
        let rows: Vec<&Row> = found.into_iter().map(|index| &self.rows[index]).collect();
        self.watch.claimed(connection, &rows, events, limit);
    }

    // --- Transactions ------------------------------------------------------------------------------------------------

    pub(super) fn begin(&mut self, connection: u32, lifetime: i64) -> Result<(), Fault> {
        let transaction = Transaction {
            lifetime,
            idle_since: None,
            aborted: false,
            savepoint: None,
            held: Vec::new(),
            changes: Vec::new(),
        };
        let other = self.transactions.insert(connection, transaction);
        assert!(other.is_none(), "a transaction begins while another is open");
        Ok(())
    }

    pub(super) fn step(&mut self, connection: u32, step: Step) -> Result<(), Fault> {
        let Some(transaction) = self.transactions.get_mut(&connection) else { return Err(Fault::Other) };
        match step {
            Step::Rollback => self.roll_back(connection, self.now()),
            Step::BackBeforeRow | Step::BackBeforeWrite if transaction.savepoint.is_some() => {
                transaction.aborted = false;
                transaction.changes.truncate(transaction.savepoint.take().unwrap_or_default());
            }
            _ if transaction.aborted => return Err(Fault::Other),
            Step::BeforeRow | Step::BeforeWrite | Step::BeforeTry => {
                transaction.savepoint = Some(transaction.changes.len())
            }
            Step::AfterRow | Step::BackBeforeRow | Step::AfterWrite | Step::BackBeforeWrite => {
                transaction.savepoint = None;
            }
            Step::Commit => self.commit(connection),
        }
        Ok(())
    }

    /// Returns the transaction in which a statement runs.
    pub(super) fn open(&mut self, connection: u32) -> Result<&mut Transaction, Fault> {
        self.transactions.get_mut(&connection).filter(|transaction| !transaction.aborted).ok_or(Fault::Other)
    }

    /// A statement failed.
    pub(super) fn abort(&mut self, connection: u32) {
        if let Some(transaction) = self.transactions.get_mut(&connection) {
            transaction.aborted = true;
        }
    }

    /// The connection is gone.
    pub(super) fn close(&mut self, connection: u32) {
        self.roll_back(connection, self.now());
    }

    /// The connection is free for others to use.
    pub(super) fn give_back(&mut self, connection: u32) {
        if self.transactions.contains_key(&connection) {
            self.watch.broke(Rule::NothingOpen, format!("{connection} is given back in a transaction"));
        }
    }

    fn roll_back(&mut self, connection: u32, at: i64) {
        if let Some(transaction) = self.transactions.remove(&connection) {
            transaction.held.into_iter().for_each(|index| self.rows[index].free(connection, at));
        }
    }

    fn commit(&mut self, connection: u32) {
        let transaction = self.transactions.remove(&connection).expect("it is open");
        for (index, change) in transaction.changes {
            let row = &mut self.rows[index];
            self.queue.remove(&row.place());
            if self.keeps_dead {
                self.dead.push(row.place());
            }
            row.version += 1;
            row.attempts += u32::from(matches!(change, Change::Charge { .. }));
            match change {
                Change::Publish => row.state = State::Published,
                Change::Charge { failed: true, .. } => row.state = State::Failed,
                Change::Charge { available_at, .. } | Change::Defer { available_at } => {
                    row.available_at = available_at;
                    self.queue.insert(row.place(), index);
                }
            }
        }
        let now = self.now();
        transaction.held.into_iter().for_each(|index| self.rows[index].free(connection, now));
    }

    /// A statement begins.
    pub(super) fn busy(&mut self, connection: u32) {
        self.expire();
        if let Some(transaction) = self.transactions.get_mut(&connection) {
            transaction.idle_since = None;
        }
    }

    /// A statement is over.
    pub(super) fn idle(&mut self, connection: u32) {
        let now = self.now();
        if let Some(transaction) = self.transactions.get_mut(&connection) {
            transaction.idle_since = Some(now);
        }
    }

    /// Ends what `idle_in_transaction_session_timeout` should have ended by now.
    pub(super) fn expire(&mut self) {
        let now = self.now();
        let mut ended = self.transactions.iter().filter_map(|(connection, transaction)| {
            Some((*connection, transaction.idle_since? + transaction.lifetime)).filter(|(_, end)| *end < now)
        });
        if let Some((connection, end)) = ended.next() {
            self.roll_back(connection, end);
            self.watch.blame(connection);
            self.expire();
        }
    }
}
