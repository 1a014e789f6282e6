//! The check that nothing was lost: what the shop committed, what a consumer received and what the table says, compared.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};

use gamemesh_outbox::bus::memory::Message;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// What is to become of an event that was committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// A consumer receives it.
    Delivered,
    /// No bus can carry it: it is set aside.
    DeadLetter,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    /// Events of committed transactions.
    pub committed: u64,
    /// Events of transactions that were rolled back.
    pub rolled_back: u64,
    /// Different events that the consumer received, intact.
    pub delivered: u64,
    /// Events that the consumer received again.
    pub duplicates: u64,
    /// Messages that are not what was committed.
    pub altered: u64,
    /// Messages of rolled-back events.
    pub phantoms: u64,
}

/// Two independent accounts of the same events: the shop's and the consumer's. What both agree on is kept as its id
/// alone, so that a long run stays small.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    counts: Counts,
    open: HashMap<Uuid, Account>,
    delivered: HashSet<Uuid>,
    rolled_back: HashSet<Uuid>,
    /// Received, but not written by this shop: somebody else may use the same database.
    strangers: HashSet<Uuid>,
}

/// An event whose story is not complete.
#[derive(Clone, Copy, Debug)]
struct Account {
    digest: u64,
    fate: Fate,
    committed: bool,
    received: bool,
}

impl Ledger {
    /// The shop wrote an event, in a transaction that is still open.
    pub(super) fn written(&self, id: Uuid, subject: &str, payload: &str, fate: Fate) {
        let account = Account { digest: digest(subject, payload), fate, committed: false, received: false };
        self.books().open.insert(id, account);
    }

    /// The shop's transaction was committed. The consumer may have been faster.
    pub(super) fn committed(&self, id: Uuid) {
        let mut books = self.books();
        books.counts.committed += 1;
        let account = books.open.get_mut(&id).expect("an event is written before it is committed");
        account.committed = true;
        if account.received {
            books.close(id);
        }
    }

    /// The shop's transaction was rolled back.
    pub(super) fn rolled_back(&self, id: Uuid) {
        let mut books = self.books();
        books.counts.rolled_back += 1;
        let account = books.open.remove(&id).expect("an event is written before it is rolled back");
        books.counts.phantoms += u64::from(account.received);
        books.rolled_back.insert(id);
    }

    /// The consumer received a message.
    pub(super) fn received(&self, message: &Message) {
        let mut books = self.books();
        let books = &mut *books;
        let Some(account) = books.open.get_mut(&message.id) else { return books.received_late(message.id) };
        if read(message) != Some((message.id, account.digest)) {
            books.counts.altered += 1;
        } else if std::mem::replace(&mut account.received, true) {
            books.counts.duplicates += 1;
        } else if account.committed {
            books.close(message.id);
        }
    }

    /// Returns the totals so far.
    pub(super) fn counts(&self) -> Counts {
        self.books().counts
    }

    /// Begins the audit; give it every row of the table.
    pub(super) fn audit(&self) -> Auditor<'_> {
        let books = self.books();
        let report = Report { counts: books.counts, ..Report::default() };
        Auditor { ledger: self, strangers: books.strangers.clone(), rows: 0, report }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no code panics while it holds the lock")
    }
}

impl Books {
    /// A message of an event whose story seemed complete, or that the shop never wrote.
    fn received_late(&mut self, id: Uuid) {
        if self.rolled_back.contains(&id) {
            self.counts.phantoms += 1;
        } else if self.delivered.contains(&id) {
            self.counts.duplicates += 1;
        } else {
            self.strangers.insert(id);
        }
    }

    fn close(&mut self, id: Uuid) {
        self.open.remove(&id);
        self.delivered.insert(id);
        self.counts.delivered += 1;
    }
}

/// Compares the ledger with the table.
#[derive(Debug)]
pub(super) struct Auditor<'a> {
    ledger: &'a Ledger,
    strangers: HashSet<Uuid>,
    /// Rows of events that the shop committed.
    rows: u64,
    report: Report,
}

impl Auditor<'_> {
    /// Takes one row of the table.
    pub(super) fn row(&mut self, id: Uuid, status: &str) {
        let (report, books) = (&mut self.report, self.ledger.books());
        if books.rolled_back.contains(&id) {
            report.counts.phantoms += 1;
            return;
        }
        let account = books.open.get(&id).copied();
        if account.is_none() && !books.delivered.contains(&id) {
            self.strangers.remove(&id);
            return;
        }
        self.rows += 1;
        let fate = account.map_or(Fate::Delivered, |account| account.fate);
        match (status, fate) {
            ("FAILED", Fate::DeadLetter) => report.dead_lettered += 1,
            ("PENDING", _) => report.waiting += 1,
            ("PUBLISHED", Fate::Delivered) if account.is_none() => {}
            // Marked, and yet no consumer has it.
            ("PUBLISHED", Fate::Delivered) => report.lost += 1,
            _ => report.misplaced += 1,
        }
    }

    /// Ends the audit. `business_rows` is how many rows the shop's own tables gained; `duplicates` is how often the bus
    /// refused a second copy.
    pub(super) fn finish(self, business_rows: u64, duplicates: u64) -> Report {
        let mut report = self.report;
        report.business_rows = business_rows;
        report.counts.duplicates += duplicates;
        report.lost += report.counts.committed.saturating_sub(self.rows);
        // Received, and not in the table: nobody can have committed it.
        report.counts.phantoms += self.strangers.len() as u64;
        report
    }
}

/// What the audit found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Report {
    pub counts: Counts,
    /// Events set aside because no bus can carry them.
    pub dead_lettered: u64,
    /// Events that the relay had not finished with in time.
    pub waiting: u64,
    /// Committed events that are neither delivered nor set aside nor waiting.
    pub lost: u64,
    /// Rows in a state that their event should not have.
    pub misplaced: u64,
    /// Rows that the shop's own tables gained.
    pub business_rows: u64,
}

impl Report {
    /// Lists what is wrong, one sentence each; empty when all is well. Duplicates are counted but not wrong: delivery is
    /// at least once.
    pub(super) fn problems(&self) -> Vec<String> {
        let Counts { committed, altered, phantoms, .. } = self.counts;
        let mut problems = Vec::new();
        let mut expect_none = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        };
        expect_none(self.lost, "committed events were lost");
        expect_none(phantoms, "events were published that nobody committed");
        expect_none(altered, "messages differ from what was committed");
        expect_none(self.misplaced, "rows are in a state that they should not have");
        expect_none(self.waiting, "events were still waiting at the end");
        if self.business_rows != committed {
            let rows = self.business_rows;
            problems.push(format!("{committed} events were committed, but {rows} business rows: expected one each"));
        }
        problems
    }
}

/// The envelope, as far as it is compared. The payload stays text.
#[derive(Deserialize)]
struct Envelope<'a> {
    id: Uuid,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Reads the id and the digest of a message as a consumer would: from what is on the wire.
fn read(message: &Message) -> Option<(Uuid, u64)> {
    let envelope: Envelope<'_> = serde_json::from_slice(&message.body).ok()?;
    Some((envelope.id, digest(&message.subject, envelope.payload.get())))
}

fn digest(subject: &str, payload: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (subject, payload).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "events.shop.purchased";
    const PAYLOAD: &str = r#"{"item":"sword"}"#;

    fn message(id: Uuid, payload: &str) -> Message {
        let body =
            format!(r#"{{"id":"{id}","type":"purchased","timestamp":"2026-01-02T03:04:05Z","payload":{payload}}}"#);
        Message { id, subject: SUBJECT.to_owned(), body: body.into(), headers: Default::default() }
    }

    /// A ledger with one event that was committed and nothing else.
    fn one_committed(fate: Fate) -> (Ledger, Uuid) {
        let (ledger, id) = (Ledger::default(), Uuid::now_v7());
        ledger.written(id, SUBJECT, PAYLOAD, fate);
        ledger.committed(id);
        (ledger, id)
    }

    fn problems(ledger: &Ledger, rows: &[(Uuid, &str)]) -> String {
        let mut auditor = ledger.audit();
        for (id, status) in rows {
            auditor.row(*id, status);
        }
        let business_rows = ledger.counts().committed;
        auditor.finish(business_rows, 0).problems().join("; ")
    }

    #[test]
    fn a_delivered_and_marked_event_is_well_whoever_was_first() {
        let (ledger, id) = one_committed(Fate::Delivered);
        ledger.received(&message(id, PAYLOAD));
        let other = Uuid::now_v7();
        ledger.written(other, SUBJECT, PAYLOAD, Fate::Delivered);
        ledger.received(&message(other, PAYLOAD));
        ledger.committed(other);
        assert_eq!(problems(&ledger, &[(id, "PUBLISHED"), (other, "PUBLISHED")]), "");
        assert_eq!(ledger.counts().delivered, 2);
        assert!(ledger.books().open.is_empty(), "what is settled costs no more than its id");
    }

    #[test]
    fn a_lost_event_is_found() {
        let (ledger, id) = one_committed(Fate::Delivered);
        assert_eq!(problems(&ledger, &[(id, "PUBLISHED")]), "1 committed events were lost", "marked, never received");
        assert_eq!(problems(&ledger, &[]), "1 committed events were lost", "its row is gone");
        assert_eq!(problems(&ledger, &[(id, "PENDING")]), "1 events were still waiting at the end");
    }

    #[test]
    fn a_dead_letter_is_only_what_no_bus_can_carry() {
        let (ledger, id) = one_committed(Fate::DeadLetter);
        assert_eq!(problems(&ledger, &[(id, "FAILED")]), "");
        assert_eq!(problems(&ledger, &[(id, "PUBLISHED")]), "1 rows are in a state that they should not have");
        let (ledger, id) = one_committed(Fate::Delivered);
        assert_eq!(problems(&ledger, &[(id, "FAILED")]), "1 rows are in a state that they should not have");
    }

    #[test]
    fn a_phantom_is_found_before_and_after_the_rollback_and_in_the_table() {
        let expected = "1 events were published that nobody committed";
        let (ledger, id) = (Ledger::default(), Uuid::now_v7());
        ledger.written(id, SUBJECT, PAYLOAD, Fate::Delivered);
        ledger.received(&message(id, PAYLOAD));
        ledger.rolled_back(id);
        assert_eq!(problems(&ledger, &[]), expected);

        let (ledger, id) = (Ledger::default(), Uuid::now_v7());
        ledger.written(id, SUBJECT, PAYLOAD, Fate::Delivered);
        ledger.rolled_back(id);
        assert_eq!(problems(&ledger, &[]), "");
        assert_eq!(problems(&ledger, &[(id, "PENDING")]), expected);
        ledger.received(&message(id, PAYLOAD));
        assert_eq!(problems(&ledger, &[]), expected);
    }

    #[test]
    fn an_event_of_somebody_else_is_a_phantom_only_if_the_table_does_not_know_it() {
        let (ledger, id) = (Ledger::default(), Uuid::now_v7());
        ledger.received(&message(id, PAYLOAD));
        assert_eq!(problems(&ledger, &[(id, "PUBLISHED")]), "");
        assert_eq!(problems(&ledger, &[]), "1 events were published that nobody committed");
    }

    #[test]
    fn an_altered_payload_is_found_even_if_it_means_the_same() {
        let (ledger, id) = one_committed(Fate::Delivered);
        ledger.received(&message(id, r#"{"item": "sword"}"#));
        let found = problems(&ledger, &[(id, "PUBLISHED")]);
        assert_eq!(found, "1 committed events were lost; 1 messages differ from what was committed");
    }

    #[test]
    fn a_duplicate_is_counted_and_is_no_failure() {
        let (ledger, id) = one_committed(Fate::Delivered);
        ledger.received(&message(id, PAYLOAD));
        ledger.received(&message(id, PAYLOAD));
        assert_eq!(problems(&ledger, &[(id, "PUBLISHED")]), "");
        assert_eq!(ledger.counts().duplicates, 1);
    }

    #[test]
    fn business_rows_and_events_come_in_pairs() {
        let (ledger, id) = one_committed(Fate::DeadLetter);
        let mut auditor = ledger.audit();
        auditor.row(id, "FAILED");
        let problems = auditor.finish(0, 0).problems();
        assert_eq!(problems, ["1 events were committed, but 0 business rows: expected one each"]);
    }
}
