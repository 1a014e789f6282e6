//! What the statements do: the functions of migrations 0008 to 0010, and the files in `sql`.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::place::{Part, QueuePlace, RowVersion};
use super::super::server_time::ServerTime;
use super::super::table::{Charged, Columns, Held};
use super::expect::Look;
use super::fault::Fault;
use super::row::{ModelRow, Row, State};
use super::rules::Rule;
use super::server::{Change, Server};
use crate::store::ClaimLimit;

impl Server {
    /// `look_for_due.sql`, which began at that time.
    pub(super) fn first_due(
        &mut self,
        connection: u32,
        began: i64,
        from: QueuePlace,
        limit: &ClaimLimit,
    ) -> Option<ServerTime> {
        self.expire();
        let found = self.due(connection, began, Part::behind(from), limit).next();
        found.map(|index| self.rows[index].place().at)
    }

    /// `outbox_claim`, which began at that time.
    pub(super) fn claim(
        &mut self,
        connection: u32,
        began: i64,
        from: QueuePlace,
        limit: &ClaimLimit,
    ) -> Result<Vec<ModelRow>, Fault> {
        let locked = self.lock(connection, began, Part::behind(from), limit)?;
        if !locked.iter().all(|index| self.rows[*index].can_be_read(Columns::ALL)) {
            self.abort(connection);
            return Err(Fault::Row);
        }
        let (mut bytes, mut rows) = (0, Vec::new());
        for row in locked.iter().map(|index| &self.rows[*index]) {
            bytes += row.weight(limit.event_bytes);
            let beyond = bytes > limit.bytes && !(rows.is_empty() && limit.any_size);
            rows.push(ModelRow::new(row, Columns::ALL, beyond));
        }
        Ok(rows)
    }

    /// `lock_due.sql`, which began at that time.
    pub(super) fn hold(
        &mut self,
        connection: u32,
        began: i64,
        part: Part,
        limit: &ClaimLimit,
    ) -> Result<Vec<Held>, Fault> {
        let locked = self.lock(connection, began, part, limit)?;
        let held = |row: &Row| Held { place: row.place(), version: row.row_version() };
        Ok(locked.into_iter().map(|index| held(&self.rows[index])).collect())
    }

    /// `read_one.sql`.
    pub(super) fn read(&mut self, connection: u32, id: Uuid, columns: Columns) -> Result<ModelRow, Fault> {
        self.open(connection)?;
        let row = &self.rows[self.find(id)];
        if row.can_be_read(columns) {
            return Ok(ModelRow::new(row, columns, false));
        }
        self.abort(connection);
        Err(Fault::Row)
    }

    /// `mark_published.sql` and `delete_published.sql`.
    pub(super) fn publish(&mut self, connection: u32, versions: &[RowVersion], ids: &[Uuid]) -> Result<u64, Fault> {
        let lies_there = |row: &Row| versions.contains(&row.row_version()) && ids.contains(&row.id);
        let found: Vec<usize> = (0..self.rows.len()).filter(|index| lies_there(&self.rows[*index])).collect();
        self.change(connection, &found, |_| Change::Publish)
    }

    /// `charge.sql`.
    pub(super) fn charge(
        &mut self,
        connection: u32,
        ids: &[Uuid],
        waits_us: &[i64],
        attempts_max: u32,
    ) -> Result<Vec<Charged>, Fault> {
        let now = self.now();
        let mut charged = Vec::new();
        self.open(connection)?;
        for (&id, wait_us) in ids.iter().zip(waits_us) {
            let index = self.find(id);
            let failed = attempts_max > 0 && self.rows[index].attempts + 1 >= attempts_max;
            self.change(connection, &[index], |_| Change::Charge { available_at: now + wait_us, failed })?;
            charged.push(Charged { id, failed });
        }
        Ok(charged)
    }

    /// `defer.sql`.
    pub(super) fn defer(&mut self, connection: u32, ids: &[Uuid], waits_us: &[i64]) -> Result<u64, Fault> {
        let now = self.now();
        let waits: BTreeMap<usize, i64> = ids.iter().map(|id| self.find(*id)).zip(waits_us.iter().copied()).collect();
        let found: Vec<usize> = waits.keys().copied().collect();
        self.change(connection, &found, |index| Change::Defer { available_at: now + waits[&index] })
    }

    /// `withhold.sql`.
    pub(super) fn withhold(&mut self, connection: u32, ids: &[Uuid], waits_us: &[i64]) -> Result<u64, Fault> {
        self.defer(connection, ids, waits_us)
    }

    fn change(&mut self, connection: u32, found: &[usize], change: impl Fn(usize) -> Change) -> Result<u64, Fault> {
        self.open(connection)?;
        let refuses = |index: &usize| self.rows[*index].writable.refuses(change(*index) == Change::Publish);
        if !self.refuses_nothing && found.iter().any(refuses) {
            self.abort(connection);
            return Err(Fault::Refused);
        }
        self.open(connection)?.changes.extend(found.iter().map(|index| (*index, change(*index))));
        for row in found.iter().map(|index| &self.rows[*index]) {
            if row.state != State::Pending || row.held_by != Some(connection) {
                self.watch.broke(Rule::HeldOnce, format!("{connection} changes {row:?}"));
            }
        }
        Ok(found.len() as u64)
    }

    /// Locks the oldest rows of a part of the queue.
    fn lock(&mut self, connection: u32, began: i64, part: Part, limit: &ClaimLimit) -> Result<Vec<usize>, Fault> {
        self.expire();
        self.open(connection)?;
        let due = self.due(connection, began, part, limit);
        let locked: Vec<usize> = due.take(limit.events as usize).collect();
        let look = Look { connection, part, began, at: self.now(), limit, locked: &locked };
        self.watch.looked(&look, &mut self.rows);
        self.hold_rows(connection, &locked);
        Ok(locked)
    }

    /// Lists in order what a statement that began at that time sees and nobody else holds.
    fn due<'a>(
        &'a self,
        connection: u32,
        began: i64,
        part: Part,
        limit: &'a ClaimLimit,
    ) -> impl Iterator<Item = usize> + 'a {
        let in_order = self.queue.range(part.from..).map(|(_, index)| *index);
        let in_part = in_order.take_while(move |index| {
            let row = &self.rows[*index];
            row.available_at <= began && part.contains(row.place())
        });
        in_part.filter(move |index| {
            let row = &self.rows[*index];
            let free = row.held_by.is_none_or(|holder| holder == connection) || self.ignores_locks;
            free && row.committed_at <= began && !row.is_excepted(limit)
        })
    }

    fn hold_rows(&mut self, connection: u32, found: &[usize]) {
        let transaction = self.transactions.get_mut(&connection).expect("it is open");
        for &index in found {
            if self.rows[index].held_by.replace(connection) != Some(connection) {
                transaction.held.push(index);
            }
        }
    }
}
