use std::cmp::Reverse;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{Change, MemoryStore, Row, Table, later};
use crate::store::dead_letters::{
    Action, AuditEntry, Batch, COUNTED_MAX, Count, CountedPart, Cursor, DeadLetter, DeadLetters, Detail, EXAMINED_MAX,
    Filter, GROUPED_MAX, Grouping, Groups, HISTORY_MAX, Listed, PAYLOAD_SHOWN_MAX, Page, Request, Span, error_class,
};
use crate::store::{Status, StoreError, StoreErrorKind};

#[async_trait]
impl DeadLetters for MemoryStore {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listed, StoreError> {
        let after = page.after.as_ref().map(place).transpose()?;
        let (examined, rest) = self.examined(filter, after, EXAMINED_MAX);
        let letters = examined.into_iter().filter(|row| row.is_meant(filter)).take(page.size() as usize + 1);
        Ok(Listed::page(letters.map(Row::into_letter).collect(), page.size(), rest))
    }

    async fn count(
        &self,
        filter: &Filter,
        window: Duration,
        after: Option<&Cursor>,
    ) -> Result<CountedPart, StoreError> {
        let now = self.now();
        let (mut letters, next) = self.examined(filter, after.map(place).transpose()?, COUNTED_MAX);
        letters.retain(|row| row.is_meant(filter));
        let recent = letters.iter().filter(|row| row.is_recent(window, now)).count() as u64;
        Ok(CountedPart { count: Count { letters: letters.len() as u64, recent }, next })
    }

    async fn groups(&self, filter: &Filter, limit: u32) -> Result<Groups, StoreError> {
        let mut grouping = Grouping::default();
        let (letters, _) = self.examined(filter, None, GROUPED_MAX);
        let examined = letters.len() as u64;
        for letter in letters.into_iter().filter(|row| row.is_meant(filter)).map(Row::into_letter) {
            grouping.add(letter.last_error, 1, letter.created_at, letter.created_at);
        }
        Ok(grouping.finish(limit, examined))
    }

    async fn show(&self, id: Uuid) -> Result<Option<Detail>, StoreError> {
        Ok(self.row(id).map(Row::into_detail))
    }

    async fn history(&self, id: Uuid) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(self.audit().into_iter().rev().filter(|entry| entry.event_id == id).take(HISTORY_MAX as usize).collect())
    }

    async fn change(&self, request: &Request, span: &Span) -> Result<Batch, StoreError> {
        let after = span.after.as_ref().map(place).transpose()?;
        let up_to = span.up_to.as_ref().map(place).transpose()?;
        let is_done = |id| self.audit().iter().any(|entry| (entry.request_id, entry.event_id) == (request.id(), id));
        let mut letters = self.letters(&Filter::ids(request.filter().ids.iter().copied()));
        letters.reverse();
        letters.retain(|row| {
            let place = row.place();
            after.is_none_or(|after| place > after) && up_to.is_none_or(|up_to| place <= up_to)
        });
        let mut next = letters.get(EXAMINED_MAX as usize - 1).map(Row::cursor);
        letters.truncate(EXAMINED_MAX as usize);
        letters.retain(|row| row.is_meant(request.filter()));
        letters.truncate(span.size() as usize);
        next = letters.get(span.size() as usize - 1).map(Row::cursor).or(next);
        let mut batch = Batch { next, ..Batch::default() };
        letters.retain(|row| !is_done(row.event.id));
        let now = self.now();
        let mut table = self.shared.table();
        let mut changes = Vec::new();
        for row in letters {
            if table.change_one(request, &row, now, &mut changes) {
                batch.changed.push(row.event.id);
                let is_sent_again = request.action() == Action::Requeue;
                batch.recent += u64::from(is_sent_again && row.is_recent(request.duplicate_window, now));
            }
        }
        table.journal.commit(now, changes);
        drop(table);
        self.shared.committed.notify_waiters();
        Ok(batch)
    }
}

impl MemoryStore {
    /// Returns the letters that `filter` means, newest first.
    fn letters(&self, filter: &Filter) -> Vec<Row> {
        let mut letters: Vec<Row> = self.rows().into_iter().filter(|row| row.is_meant(filter)).collect();
        letters.sort_by_key(|row| Reverse(row.place()));
        letters
    }

    /// Returns the next `limit` letters after a place that have one of the ids of `filter`, newest first, and where the rest
    /// begins, if there may be one.
    fn examined(&self, filter: &Filter, after: Option<LetterPlace>, limit: u32) -> (Vec<Row>, Option<Cursor>) {
        let mut letters = self.letters(&Filter::ids(filter.ids.iter().copied()));
        letters.retain(|row| after.is_none_or(|after| row.place() < after));
        let last = letters.get(limit as usize - 1).map(Row::cursor);
        letters.truncate(limit as usize);
        (letters, last)
    }
}

impl Table {
    /// Says whether it did; another request may have been faster.
    fn change_one(&mut self, request: &Request, row: &Row, now: Timestamp, changes: &mut Vec<Change>) -> bool {
        let id = row.event.id;
        let Some(stored) = self.rows.get_mut(&id).filter(|row| row.status == Status::Failed) else { return false };
        let after = match request.action() {
            Action::Requeue => {
                stored.status = Status::Pending;
                stored.event.attempt_count = 0;
                stored.last_error.clear();
                stored.available_at = now;
                changes.push(Change::Updated(stored.clone()));
                json!({"status": "PENDING", "attempt_count": 0, "last_error": ""})
            }
            Action::Discard => {
                self.rows.remove(&id);
                changes.push(Change::Deleted(id));
                serde_json::Value::Null
            }
        };
        let entry = AuditEntry {
            id: self.audit.len() as i64 + 1,
            at: now,
            actor: request.actor().to_owned(),
            action: request.action().as_str().to_owned(),
            event_id: id,
            request_id: request.id(),
            reason: request.reason().to_owned(),
            before: row.before(request.action()),
            after,
        };
        self.audit.push(entry.clone());
        changes.push(Change::Audited(entry));
        true
    }
}

impl Row {
    fn is_meant(&self, filter: &Filter) -> bool {
        let event = &self.event;
        self.status == Status::Failed
            && (filter.ids.is_empty() || filter.ids.contains(&event.id))
            && filter.topic.as_ref().is_none_or(|topic| *topic == event.topic)
            && filter.event_type.as_ref().is_none_or(|event_type| *event_type == event.event_type)
            && filter.error_class.as_ref().is_none_or(|class| *class == error_class(&self.last_error))
            && filter.created_since.is_none_or(|since| event.created_at >= since)
            && filter.created_until.is_none_or(|until| event.created_at < until)
    }

    fn is_recent(&self, window: Duration, now: Timestamp) -> bool {
        // An attempt whose wait is not over has just been made.
        !window.is_zero() && now < later(self.available_at, window)
    }

    fn place(&self) -> LetterPlace {
        (self.event.created_at.as_microsecond(), self.event.id)
    }

    fn cursor(&self) -> Cursor {
        let (position, id) = self.place();
        Cursor::new(position.to_string(), id)
    }

    fn into_letter(self) -> DeadLetter {
        DeadLetter {
            cursor: self.cursor(),
            id: self.event.id,
            topic: self.event.topic,
            event_type: self.event.event_type,
            event_key: self.event.key,
            created_at: self.event.created_at,
            attempt_count: self.event.attempt_count,
            error_class: error_class(&self.last_error),
            last_error: self.last_error,
            last_attempt_by: self.available_at,
        }
    }

    fn into_detail(self) -> Detail {
        let payload = String::from_utf8_lossy(&self.event.payload);
        Detail {
            status: self.status,
            published_at: self.published_at,
            payload: payload.chars().take(PAYLOAD_SHOWN_MAX as usize).collect(),
            payload_bytes: self.event.payload.len() as u64,
            headers: json!(self.event.headers).to_string(),
            carrier: self.event.carrier.to_json(),
            letter: self.into_letter(),
        }
    }

    /// What the audit keeps. Of a discarded event that is all there will be; never its payload, see migration 0006.
    fn before(&self, action: Action) -> serde_json::Value {
        let event = &self.event;
        let mut before = json!({
            "status": self.status,
            "attempt_count": event.attempt_count,
            "last_error": self.last_error,
        });
        if action == Action::Discard {
            before["topic"] = json!(event.topic);
            before["event_type"] = json!(event.event_type);
            before["event_key"] = json!(event.key);
            before["created_at"] = json!(event.created_at);
            before["payload_bytes"] = json!(event.payload.len());
        }
        before
    }
}

/// A letter's place in the list: when it was inserted, in microseconds, and its id.
type LetterPlace = (i64, Uuid);

fn place(cursor: &Cursor) -> Result<LetterPlace, StoreError> {
    let refused = |error| StoreError::new(StoreErrorKind::Refused, "cannot read the cursor").with_source(error);
    Ok((cursor.number().map_err(refused)?, cursor.id()))
}
