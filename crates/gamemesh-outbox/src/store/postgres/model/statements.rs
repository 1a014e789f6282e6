//! What the statements do: the functions of migrations 0008 and 0009, and the files in `sql`.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::place::{QueuePlace, RowVersion};
use super::super::server_time::ServerTime;
use super::super::table::{Charged, Columns};
use super::expect::Look;
use super::fault::Fault;
use super::row::{ModelRow, Row, State};
use super::rules::Rule;
use super::server::{Change, Server};
use crate::store::{ClaimLimit, Route};

impl Server {
    /// One look of `outbox_wait_for_due`, which began at that time.
    pub(super) fn first_due(
        &mut self,
        connection: u32,
        began: i64,
        from: QueuePlace,
        except: &[Route],
    ) -> Result<Option<ServerTime>, Fault> {
        self.expire();
        self.open(connection)?;
        let found = self.due(connection, began, began, from, except).next();
        self.hold_rows(connection, found.as_slice());
        Ok(found.map(|index| self.rows[index].place().at))
    }

    /// `outbox_claim`, which began at that time.
    pub(super) fn claim(
        &mut self,
        connection: u32,
        began: i64,
        from: QueuePlace,
        limit: &ClaimLimit,
    ) -> Result<Vec<ModelRow>, Fault> {
        let locked = self.lock(connection, began, began, from, limit)?;
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

    /// `lock_due.sql`.
    pub(super) fn hold(&mut self, connection: u32, limit: &ClaimLimit) -> Result<Vec<Uuid>, Fault> {
        let due_by = self.open(connection)?.began;
        let locked = self.lock(connection, self.now(), due_by, QueuePlace::START, limit)?;
        Ok(locked.into_iter().map(|index| self.rows[index].id).collect())
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

    fn change(&mut self, connection: u32, found: &[usize], change: impl Fn(usize) -> Change) -> Result<u64, Fault> {
        self.open(connection)?.changes.extend(found.iter().map(|index| (*index, change(*index))));
        for row in found.iter().map(|index| &self.rows[*index]) {
            if row.state != State::Pending || row.held_by != Some(connection) {
                self.watch.broke(Rule::HeldOnce, format!("{connection} changes {row:?}"));
            }
        }
        Ok(found.len() as u64)
    }

    /// Locks the oldest rows from a place on that were due at that time.
    fn lock(
        &mut self,
        connection: u32,
        began: i64,
        due_by: i64,
        from: QueuePlace,
        limit: &ClaimLimit,
    ) -> Result<Vec<usize>, Fault> {
        self.expire();
        self.open(connection)?;
        let due = self.due(connection, began, due_by, from, &limit.except);
        let locked: Vec<usize> = due.take(limit.events as usize).collect();
        let look = Look { connection, from, began, at: self.now(), except: &limit.except, locked: &locked };
        self.watch.looked(&look, &mut self.rows);
        self.hold_rows(connection, &locked);
        Ok(locked)
    }

    /// Lists in order what a statement that began at that time sees and nobody else holds.
    fn due<'a>(
        &'a self,
        connection: u32,
        began: i64,
        due_by: i64,
        from: QueuePlace,
        except: &'a [Route],
    ) -> impl Iterator<Item = usize> + 'a {
        let in_order = self.queue.range(from..).map(|(_, index)| *index);
        in_order.take_while(move |index| self.rows[*index].available_at <= due_by).filter(move |index| {
            let row = &self.rows[*index];
            let free = row.held_by.is_none_or(|holder| holder == connection) || self.ignores_locks;
            free && row.committed_at <= began && !except.contains(&row.route)
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
