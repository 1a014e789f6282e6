use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{BusError, Receipt};
use crate::event::Event;

/// What decides how long the answers to one batch are waited for.
#[derive(Clone)]
pub struct Terms {
    /// The longest silence: before the first answer, and between two. What is still to be sent and answered has the time
    /// on top that its bytes take.
    pub silence: Duration,
    /// Payload bytes a second that the way to the bus is trusted to carry.
    pub pace: u64,
    /// Bytes of others that are on their way already.
    pub ahead: u64,
    /// When waiting ends, whatever is heard.
    pub ends_in: Duration,
    /// How long a route from which nothing is heard is waited for while others are answered.
    pub laggard: Duration,
    /// Says whether other batches were answered since then.
    pub others_answered: Option<Arc<dyn Fn(Instant) -> bool + Send + Sync>>,
    /// Is told how long each answer took.
    pub told: Option<Arc<dyn Fn(Duration) + Send + Sync>>,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("silence", &self.silence).field("ends_in", &self.ends_in).finish_non_exhaustive()
    }
}

impl Terms {
    /// Waits for `silence` and makes no difference between events.
    pub fn of(silence: Duration) -> Self {
        let ends_in = Duration::from_secs(3600);
        Self { silence, pace: u64::MAX, ahead: 0, ends_in, laggard: silence, others_answered: None, told: None }
    }
}

/// How long an adapter goes on waiting for the answers to one batch: as long as they come in, and as the bytes that are on
/// their way may need. An adapter tells it of each answer.
#[derive(Debug)]
pub struct Patience {
    terms: Terms,
    heard: Mutex<Heard>,
    changed: Notify,
}

#[derive(Debug)]
struct Heard {
    began: Instant,
    /// The route of each event, as a place in `routes`, and its bytes.
    events: Vec<(usize, u64)>,
    routes: Vec<Waiting>,
    bytes_left: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    ends: Instant,
    /// Whether somebody is in a hurry.
    hurried: bool,
}

/// What is waited for of one route.
#[derive(Debug)]
struct Waiting {
    unanswered: u32,
    acknowledged: bool,
}

impl Patience {
    /// Begins to wait for the answers to `events`.
    pub fn new(events: &[Event], terms: Terms) -> Self {
        let began = Instant::now();
        let mut names: Vec<&Event> = Vec::new();
        let mut routes: Vec<Waiting> = Vec::new();
        let mut route_of = |event| {
            let known = names.iter().rposition(|name| name.has_route_of(event));
            let place = known.unwrap_or_else(|| {
                names.push(event);
                routes.push(Waiting { unanswered: 0, acknowledged: false });
                routes.len() - 1
            });
            routes[place].unanswered += 1;
            (place, event.payload.len() as u64)
        };
        let events: Vec<_> = events.iter().map(&mut route_of).collect();
        let bytes_left = events.iter().map(|(_, bytes)| bytes).sum();
        let ends = began + terms.ends_in;
        let heard = Heard { began, events, routes, bytes_left, first: None, last: None, ends, hurried: false };
        Self { terms, heard: Mutex::new(heard), changed: Notify::new() }
    }

    /// Begins now: what came before, a connection that had to be made, has a time limit of its own.
    pub fn sending(&self) {
        let now = Instant::now();
        let mut heard = self.lock();
        let passed = now - heard.began;
        heard.began = now;
        if !heard.hurried {
            heard.ends += passed;
        }
        drop(heard);
        self.changed.notify_waiters();
    }

    /// Notes the answer to the event at `place` of the batch.
    pub fn answered(&self, place: usize, acknowledged: bool) {
        let now = Instant::now();
        let mut heard = self.lock();
        let Some(&(route, bytes)) = heard.events.get(place) else { return };
        heard.bytes_left = heard.bytes_left.saturating_sub(bytes);
        let waiting = &mut heard.routes[route];
        waiting.unanswered = waiting.unanswered.saturating_sub(1);
        // Only these can make the end come sooner.
        let sooner = waiting.unanswered == 0 || acknowledged && !waiting.acknowledged;
        waiting.acknowledged |= acknowledged;
        heard.first.get_or_insert(now);
        heard.last = Some(now);
        let took = now - heard.began;
        drop(heard);
        if let Some(told) = &self.terms.told {
            told(took);
        }
        if sooner {
            self.changed.notify_waiters();
        }
    }

    /// Waits at most so long from now.
    pub fn end_in(&self, rest: Duration) {
        let mut heard = self.lock();
        heard.ends = heard.ends.min(Instant::now() + rest);
        heard.hurried = true;
        drop(heard);
        self.changed.notify_waiters();
    }

    /// Completes when nobody should wait any longer: too long nothing was heard, or others were answered and some routes
    /// were not.
    pub async fn over(&self) {
        self.wait(true).await;
    }

    /// Completes when too long nothing was heard of any event: for a bus that answers in order, or all at once.
    pub async fn silent(&self) {
        self.wait(false).await;
    }

    /// Returns how long it was waited for, in words for an error.
    pub fn waited(&self) -> String {
        format!("{} s", (self.lock().began.elapsed().as_secs_f64() * 10.0).round() / 10.0)
    }

    /// Returns how long the first and the last answer took, if any came.
    pub fn answers(&self) -> Option<(Duration, Duration)> {
        let heard = self.lock();
        heard.first.zip(heard.last).map(|(first, last)| (first - heard.began, last - heard.began))
    }

    /// Returns when waiting ends, whatever is heard.
    pub fn ends(&self) -> Instant {
        self.lock().ends
    }

    /// Awaits the receipt of each event, in any order; those that do not come in time are `unanswered`.
    pub async fn gather(
        &self,
        publishes: impl Iterator<Item = impl Future<Output = Receipt>>,
        unanswered: impl Fn() -> BusError,
    ) -> Vec<Receipt> {
        let mut waiting: FuturesUnordered<_> =
            publishes.enumerate().map(|(place, receipt)| async move { (place, receipt.await) }).collect();
        let mut receipts: Vec<Option<Receipt>> = (0..waiting.len()).map(|_| None).collect();
        let mut over = std::pin::pin!(self.over());
        loop {
            tokio::select! {
                biased;
                next = waiting.next() => {
                    let Some((place, receipt)) = next else { break };
                    self.answered(place, receipt.is_ok());
                    receipts[place] = Some(receipt);
                }
                () = &mut over => break,
            }
        }
        receipts.into_iter().map(|receipt| receipt.unwrap_or_else(|| Err(unanswered()))).collect()
    }

    async fn wait(&self, mind_others: bool) {
        loop {
            let changed = self.changed.notified();
            let (now, until) = (Instant::now(), self.until(mind_others));
            if until <= now {
                return;
            }
            // Whether others are answered is nothing that is told: it is looked at.
            let look =
                if mind_others && self.terms.others_answered.is_some() { self.terms.laggard } else { Duration::MAX };
            let wake = now.checked_add(look).map_or(until, |look| look.min(until));
            tokio::select! { biased; () = changed => {}, () = sleep_until(wake) => {} }
        }
    }

    fn until(&self, mind_others: bool) -> Instant {
        let heard = self.lock();
        let bytes = heard.bytes_left.saturating_add(self.terms.ahead);
        let for_bytes = Duration::from_secs_f64(bytes as f64 / self.terms.pace.max(1) as f64);
        let since = heard.last.unwrap_or(heard.began);
        let mut until = since + self.terms.silence + for_bytes;
        if mind_others && heard.only_strangers_left() && (heard.last.is_some() || self.others_answered(heard.began)) {
            until = until.min(since + self.terms.laggard + for_bytes);
        }
        until.min(heard.ends)
    }

    fn others_answered(&self, since: Instant) -> bool {
        self.terms.others_answered.as_ref().is_some_and(|answered| answered(since))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no code panics while it holds the lock")
    }
}

impl Heard {
    /// Says whether no route that is still waited for has acknowledged anything.
    fn only_strangers_left(&self) -> bool {
        self.routes.iter().all(|route| route.unanswered == 0 || !route.acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::Carrier;

    const SECOND: Duration = Duration::from_secs(1);

    fn event(topic: &str, bytes: usize) -> Event {
        Event {
            id: uuid::Uuid::nil(),
            topic: topic.into(),
            event_type: String::new(),
            payload: "x".repeat(bytes).into(),
            carrier: Carrier::default(),
            headers: [].into(),
            key: None,
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            attempt_count: 0,
            defect: None,
        }
    }

    fn terms() -> Terms {
        Terms { pace: 1_000, laggard: SECOND / 4, ..Terms::of(5 * SECOND) }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_every_answer_begins_it_anew() {
        let patience = Patience::new(&[event("a", 0), event("a", 0)], terms());
        tokio::time::advance(4 * SECOND).await;
        patience.answered(0, true);
        let heard = Instant::now();
        patience.over().await;
        assert_eq!(heard.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_takes_to_connect_is_not_waited_for_of_the_bus() {
        let patience = Patience::new(&[event("a", 0)], Terms { ends_in: 6 * SECOND, ..terms() });
        tokio::time::advance(4 * SECOND).await;
        patience.sending();
        let sent = Instant::now();
        patience.over().await;
        assert_eq!(sent.elapsed().as_secs(), 5);
        patience.end_in(SECOND);
        patience.sending();
        assert_eq!(patience.ends() - Instant::now(), SECOND, "who is in a hurry waits no longer for that");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_on_their_way_have_their_time() {
        let began = Instant::now();
        let ahead = Terms { ahead: 3_000, ..terms() };
        Patience::new(&[event("a", 10_000)], ahead).over().await;
        assert_eq!(began.elapsed().as_secs(), 5 + 10 + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_stays_silent_while_others_answer_is_not_waited_for() {
        let began = Instant::now();
        let patience = Patience::new(&[event("a", 0), event("b", 0)], terms());
        patience.answered(0, true);
        patience.over().await;
        assert_eq!(began.elapsed().as_millis(), 250);
        patience.silent().await;
        assert_eq!(began.elapsed().as_secs(), 5, "where answers come in order it says nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_whose_neighbours_of_the_same_route_were_answered_is_waited_for() {
        let began = Instant::now();
        let patience = Patience::new(&[event("a", 0), event("a", 0), event("b", 0)], terms());
        patience.answered(0, true);
        patience.over().await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn other_batches_that_are_answered_meanwhile_count_as_well() {
        for (answered, waited) in [(true, 250), (false, 5_000)] {
            let began = Instant::now();
            let others_answered = Some(Arc::new(move |_| answered) as _);
            Patience::new(&[event("a", 0)], Terms { others_answered, ..terms() }).over().await;
            assert_eq!(began.elapsed().as_millis(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_whatever_is_heard() {
        let began = Instant::now();
        let patience = Patience::new(&[event("a", 0)], Terms { ends_in: 3 * SECOND, ..terms() });
        patience.over().await;
        assert_eq!(began.elapsed().as_secs(), 3);
        let patience = Patience::new(&[event("a", 0)], terms());
        patience.end_in(SECOND);
        patience.over().await;
        assert_eq!(began.elapsed().as_secs(), 4);
    }
}
