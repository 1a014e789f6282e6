//! The history by event, claim and relay, made once for all rules.

use std::borrow::Cow;
use std::collections::HashMap;
use std::slice;

use uuid::Uuid;

use super::findings::Findings;
use super::lives::{Claim, End, Life, Run, Sent, Step};
use super::rules::Rule;
use crate::history::{
    Configuration, Facts, Fault, FaultRecord, History, Nanos, RelayEvent, RelayRun, SettleKind, Target,
};

/// A commit that does not wait for the disk is there after at most three times `wal_writer_delay` (200 ms); until then a
/// crash of the database takes it back.
const COMMIT_AT_RISK: Nanos = 1_000_000_000;

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
            RelayEvent::Settled { claim: number, published, dead_lettered, unwritten } => {
                let end = End::Settled { published: *published, dead_lettered, unwritten };
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
        // Whoever was told that its rows were somebody else's by then did not mark them.
        let may_have = |sent: &Sent<'_, '_>| {
            sent.justifies(SettleKind::Published, mark.change.at, self.tolerance()) && !sent.is_unwritten(life.id)
        };
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

    /// Says whether a crash of the database may have taken back what was confirmed at that time.
    pub(super) fn may_be_taken_back(&self, settled: Nanos) -> bool {
        let crashes = self.history.faults.iter().filter(|record| record.fault == Fault::Outage(Target::Database));
        let from = settled.saturating_sub(self.tolerance());
        crashes.into_iter().any(|crash| crash.meets(from, settled.saturating_add(COMMIT_AT_RISK)))
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
