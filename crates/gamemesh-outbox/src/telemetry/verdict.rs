//! Whether the relay can do its work: one verdict on each of its two sides, and every surface says this one.
//!
//! The work itself tells: a claim, a publish or a settlement that was due and how it ended. While nothing is due,
//! [`Watch`](crate::relay::Watch) asks. What failed stays failed until it works again, or until it is no longer due and
//! the side, asked, has nothing to complain of.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// One of the two that a relay works between.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The database with the outbox.
    Store,
    /// The message bus.
    Bus,
}

/// What a side is needed for. Of several that fail the first one is told: it says most.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Step {
    /// Outcomes are written.
    Settle,
    /// Events are claimed.
    Claim,
    /// Events are published.
    Publish,
    /// Nothing, but it was asked whether it could do its part.
    Check,
}

/// Until then nothing that is due is no sign that what failed is not: other replicas may hold it for a moment.
const DUE_FOR: Duration = Duration::from_secs(5);

/// What failed and was not tried again for so long is no longer due, or is tried seldom: then an answer is the best that is known.
const TRIED_WITHIN: Duration = Duration::from_secs(7);

/// A settlement that takes longer than this, while none ended well, is told as one that fails: there may be nobody to end it.
const UNDER_WAY_MAX: Duration = Duration::from_secs(5);

/// An acknowledgement is worth more than a check without an answer so soon after it: the check may have waited behind what is
/// sent.
const PROVEN_FOR: Duration = Duration::from_secs(5);
/// A check that fails sooner has had an answer.
const SLOW_CHECK: Duration = Duration::from_secs(1);

/// What is known of both sides.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The database.
    pub store: Standing,
    /// The bus.
    pub bus: Standing,
}

/// What is known of one side.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    failing: BTreeMap<Step, (Instant, String)>,
    succeeded: BTreeMap<Step, Instant>,
    acknowledged: Option<Timestamp>,
    /// What is being tried, each with when that began.
    under_way: Vec<(Step, Instant)>,
    since: Option<Timestamp>,
    heard: bool,
    checked: Option<Instant>,
}

/// Why a side cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// When it began, by the clock of this machine: for people to read.
    pub since: Timestamp,
    /// What failed, and what the server said, in one line without secrets.
    pub reason: String,
    /// What to do about it.
    pub advice: &'static str,
}

impl Verdict {
    /// Says whether both sides are known to work.
    pub fn is_ready(&self) -> bool {
        self.store.is_up() && self.bus.is_up()
    }

    /// Returns what is known of one side.
    pub fn of(&self, side: Side) -> &Standing {
        match side {
            Side::Store => &self.store,
            Side::Bus => &self.bus,
        }
    }

    pub(super) fn of_mut(&mut self, side: Side) -> &mut Standing {
        match side {
            Side::Store => &mut self.store,
            Side::Bus => &mut self.bus,
        }
    }

    /// Nothing is due: what was due before went out in another way, or was given up.
    pub(super) fn nothing_due(&mut self) {
        let now = Instant::now();
        let stale = |failed: Option<&(Instant, String)>| failed.is_some_and(|(at, _)| now - *at >= DUE_FOR);
        if stale(self.store.failing.get(&Step::Settle)) {
            self.store.leave_to_check(Step::Settle);
        }
        if stale(self.bus.failing.get(&Step::Publish)) {
            self.bus.leave_to_check(Step::Publish);
        }
    }
}

impl Standing {
    /// Says whether it is known to work.
    pub fn is_up(&self) -> bool {
        self.heard && self.failing.is_empty()
    }

    /// Says whether it is known not to work.
    pub fn is_down(&self) -> bool {
        !self.failing.is_empty()
    }

    /// Says whether the same is known of both, but for why.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.heard, self.is_down()) == (other.heard, other.is_down())
    }

    /// Says why it cannot be used; `None` while it can be, or nothing is known.
    pub fn failure(&self) -> Option<Failure> {
        let (step, (_, reason)) = self.failing.first_key_value()?;
        Some(Failure { since: self.since?, reason: reason.clone(), advice: step.advice() })
    }

    /// Returns when it last took an event, by the clock of this machine.
    pub(super) fn acknowledged(&self) -> Option<Timestamp> {
        self.acknowledged
    }

    /// Returns how long ago it last answered, or failed to answer, the question whether it can do its part.
    pub fn checked_ago(&self) -> Option<Duration> {
        self.checked.map(|checked| checked.elapsed())
    }

    pub(super) fn note(&mut self, step: Step, ended: Result<(), String>) {
        self.heard = true;
        if step == Step::Check {
            self.checked = Some(Instant::now());
        }
        match ended {
            Ok(()) => {
                self.failing.remove(&step);
                self.succeeded.insert(step, Instant::now());
                if step == Step::Publish {
                    self.acknowledged = Some(Timestamp::now());
                }
                if step == Step::Check {
                    let Self { failing, under_way, .. } = self;
                    failing.retain(|step, (failed, _)| {
                        failed.elapsed() < TRIED_WITHIN || under_way.iter().any(|(tried, _)| tried == step)
                    });
                }
            }
            Err(reason) => drop(self.failing.insert(step, (Instant::now(), reason))),
        }
        self.note_what_takes_long();
        self.keep_since();
    }

    /// Notes what a check came to that took so long.
    pub(super) fn checked(&mut self, answer: Result<(), String>, took: Duration) {
        if answer.is_err() && took >= SLOW_CHECK && self.is_proven() {
            self.checked = Some(Instant::now());
        } else {
            self.note(Step::Check, answer);
        }
    }

    /// Notes that something is tried from now on, and returns when that began, for [`ended`](Self::ended).
    pub(super) fn begins(&mut self, step: Step) -> Instant {
        let began = Instant::now();
        self.under_way.push((step, began));
        began
    }

    /// Notes that what began then is not tried any more.
    pub(super) fn ended(&mut self, step: Step, began: Instant) {
        if let Some(place) = self.under_way.iter().position(|tried| *tried == (step, began)) {
            self.under_way.swap_remove(place);
        }
    }

    /// Notes that what began then failed. What began later and ended well is the newer word.
    pub(super) fn failed_since(&mut self, step: Step, began: Instant, reason: String) {
        if self.succeeded.get(&step).is_none_or(|succeeded| *succeeded <= began) {
            self.note(step, Err(reason));
        }
    }

    fn is_proven(&self) -> bool {
        self.succeeded.get(&Step::Publish).is_some_and(|acknowledged| acknowledged.elapsed() < PROVEN_FOR)
    }

    /// A settlement that does not end, as no other one does, fails as far as anybody can tell.
    fn note_what_takes_long(&mut self) {
        let settled = self.succeeded.get(&Step::Settle).copied();
        let oldest = self.under_way.iter().filter(|(step, _)| *step == Step::Settle).map(|(_, began)| *began).min();
        if let Some(began) =
            oldest.filter(|began| settled.max(Some(*began)).is_some_and(|at| at.elapsed() > UNDER_WAY_MAX))
        {
            let seconds = began.elapsed().as_secs();
            let reason = format!(
                "outcomes are being written for {seconds} s: a trigger is slow, a lock or a standby is waited for, or the \
                 connection is dead"
            );
            self.failing.insert(Step::Settle, (Instant::now(), reason));
        }
    }

    /// Adds what is known from elsewhere, with the time since when.
    pub(super) fn also(&mut self, step: Step, since: Timestamp, reason: String) {
        self.failing.insert(step, (Instant::now(), reason));
        self.since = Some(self.since.map_or(since, |known| known.min(since)));
    }

    /// The next check tells whether what failed would work now.
    fn leave_to_check(&mut self, step: Step) {
        if let Some(failed) = self.failing.remove(&step) {
            self.failing.entry(Step::Check).or_insert(failed);
        }
    }

    fn keep_since(&mut self) {
        if self.failing.is_empty() {
            self.since = None;
        } else {
            self.since.get_or_insert_with(Timestamp::now);
        }
    }
}

impl Step {
    fn advice(self) -> &'static str {
        match self {
            Self::Settle => {
                "nothing is published until outcomes can be written: remove what the database names; `outbox-relay doctor` \
                 looks for more"
            }
            Self::Claim => "`outbox-relay doctor` names what the database lacks, and the fix",
            Self::Publish | Self::Check => {
                "`outbox-relay doctor` examines it; events wait in the table, and none is lost"
            }
        }
    }
}

impl Side {
    /// Returns its name in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Bus => "bus",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str) -> Result<(), String> {
        Err(reason.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_is_up_when_it_was_heard_of_and_nothing_fails() {
        let mut side = Standing::default();
        assert!(!side.is_up() && !side.is_down(), "nobody knows");
        side.note(Step::Check, Ok(()));
        assert!(side.is_up());
        side.note(Step::Claim, failed("permission denied"));
        side.note(Step::Check, Ok(()));
        assert!(side.is_down(), "an answer is no claim");
        let failure = side.failure().unwrap();
        assert_eq!(failure.reason, "permission denied");
        side.note(Step::Settle, failed("no replica identity"));
        assert_eq!(side.failure().unwrap().reason, "no replica identity");
        assert_eq!(side.failure().unwrap().since, failure.since, "it began with the first");
        side.note(Step::Settle, Ok(()));
        side.note(Step::Claim, Ok(()));
        assert!(side.is_up() && side.failure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_tried_again_and_again_and_fails_is_worth_more_than_an_answer() {
        let mut bus = Standing::default();
        for _ in 0..5 {
            bus.note(Step::Publish, failed("full"));
            tokio::time::advance(TRIED_WITHIN / 2).await;
            bus.note(Step::Check, Ok(()));
            assert!(bus.is_down());
        }
        tokio::time::advance(TRIED_WITHIN / 2).await;
        bus.note(Step::Check, Ok(()));
        assert!(bus.is_up(), "it is not tried any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_and_is_under_way_again_is_not_cleared_by_an_answer() {
        let mut store = Standing::default();
        store.note(Step::Settle, failed("statement timeout"));
        let began = store.begins(Step::Settle);
        tokio::time::advance(2 * TRIED_WITHIN).await;
        store.note(Step::Check, Ok(()));
        assert!(store.is_down());
        store.ended(Step::Settle, began);
        tokio::time::advance(TRIED_WITHIN).await;
        store.note(Step::Check, Ok(()));
        assert!(store.is_up(), "nobody tries any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_settlement_that_does_not_end_is_told_while_no_other_does() {
        let mut store = Standing::default();
        store.note(Step::Settle, Ok(()));
        let began = store.begins(Step::Settle);
        tokio::time::advance(UNDER_WAY_MAX + Duration::from_secs(1)).await;
        store.note(Step::Settle, Ok(()));
        store.note(Step::Check, Ok(()));
        assert!(store.is_up(), "another one ended since");
        tokio::time::advance(UNDER_WAY_MAX + Duration::from_secs(1)).await;
        store.note(Step::Check, Ok(()));
        assert!(store.is_down(), "and that was long ago");
        store.ended(Step::Settle, began);
        store.note(Step::Settle, Ok(()));
        let began = store.begins(Step::Settle);
        tokio::time::advance(UNDER_WAY_MAX + Duration::from_secs(1)).await;
        store.note(Step::Check, Ok(()));
        assert!(store.failure().unwrap().reason.contains("are being written for 6 s"), "{store:?}");
        store.ended(Step::Settle, began);
        store.note(Step::Settle, Ok(()));
        assert!(store.is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn a_settlement_that_was_lost_says_nothing_after_another_one_that_ended_well() {
        let mut store = Standing::default();
        store.note(Step::Settle, Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        let on_a_dead_connection = store.begins(Step::Settle);
        tokio::time::advance(Duration::from_secs(9)).await;
        store.note(Step::Settle, Ok(()));
        store.failed_since(Step::Settle, on_a_dead_connection, "connection closed".to_owned());
        assert!(store.is_up(), "{store:?}");
        let the_next = store.begins(Step::Settle);
        store.failed_since(Step::Settle, the_next, "connection closed".to_owned());
        assert!(store.is_down());
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_is_worth_more_than_a_check_that_came_too_late() {
        let mut bus = Standing::default();
        bus.note(Step::Publish, Ok(()));
        bus.checked(failed("no answer in time"), SLOW_CHECK);
        assert!(bus.is_up() && bus.checked_ago().is_some());
        bus.checked(failed("stream PLAYER is gone"), SLOW_CHECK / 2);
        assert!(bus.is_down(), "that is an answer, whatever other streams acknowledge");
        bus.checked(Ok(()), SLOW_CHECK);
        assert!(bus.is_up());
        tokio::time::advance(PROVEN_FOR).await;
        bus.checked(failed("no answer in time"), SLOW_CHECK);
        assert!(bus.is_down());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_longer_due_is_left_to_a_check() {
        let mut verdict = Verdict::default();
        verdict.bus.note(Step::Publish, failed("full"));
        verdict.bus.note(Step::Check, Ok(()));
        verdict.nothing_due();
        verdict.bus.note(Step::Check, Ok(()));
        assert!(verdict.bus.is_down(), "another replica may hold what is due");
        tokio::time::advance(DUE_FOR).await;
        verdict.nothing_due();
        assert_eq!(verdict.bus.failure().unwrap().reason, "full", "until it was asked");
        verdict.bus.note(Step::Check, Ok(()));
        assert!(verdict.bus.is_up());
    }
}
