//! Histories told step by step, as several sources would have recorded them. Each step takes a millisecond.

use gamemesh_outbox::store::dead_letters::Action;
use gamemesh_outbox::store::{OnPublished, Status};
use jiff::Timestamp;
use outbox_testkit::history::{
    Change, Configuration, Counters, Delivery, Digest, Envelope, Exit, Fault, FaultRecord, History, Inserted, Nanos,
    Op, Payload, ReceiptKind, RelayEvent, RelayRecord, RelayRun, Rest, Row, SettleKind, Stored, Transaction,
    TransactionOutcome,
};
use uuid::Uuid;

pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000 * MILLISECOND;

/// Tells a history from its beginning, or goes on with one.
pub(crate) struct Story {
    pub history: History,
    now: Nanos,
    xid: u32,
}

/// One claim, while its story is told.
#[derive(Clone)]
pub(crate) struct Told {
    relay: RelayRun,
    number: u64,
    ids: Vec<Uuid>,
}

pub(crate) fn relay(name: &str, run: u32) -> RelayRun {
    RelayRun { name: name.to_owned(), run }
}

impl Story {
    pub(crate) fn new() -> Self {
        let configuration = Configuration {
            attempts_max: 2,
            charges_all: false,
            on_published: OnPublished::Mark,
            retention: Some(10 * SECOND),
            retry_max: 4 * SECOND,
            settle_max: SECOND,
        };
        let mut history = History::default();
        history.facts.configuration = configuration;
        Self { history, now: 1_800_000_000 * SECOND, xid: 700 }
    }

    /// Goes on where a history ends.
    pub(crate) fn after(history: History) -> Self {
        let now = history.relays.iter().map(|record| record.at).max().unwrap();
        Self { history, now, xid: 9_000 }
    }

    pub(crate) fn pass(&mut self, time: Nanos) -> Nanos {
        self.now += time;
        self.now
    }

    fn tick(&mut self) -> Nanos {
        self.pass(MILLISECOND)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.now.into()).unwrap()
    }

    // --- Producers ---------------------------------------------------------------------------------------------------

    /// A transaction of which the database has what its outcome says; of an unknown one, nothing.
    pub(crate) fn transaction(&mut self, outcome: TransactionOutcome, ids: &[Uuid], poison: bool) {
        let began = self.tick();
        let created_at = self.timestamp();
        let event = |id: &Uuid| Inserted {
            id: *id,
            topic: "events.player".to_owned(),
            event_type: "registered".to_owned(),
            key: Some("player-7".to_owned()),
            headers: [("Tenant".to_owned(), "eu-1".to_owned())].into(),
            carrier: [("baggage".to_owned(), "a=b".to_owned())].into(),
            payload: Payload::of(b"{\"b\":1,\"a\":2}"),
            stored: Some(Stored { payload: Payload::of(b"{\"a\": 2, \"b\": 1}"), created_at }),
            poison,
        };
        let events = ids.iter().map(event).collect();
        let number = self.history.producers.len() as u64;
        let producer = "producer-1".to_owned();
        self.history.producers.push(Transaction { at: began, began, producer, number, outcome, events });
        if outcome == TransactionOutcome::Committed {
            self.insert_rows(ids);
        }
        let at = self.tick();
        self.history.producers.last_mut().expect("just told").at = at;
    }

    /// The rows of a transaction are committed now.
    pub(crate) fn insert_rows(&mut self, ids: &[Uuid]) {
        let row = |id: &Uuid| {
            let stored = self.inserted(*id).and_then(|event| event.stored).expect("inserted before");
            Row {
                id: *id,
                status: Status::Pending,
                attempt_count: 0,
                created_at: stored.created_at,
                available_at: stored.created_at,
                published_at: None,
                payload: Some(stored.payload),
                content: Some(Digest::of_parts([&id.as_bytes()[..]])),
            }
        };
        let ops = ids.iter().map(row).map(Op::Insert).collect();
        self.commit(ops);
    }

    fn inserted(&self, id: Uuid) -> Option<&Inserted> {
        self.history.producers.iter().flat_map(|transaction| &transaction.events).find(|event| event.id == id)
    }

    // --- The database ------------------------------------------------------------------------------------------------

    /// Returns an event's row as it is now.
    pub(crate) fn row(&self, id: Uuid) -> Row {
        let rows = self.history.database.iter().rev().filter_map(|change| match &change.op {
            Op::Insert(row) | Op::Update(row) => Some(row),
            _ => None,
        });
        rows.into_iter().find(|row| row.id == id).expect("a row").clone()
    }

    pub(crate) fn commit(&mut self, ops: Vec<Op>) {
        let at = self.tick();
        self.xid += 1;
        let lsn = self.history.database.last().map_or(1000, |change| change.lsn + 10);
        let xid = self.xid;
        self.history.database.extend(ops.into_iter().map(|op| Change { at, lsn, xid, op }));
    }

    // --- The bus -----------------------------------------------------------------------------------------------------

    pub(crate) fn store(&mut self, id: Uuid) {
        let at = self.tick();
        let stored = self.inserted(id).and_then(|event| event.stored);
        let created_at = stored.map_or(Timestamp::UNIX_EPOCH, |stored| stored.created_at);
        let envelope = Envelope {
            id,
            event_type: "registered".to_owned(),
            timestamp: created_at.to_string(),
            payload: Payload::of(b"{\"a\": 2, \"b\": 1}"),
            carrier: [("baggage".to_owned(), "a=b".to_owned())].into(),
        };
        let headers = [("Tenant", "eu-1"), ("Event-Key", "player-7"), ("baggage", "a=b")];
        self.history.bus.push(Delivery {
            at,
            stream: "PLAYER".to_owned(),
            position: self.history.bus.len() as u64 + 1,
            id,
            subject: "events.player.registered".to_owned(),
            key: None,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            envelope: Some(envelope),
        });
    }

    // --- Relays ------------------------------------------------------------------------------------------------------

    pub(crate) fn say(&mut self, relay: &RelayRun, event: RelayEvent) {
        let at = self.tick();
        self.history.relays.push(RelayRecord { at, relay: relay.clone(), event });
    }

    /// A claim that is sent, up to where the receipts should come.
    pub(crate) fn send(&mut self, relay: &RelayRun, ids: &[Uuid], stored: &[Uuid]) -> Told {
        let number = 1 + self
            .history
            .relays
            .iter()
            .filter(|record| record.relay == *relay && matches!(record.event, RelayEvent::Claimed { .. }))
            .count() as u64;
        self.say(relay, RelayEvent::Claimed { claim: number, took: MILLISECOND / 2, ids: ids.to_vec() });
        self.say(relay, RelayEvent::Sending { claim: number });
        for id in stored {
            self.store(*id);
        }
        Told { relay: relay.clone(), number, ids: ids.to_vec() }
    }

    /// Receipts, and what the relay is about to do about them.
    pub(crate) fn judge(&mut self, claim: &Told, judged: &[(ReceiptKind, SettleKind)]) {
        let (receipts, outcomes) = judged.iter().copied().unzip();
        self.say(&claim.relay, RelayEvent::Receipts { claim: claim.number, receipts });
        self.say(&claim.relay, RelayEvent::Settling { claim: claim.number, outcomes });
    }

    /// The settlement is committed.
    pub(crate) fn settle(&mut self, claim: &Told, judged: &[(ReceiptKind, SettleKind)]) {
        self.judge(claim, judged);
        let now = self.timestamp();
        let mut dead_lettered = Vec::new();
        let mut ops = Vec::new();
        for (id, (_, outcome)) in claim.ids.iter().zip(judged) {
            let mut row = self.row(*id);
            match outcome {
                SettleKind::Published if self.removes() => {
                    ops.push(Op::Delete { id: *id });
                    continue;
                }
                SettleKind::Published => {
                    row.status = Status::Published;
                    row.published_at = Some(now);
                }
                SettleKind::Charged => {
                    row.attempt_count += 1;
                    row.available_at = now + jiff::SignedDuration::from_secs(2);
                    if row.attempt_count == 2 {
                        row.status = Status::Failed;
                        dead_lettered.push(*id);
                    }
                }
                SettleKind::Deferred => row.available_at = now + jiff::SignedDuration::from_secs(1),
                SettleKind::Withheld | SettleKind::Released => continue,
            }
            ops.push(Op::Update(row));
        }
        self.commit(ops);
        self.settled(claim, judged, dead_lettered);
    }

    /// The relay is told that the settlement is committed.
    pub(crate) fn settled(&mut self, claim: &Told, judged: &[(ReceiptKind, SettleKind)], dead_lettered: Vec<Uuid>) {
        let published = judged.iter().filter(|(_, outcome)| *outcome == SettleKind::Published).count() as u64;
        self.say(
            &claim.relay,
            RelayEvent::Settled { claim: claim.number, published, dead_lettered, unwritten: Vec::new() },
        );
    }

    pub(crate) fn abandoned(&mut self, claim: &Told) {
        self.say(&claim.relay, RelayEvent::Abandoned { claim: claim.number });
    }

    pub(crate) fn publish(&mut self, relay: &RelayRun, ids: &[Uuid]) {
        let claim = self.send(relay, ids, ids);
        self.settle(&claim, &vec![(ReceiptKind::Acked, SettleKind::Published); ids.len()]);
    }

    fn removes(&self) -> bool {
        let configured = self.history.faults.iter().rev().find_map(|record| match record.fault {
            Fault::Configured(configuration) => Some(configuration.on_published),
            _ => None,
        });
        configured == Some(OnPublished::Delete)
    }

    // --- Faults and people -------------------------------------------------------------------------------------------

    /// A fault of some duration, from now on.
    pub(crate) fn fault(&mut self, fault: Fault, duration: Option<Nanos>) {
        let at = self.tick();
        let until = duration.map(|duration| at + duration);
        self.history.faults.push(FaultRecord { at, until, fault, details: String::new() });
    }

    pub(crate) fn kill(&mut self, relay: &RelayRun) {
        self.fault(Fault::Kill(relay.clone()), None);
        self.say(relay, RelayEvent::Exited(Exit::Signal(9)));
    }

    pub(crate) fn operator(&mut self, request_id: Uuid, action: Action, id: Uuid) {
        self.fault(Fault::Operator { request_id, action, ids: Some(vec![id]) }, Some(MILLISECOND * 3));
        let mut row = self.row(id);
        let change = match action {
            Action::Requeue => {
                (row.status, row.attempt_count, row.available_at) = (Status::Pending, 0, self.timestamp());
                Op::Update(row)
            }
            Action::Discard => Op::Delete { id },
        };
        self.commit(vec![change, Op::Audit { event_id: id, request_id, action }]);
    }

    // --- The end -----------------------------------------------------------------------------------------------------

    /// Notes gauges and counters as they should be: those of every relay that was not killed.
    pub(crate) fn rest(&mut self) {
        let at = self.tick();
        let count = |status: Status| {
            let ids = self.history.database.iter().filter_map(|change| match &change.op {
                Op::Insert(row) => Some(row.id),
                _ => None,
            });
            let gone = |id: &Uuid| {
                self.history.database.iter().any(|change| matches!(&change.op, Op::Delete { id: gone } if gone == id))
            };
            ids.filter(|id| !gone(id) && self.row(*id).status == status).count() as u64
        };
        let (pending, failed) = (count(Status::Pending), count(Status::Failed));
        let mut relays: Vec<Counters> = Vec::new();
        for record in &self.history.relays {
            let place = relays.iter().position(|counters| counters.relay == record.relay).unwrap_or_else(|| {
                let relay = record.relay.clone();
                relays.push(Counters {
                    relay,
                    published: 0,
                    publish_failures: 0,
                    dead_lettered: 0,
                    attempts: [].into(),
                });
                relays.len() - 1
            });
            let counters = &mut relays[place];
            match &record.event {
                RelayEvent::Settled { published, dead_lettered, .. } => {
                    counters.published += published;
                    counters.dead_lettered += dead_lettered.len() as u64;
                }
                RelayEvent::Receipts { receipts, .. } => {
                    for receipt in receipts {
                        *counters.attempts.entry(*receipt).or_default() += 1;
                        counters.publish_failures += u64::from(!receipt.is_ack());
                    }
                }
                _ => {}
            }
        }
        let killed =
            |relay: &RelayRun| self.history.faults.iter().any(|record| record.fault == Fault::Kill(relay.clone()));
        relays.retain(|counters| !killed(&counters.relay));
        self.history.facts.rest = Some(Rest { at, pending, failed, relays });
    }
}
