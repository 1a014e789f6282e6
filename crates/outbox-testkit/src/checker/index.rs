//! The history by event, claim and relay, made once for all rules.

use std::borrow::Cow;
use std::collections::HashMap;
use std::slice;

use gamemesh_outbox::store::Status;
use uuid::Uuid;

use super::findings::Findings;
use super::rules::Rule;
use crate::history::{
    Change, Configuration, Delivery, Exit, Facts, Fault, FaultRecord, History, Inserted, Nanos, Op, ReceiptKind,
    RelayEvent, RelayRun, Row, SettleKind, Target, Transaction,
};

/// A history, indexed.
#[derive(Debug)]
pub(super) struct Index<'h> {
    pub history: &'h History,
    pub lives: Vec<Life<'h>>,
    /// In the order of the records.
    pub claims: Vec<Claim<'h>>,
    pub runs: Vec<Run<'h>>,
    places: HashMap<Uuid, u32>,
    reconfigurations: Vec<&'h FaultRecord>,
}

/// Everything that is known of one event.
#[derive(Debug)]
pub(super) struct Life<'h> {
    pub id: Uuid,
    /// What its producer says. More than one is a contradiction, and reported as one.
    pub inserted: Option<(&'h Transaction, &'h Inserted)>,
    /// Its row, in commit order, and what the audit says of it.
    pub changes: Vec<&'h Change>,
    /// Its copies on the bus, in the order of the records.
    pub copies: Vec<&'h Delivery>,
    /// The claims that held it, by their index, and its place in each.
    held: Vec<(u32, u32)>,
}

/// One claim of one relay.
#[derive(Debug)]
pub(super) struct Claim<'h> {
    /// Index of the run.
    pub run: usize,
    pub number: u64,
    pub began: Nanos,
    pub claimed: Nanos,
    pub ids: &'h [Uuid],
    pub sending: Option<Nanos>,
    pub receipts: Option<(Nanos, &'h [ReceiptKind])>,
    pub settling: Option<(Nanos, &'h [SettleKind])>,
    pub end: Option<(Nanos, End<'h>)>,
}

/// How a claim ended, by what its relay says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End<'h> {
    Settled { published: u64, dead_lettered: &'h [Uuid] },
    Abandoned,
}

/// One run of one relay.
#[derive(Debug)]
pub(super) struct Run<'h> {
    pub relay: &'h RelayRun,
    pub stop: Option<Nanos>,
    pub exit: Option<(Nanos, Exit)>,
    pub killed: Option<Nanos>,
    /// Indexes of its claims, in order.
    pub claims: Vec<usize>,
}

/// One claim's dealings with one event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent<'i, 'h> {
    pub claim: &'i Claim<'h>,
    pub receipt: Option<ReceiptKind>,
    pub outcome: Option<SettleKind>,
}

/// One change of one row, with what it was before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'h> {
    pub change: &'h Change,
    pub before: Option<&'h Row>,
    pub after: Option<&'h Row>,
    pub did: Did,
}

/// What a change means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Did {
    Inserted,
    /// PENDING to PUBLISHED.
    Published,
    /// PENDING to gone.
    Removed,
    /// PENDING to PENDING, with another number of attempts.
    Charged,
    /// PENDING to PENDING, with the same.
    Deferred,
    /// PENDING to FAILED.
    Failed,
    /// FAILED to PENDING.
    Requeued,
    /// FAILED to gone.
    Discarded,
    /// PUBLISHED to gone.
    Pruned,
    /// An entry of the audit.
    Audited,
    /// None of these.
    Illegal,
}

impl<'h> Index<'h> {
    /// Sorts the records; what does not fit together is reported as [`Rule::Evidence`].
    pub(super) fn new(history: &'h History, findings: &mut Findings) -> Self {
        let configured = history.faults.iter().filter(|fault| matches!(fault.fault, Fault::Configured(_)));
        let mut reconfigurations: Vec<_> = configured.collect();
        reconfigurations.sort_by_key(|fault| fault.at);
        let mut index = Self {
            history,
            lives: Vec::new(),
            claims: Vec::new(),
            runs: Vec::new(),
            places: HashMap::with_capacity(history.database.len() / 2),
            reconfigurations,
        };
        index.add_producers(findings);
        for change in &history.database {
            index.life_mut(change.op.id()).changes.push(change);
        }
        for delivery in &history.bus {
            index.life_mut(delivery.id).copies.push(delivery);
        }
        index.add_relays(findings);
        index
    }

    fn add_producers(&mut self, findings: &mut Findings) {
        for transaction in &self.history.producers {
            for event in &transaction.events {
                if let Some((other, _)) = self.life_mut(event.id).inserted.replace((transaction, event)) {
                    findings.of(Rule::Evidence, event.id, || {
                        let (a, b) = (format!("{} {}", other.producer, other.number), transaction.number);
                        format!("inserted twice: by transaction {a} and by {} {b}", transaction.producer)
                    });
                }
            }
        }
    }

    fn add_relays(&mut self, findings: &mut Findings) {
        let mut runs: HashMap<&RelayRun, usize> = HashMap::new();
        let mut open: HashMap<(usize, u64), usize> = HashMap::new();
        for record in &self.history.relays {
            let run = *runs.entry(&record.relay).or_insert_with(|| {
                self.runs.push(Run { relay: &record.relay, stop: None, exit: None, killed: None, claims: Vec::new() });
                self.runs.len() - 1
            });
            let said = self.add_relay_event(run, record.at, &record.event, &mut open);
            if let Err(problem) = said {
                findings.about(Rule::Evidence, || format!("relay {}: {problem}", record.relay));
            }
        }
        for fault in &self.history.faults {
            if let Fault::Kill(relay) = &fault.fault {
                match runs.get(relay) {
                    Some(run) => self.runs[*run].killed = Some(fault.at),
                    None => {
                        findings.about(Rule::Evidence, || format!("relay {relay} was killed and never said a word"))
                    }
                }
            }
        }
        for number in 0..self.claims.len() {
            let claim = &self.claims[number];
            for (place, id) in claim.ids.iter().enumerate() {
                let life = self.places.get(id).map(|place| *place as usize);
                let held = (number as u32, place as u32);
                match life {
                    Some(life) => self.lives[life].held.push(held),
                    None => self.life_of_nobody(*id).held.push(held),
                }
            }
        }
        // Each relay's records come in its own order, and the claims of all are compared.
        for life in &mut self.lives {
            let claims = &self.claims;
            life.held.sort_by_key(|(claim, _)| claims[*claim as usize].claimed);
        }
    }

    fn add_relay_event(
        &mut self,
        run: usize,
        at: Nanos,
        event: &'h RelayEvent,
        open: &mut HashMap<(usize, u64), usize>,
    ) -> Result<(), String> {
        if let Some((_, exit)) = self.runs[run].exit {
            return Err(format!("said {event:?} after it exited ({exit:?})"));
        }
        let mut claim = |number: &u64, ends: bool| {
            let key = (run, *number);
            let found = if ends { open.remove(&key) } else { open.get(&key).copied() };
            found.ok_or_else(|| format!("said {event:?} of a claim that is not open"))
        };
        match event {
            RelayEvent::Started => {}
            RelayEvent::StopRequested => self.runs[run].stop = Some(at),
            RelayEvent::Exited(exit) => self.runs[run].exit = Some((at, *exit)),
            RelayEvent::Claimed { claim, took, ids } => {
                if open.contains_key(&(run, *claim)) {
                    return Err(format!("claim {claim} was opened twice"));
                }
                open.insert((run, *claim), self.claims.len());
                self.runs[run].claims.push(self.claims.len());
                let (number, began) = (*claim, at.saturating_sub(*took));
                let claim = Claim {
                    run,
                    number,
                    began,
                    claimed: at,
                    ids,
                    sending: None,
                    receipts: None,
                    settling: None,
                    end: None,
                };
                self.claims.push(claim);
            }
            RelayEvent::Sending { claim: number } => self.claims[claim(number, false)?].sending = Some(at),
            RelayEvent::Receipts { claim: number, receipts } => {
                let claim = &mut self.claims[claim(number, false)?];
                claim.expect_one_each(receipts.len(), "receipts")?;
                claim.receipts = Some((at, receipts));
            }
            RelayEvent::Settling { claim: number, outcomes } => {
                let claim = &mut self.claims[claim(number, false)?];
                claim.expect_one_each(outcomes.len(), "outcomes")?;
                claim.settling = Some((at, outcomes));
            }
            RelayEvent::Settled { claim: number, published, dead_lettered } => {
                let end = End::Settled { published: *published, dead_lettered };
                self.claims[claim(number, true)?].end = Some((at, end));
            }
            RelayEvent::Abandoned { claim: number } => {
                self.claims[claim(number, true)?].end = Some((at, End::Abandoned));
            }
        }
        Ok(())
    }

    fn life_mut(&mut self, id: Uuid) -> &mut Life<'h> {
        match self.places.get(&id) {
            Some(place) => &mut self.lives[*place as usize],
            None => self.life_of_nobody(id),
        }
    }

    fn life_of_nobody(&mut self, id: Uuid) -> &mut Life<'h> {
        self.places.insert(id, u32::try_from(self.lives.len()).expect("fewer than four billion events"));
        self.lives.push(Life { id, inserted: None, changes: Vec::new(), copies: Vec::new(), held: Vec::new() });
        self.lives.last_mut().expect("just added")
    }

    pub(super) fn life(&self, id: Uuid) -> Option<&Life<'h>> {
        self.places.get(&id).map(|place| &self.lives[*place as usize])
    }

    pub(super) fn facts(&self) -> &'h Facts {
        &self.history.facts
    }

    /// How far two sources may disagree about the time.
    pub(super) fn tolerance(&self) -> Nanos {
        self.history.facts.clock_tolerance
    }

    /// Says whether `a` is certainly later than `b`, whoever says so.
    pub(super) fn is_later(&self, a: Nanos, b: Nanos) -> bool {
        a > b.saturating_add(self.tolerance())
    }

    /// Lists the claims that held an event, in the order in which they were claimed.
    pub(super) fn sends<'i>(&'i self, life: &'i Life<'h>) -> impl Iterator<Item = Sent<'i, 'h>> {
        life.held.iter().map(|&(claim, place)| {
            let claim = &self.claims[claim as usize];
            let place = place as usize;
            Sent {
                claim,
                receipt: claim.receipts.map(|(_, receipts)| receipts[place]),
                outcome: claim.settling.map(|(_, outcomes)| outcomes[place]),
            }
        })
    }

    /// Returns the claim through which an event was marked: of those that may have done it the one that was told so, or
    /// else the last.
    pub(super) fn marker<'i>(&'i self, life: &'i Life<'h>) -> Option<&'i Claim<'h>> {
        let mark = life.steps().find(Step::is_publication)?;
        let may_have = |sent: &Sent<'_, '_>| sent.justifies(SettleKind::Published, mark.change.at, self.tolerance());
        let claims: Vec<&Claim<'_>> = self.sends(life).filter(may_have).map(|sent| sent.claim).collect();
        let told = claims.iter().find(|claim| matches!(claim.end, Some((_, End::Settled { .. }))));
        told.or(claims.last()).copied()
    }

    /// Lists the configurations of which some relay may have had any at that time.
    pub(super) fn configurations(&self, at: Nanos) -> Cow<'h, [Configuration]> {
        let facts = self.facts();
        if self.reconfigurations.is_empty() {
            return Cow::Borrowed(slice::from_ref(&facts.configuration));
        }
        let mut possible = vec![facts.configuration];
        for record in self.reconfigurations.iter().take_while(|record| !self.is_later(record.at, at)) {
            let Fault::Configured(configuration) = record.fault else { continue };
            if record.until.is_none_or(|until| self.is_later(at, until)) {
                possible.clear();
            }
            possible.push(configuration);
        }
        Cow::Owned(possible)
    }

    /// Returns the time from which on a claim may have lost its rows: it is being settled, has ended, its relay is dead,
    /// or something has happened through which the database ends it.
    pub(super) fn held_until(&self, claim: &Claim<'h>) -> Nanos {
        let run = &self.runs[claim.run];
        let ended = [claim.settling.map(|(at, _)| at), claim.end.map(|(at, _)| at), run.death()];
        let lost = self.history.faults.iter().filter(|record| run.may_lose_claims_by(&record.fault));
        let lost = lost.filter(|record| record.until.is_none_or(|until| until >= claim.claimed));
        let lost = lost.map(|record| record.at.max(claim.claimed));
        ended.into_iter().flatten().chain(lost).min().unwrap_or(Nanos::MAX)
    }

    /// Returns the earliest time of all records.
    pub(super) fn began(&self) -> Nanos {
        let history = self.history;
        let producers = history.producers.iter().map(|transaction| transaction.began);
        let database = history.database.iter().map(|change| change.at);
        let relays = history.relays.iter().map(|record| record.at);
        let faults = history.faults.iter().map(|record| record.at);
        producers.chain(database).chain(relays).chain(faults).min().unwrap_or_default()
    }
}

impl<'h> Life<'h> {
    /// Says whether its row was ever committed.
    pub(super) fn is_in_database(&self) -> bool {
        self.row_inserted().is_some()
    }

    /// Returns when its row was committed, and how it was then.
    pub(super) fn row_inserted(&self) -> Option<(Nanos, &'h Row)> {
        self.changes.iter().find_map(|change| match &change.op {
            Op::Insert(row) => Some((change.at, row)),
            _ => None,
        })
    }

    /// Follows its row.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step<'h>> {
        let mut row: Option<&'h Row> = None;
        self.changes.iter().map(move |&change| {
            let before = row;
            let (did, after) = match &change.op {
                Op::Insert(after) if before.is_none() => (Did::Inserted, Some(after)),
                Op::Insert(after) => (Did::Illegal, Some(after)),
                Op::Update(after) => (before.map_or(Did::Illegal, |before| edge(before, after)), Some(after)),
                Op::Delete { .. } => {
                    let did = match before.map(|row| row.status) {
                        Some(Status::Pending) => Did::Removed,
                        Some(Status::Published) => Did::Pruned,
                        Some(Status::Failed) => Did::Discarded,
                        None => Did::Illegal,
                    };
                    (did, None)
                }
                Op::Audit { .. } => (Did::Audited, before),
            };
            row = after;
            Step { change, before, after, did }
        })
    }

    /// Returns its row at the end, if it is still there.
    pub(super) fn last_row(&self) -> Option<&'h Row> {
        self.steps().last().and_then(|step| step.after)
    }

    /// Says whether the audit has an entry about it in the transaction of `change`.
    pub(super) fn is_audited_with(&self, change: &Change) -> bool {
        self.changes.iter().any(|other| other.lsn == change.lsn && matches!(other.op, Op::Audit { .. }))
    }
}

fn edge(before: &Row, after: &Row) -> Did {
    match (before.status, after.status) {
        (Status::Pending, Status::Published) => Did::Published,
        (Status::Pending, Status::Failed) => Did::Failed,
        (Status::Pending, Status::Pending) if before.attempt_count != after.attempt_count => Did::Charged,
        (Status::Pending, Status::Pending) => Did::Deferred,
        (Status::Failed, Status::Pending) => Did::Requeued,
        _ => Did::Illegal,
    }
}

impl Step<'_> {
    /// Says whether it counts an attempt.
    pub(super) fn is_charge(&self) -> bool {
        let attempts = |row: Option<&Row>| row.map(|row| row.attempt_count);
        matches!(self.did, Did::Charged | Did::Failed) && attempts(self.before) != attempts(self.after)
    }

    /// Says whether it is what follows an acknowledgement.
    pub(super) fn is_publication(&self) -> bool {
        matches!(self.did, Did::Published | Did::Removed)
    }
}

impl Claim<'_> {
    fn expect_one_each(&self, got: usize, what: &str) -> Result<(), String> {
        let expected = self.ids.len();
        let complete = expected == got;
        complete.then_some(()).ok_or_else(|| format!("claim {}: expected {expected} {what}, got {got}", self.number))
    }

    /// Says whether its settlement may be what was committed at that time.
    pub(super) fn may_have_committed(&self, at: Nanos, tolerance: Nanos) -> bool {
        let begun = self.settling.is_some_and(|(settling, _)| settling <= at.saturating_add(tolerance));
        // Where no answer came, the commit may have arrived at any time.
        let not_over = match self.end {
            Some((end, End::Settled { .. })) => at <= end.saturating_add(tolerance),
            Some((_, End::Abandoned)) | None => true,
        };
        begun && not_over
    }
}

impl Run<'_> {
    /// Returns when it was certainly no longer there.
    pub(super) fn death(&self) -> Option<Nanos> {
        [self.killed, self.exit.map(|(at, _)| at)].into_iter().flatten().min()
    }

    /// Says whether the database may end this relay's claims through a fault while it still believes in them.
    fn may_lose_claims_by(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Outage(Target::Database) | Fault::SessionsEnded => true,
            Fault::Freeze(Target::Relay(relay)) => relay == self.relay,
            Fault::Cut { server: Target::Database, .. } => self.is_behind(fault),
            _ => false,
        }
    }

    /// Says whether a cut of the network is between this relay and a server.
    pub(super) fn is_behind(&self, fault: &Fault) -> bool {
        let Fault::Cut { relay, .. } = fault else { return false };
        relay.as_ref().is_none_or(|relay| *relay == self.relay.name)
    }
}

impl Sent<'_, '_> {
    /// Says whether the bus may have the event from this.
    pub(super) fn may_be_stored(&self) -> bool {
        use ReceiptKind::{Acked, Duplicate, NoRoute, Rejected, Unavailable, Unknown};
        match self.receipt {
            None => self.claim.sending.is_some(),
            Some(Acked | Duplicate | Unknown) => true,
            // A bus that denies a subject does not say which of the messages under way it means.
            Some(NoRoute) => true,
            Some(Unavailable | Rejected) => false,
        }
    }

    /// Says whether it ended in `outcome` because of such a receipt, and may be what was committed at that time.
    pub(super) fn justifies(&self, outcome: SettleKind, at: Nanos, tolerance: Nanos) -> bool {
        let receipt_fits = match outcome {
            SettleKind::Published => self.receipt.is_some_and(ReceiptKind::is_ack),
            SettleKind::Charged => self.receipt == Some(ReceiptKind::Rejected),
            SettleKind::Deferred | SettleKind::Released => true,
        };
        receipt_fits && self.outcome == Some(outcome) && self.claim.may_have_committed(at, tolerance)
    }
}
