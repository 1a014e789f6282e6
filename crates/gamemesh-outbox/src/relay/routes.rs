//! Routes in trouble: left alone by everybody but those whose business is to try them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use crate::event::Event;
use crate::store::Route;

/// The most routes that claims leave out. They carry them as parameters, so they are bounded; past this it is the events
/// that wait, one by one, for as long as their route would.
pub(super) const LEFT_OUT_MAX: usize = 256;
/// The most routes that are known to be in trouble.
const KNOWN_MAX: usize = 4096;
/// The longest rest of a route whose tries cost time.
const REST_MAX: Duration = Duration::from_secs(60);
/// The longest wait for an answer that is late.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// So many silent tries in a row make one worth a longer wait.
const SILENT_BEFORE_PATIENCE: u32 = 2;
/// So many routes in trouble cost little.
const FEW: u32 = 32;
/// How many times in a row a route is paused before that is told once more.
const TOLD_FROM: u32 = 8;
/// How often a route may be absent from what is due before it is believed that nothing of it is there.
const ABSENT_MAX: u32 = 2;
/// The same of a route that answers slowly: to find that out once more costs more than to look.
const ABSENT_SLOW_MAX: u32 = 100;

/// Who tries routes in trouble again. Each of the two goes its own way, so that a long wait is nobody else's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lane {
    /// Waits for an answer as long as anybody does.
    Plain,
    /// Waits longer and longer for the answer to one event of a route that says nothing; and carries the events of routes
    /// that did answer then.
    Patient,
}

/// How an event fared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// Whether there was no answer, rather than a bad one.
    pub(super) silent: bool,
    /// Whether nobody else was acknowledged either.
    pub(super) outage: bool,
    /// How long the try took.
    pub(super) took: Duration,
    /// Who tried.
    pub(super) lane: Option<Lane>,
}

/// What was done about a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Paused {
    /// Left out of claims from now on.
    Newly {
        /// For so long.
        rest: Duration,
        /// Whether that is worth a line of the log once more: each such line is twice as far from the one before.
        tell: bool,
    },
    /// Left out of claims already.
    Already,
    /// As many are left out as can be: the event has to wait so long by itself. Were it given back, it would stand at the
    /// head of the queue again, and with enough such events nobody behind them would ever be claimed.
    NoRoom(Duration),
}

/// How a route that was tried took an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Took {
    /// As any other route.
    InTime,
    /// Later than anybody else waits for an answer.
    Slowly,
}

/// Routes in trouble. Their events stay in the table untouched while the rest goes on; each route is tried again after a
/// while, with one event.
#[derive(Debug)]
pub(super) struct PausedRoutes {
    backoff: Backoff,
    /// How long an answer may take.
    timeout: Duration,
    /// After how long a route is given up: what it does not take is the event's fault then.
    given_up_after: Option<Duration>,
    /// In an order that does not depend on how a map hashes.
    paused: Mutex<BTreeMap<Route, Pause>>,
    changed: Notify,
    works_again: Notify,
}

#[derive(Debug)]
struct Pause {
    since: Instant,
    /// Since when it has been in trouble while others were not, and how long it was before.
    alone_since: Option<Instant>,
    alone_before: Duration,
    /// When it may be tried again.
    until: Instant,
    /// How often it was paused in a row.
    times: u32,
    /// Whether claims leave it out.
    left_out: bool,
    /// How many tries in a row were not answered.
    silent: u32,
    /// When it may be tried again with more patience, and how much that is.
    patient: (Instant, Duration),
    /// How long its last answer took, if that is longer than others may take.
    slow: Option<Duration>,
    /// How often nothing of it was there in a row.
    absent: u32,
}

impl Pause {
    /// Takes in whether it shares its trouble with all others. An outage is nobody's fault, and its time counts for nothing.
    fn note_outage(&mut self, now: Instant, outage: bool) {
        match self.alone_since.take() {
            Some(since) if outage => self.alone_before += now - since,
            since if !outage => self.alone_since = since.or(Some(now)),
            _ => {}
        }
    }

    /// Returns how long it has been in trouble while others were not.
    fn alone(&self) -> Duration {
        self.alone_before + self.alone_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn is_due(&self, lane: Lane, now: Instant) -> bool {
        self.due_at(lane).is_some_and(|at| at <= now)
    }

    /// Returns when it is the business of `lane`, if ever.
    fn due_at(&self, lane: Lane) -> Option<Instant> {
        match lane {
            Lane::Plain => self.slow.is_none().then_some(self.until),
            Lane::Patient if self.slow.is_some() => Some(self.until),
            Lane::Patient => (self.silent >= SILENT_BEFORE_PATIENCE).then_some(self.patient.0),
        }
    }
}

impl PausedRoutes {
    pub(super) fn new(backoff: Backoff, timeout: Duration, given_up_after: Option<Duration>) -> Self {
        let (changed, works_again) = (Notify::new(), Notify::new());
        Self { backoff, timeout, given_up_after, paused: Mutex::default(), changed, works_again }
    }

    /// Says whether the route of `event` has taken nothing for so long, while others did, that nobody waits for it any more.
    pub(super) fn given_up(&self, event: &Event) -> bool {
        let Some(after) = self.given_up_after else { return false };
        self.lock().get(&Route::of(event)).is_some_and(|pause| pause.alone() >= after)
    }

    /// Lists the routes that claims leave out.
    pub(super) fn left_out(&self) -> Vec<Route> {
        let paused = self.lock();
        paused.iter().filter(|(_, pause)| pause.left_out).map(|(route, _)| route.clone()).collect()
    }

    /// Waits until some route works again, from this call on: a claim that leaves it out may be waiting for others.
    pub(super) fn works_again(&self) -> impl Future<Output = ()> {
        self.works_again.notified()
    }

    /// Waits until `lane` has something to try.
    pub(super) async fn due(&self, lane: Lane) {
        loop {
            let changed = self.changed.notified();
            let next = self.lock().values().filter(|pause| pause.left_out).filter_map(|pause| pause.due_at(lane)).min();
            match next {
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::select! { biased; () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// Lists the routes that `lane` tries now, and those that it leaves out.
    pub(super) fn try_now(&self, lane: Lane) -> (Vec<Route>, Vec<Route>) {
        let now = Instant::now();
        let paused = self.lock();
        let left_out = paused.iter().filter(|(_, pause)| pause.left_out);
        let (due, others): (Vec<_>, Vec<_>) = left_out.partition(|(_, pause)| pause.is_due(lane, now));
        let routes = |pauses: Vec<(&Route, &Pause)>| pauses.into_iter().map(|(route, _)| route.clone()).collect();
        (routes(due), routes(others))
    }

    /// Returns how long the answer of one of `routes` is waited for by the patient lane, and whether they are known to
    /// answer in the end.
    pub(super) fn patience(&self, routes: &[Route]) -> (Duration, bool) {
        let paused = self.lock();
        let pauses = routes.iter().filter_map(|route| paused.get(route));
        let (waits, slow): (Vec<Duration>, Vec<bool>) =
            pauses.map(|pause| (pause.slow.map_or(pause.patient.1, |answer| 2 * answer), pause.slow.is_some())).unzip();
        let wait = waits.into_iter().max().unwrap_or(self.timeout);
        (
            wait.clamp(self.timeout, PATIENCE_MAX.max(self.timeout)),
            !slow.is_empty() && slow.into_iter().all(|slow| slow),
        )
    }

    /// Says whether the route of `event` is in trouble.
    pub(super) fn knows(&self, event: &Event) -> bool {
        let paused = self.lock();
        !paused.is_empty() && paused.contains_key(&Route::of(event))
    }

    /// Returns how long an event has to wait whose route rests, and is not left out for want of room.
    pub(super) fn waits(&self, event: &Event) -> Option<Duration> {
        let paused = self.lock();
        if paused.len() <= LEFT_OUT_MAX {
            return None;
        }
        let pause = paused.get(&Route::of(event)).filter(|pause| !pause.left_out)?;
        Some(pause.until.saturating_duration_since(Instant::now())).filter(|rest| !rest.is_zero())
    }

    /// Leaves `route` alone for longer than last time, if there is room.
    pub(super) fn pause(&self, route: Route, failed: Failed) -> Paused {
        let now = Instant::now();
        let mut paused = self.lock();
        if !paused.contains_key(&route) && paused.len() >= KNOWN_MAX {
            // Those whose rest is over have no need of their place.
            paused.retain(|_, pause| pause.until > now || pause.left_out);
            if paused.len() >= KNOWN_MAX {
                return Paused::NoRoom(REST_MAX);
            }
        }
        let count = paused.values().filter(|pause| pause.left_out).count();
        let left_out = count < LEFT_OUT_MAX;
        let pause = paused.entry(route).or_insert(Pause {
            since: now,
            alone_since: None,
            alone_before: Duration::ZERO,
            until: now,
            times: 0,
            left_out,
            silent: 0,
            patient: (now, 3 * self.timeout),
            slow: None,
            absent: 0,
        });
        pause.left_out |= left_out;
        pause.note_outage(now, failed.outage);
        // The tries of many must not take more than those of a few.
        let backoff = self.backoff.after(pause.times) * (1 + count as u32 / FEW);
        let rested = pause.rest(now, failed, backoff);
        let answer = match (rested, pause.left_out) {
            (Some(rest), true) => {
                Paused::Newly { rest, tell: pause.times >= TOLD_FROM && pause.times.is_power_of_two() }
            }
            (None, true) => Paused::Already,
            (_, false) => Paused::NoRoom(pause.until.saturating_duration_since(now)),
        };
        drop(paused);
        self.changed.notify_waiters();
        answer
    }

    /// Takes in that the route of `event` took it, and the first answer came after `answer`.
    pub(super) fn took(&self, event: &Event, answer: Duration) -> Took {
        let mut paused = self.lock();
        if paused.is_empty() {
            return Took::InTime;
        }
        let route = Route::of(event);
        let Some(pause) = paused.get_mut(&route).filter(|_| answer > self.timeout) else {
            if paused.remove(&route).is_some() {
                self.works_again.notify_waiters();
            }
            return Took::InTime;
        };
        // It works, too slowly to be waited for by everybody.
        let now = Instant::now();
        *pause = Pause { until: now, times: 0, silent: 0, slow: Some(answer), absent: 0, ..*pause };
        drop(paused);
        self.changed.notify_waiters();
        Took::Slowly
    }

    /// Everything may be tried again at once: the outage that it was paused for is over.
    pub(super) fn retry_now(&self) {
        let now = Instant::now();
        self.lock().values_mut().for_each(|pause| pause.until = now);
        self.changed.notify_waiters();
    }

    /// Lists the routes whose trouble began not longer ago than `ago`.
    pub(super) fn new_since(&self, ago: Duration) -> Vec<Route> {
        let paused = self.lock();
        paused.iter().filter(|(_, pause)| pause.since.elapsed() <= ago).map(|(route, _)| route.clone()).collect()
    }

    /// Notes that of `routes` nothing was there to try, and returns those whose trouble is over by that.
    pub(super) fn absent(&self, routes: Vec<Route>) -> Vec<Route> {
        let now = Instant::now();
        let mut paused = self.lock();
        let gone = |route: &Route| {
            let Some(pause) = paused.get_mut(route) else { return false };
            pause.absent += 1;
            pause.until = now + self.backoff.after(pause.absent);
            pause.patient.0 = pause.until;
            if pause.absent < pause.slow.map_or(ABSENT_MAX, |_| ABSENT_SLOW_MAX) {
                return false;
            }
            paused.remove(route);
            true
        };
        routes.into_iter().filter(gone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Route, Pause>> {
        self.paused.lock().expect("no code panics while it holds the lock")
    }
}

impl Pause {
    /// Rests after a failure, and returns for how long; `None` if another worker reported the same trouble before.
    fn rest(&mut self, now: Instant, failed: Failed, backoff: Duration) -> Option<Duration> {
        self.absent = 0;
        self.slow = None;
        if failed.lane == Some(Lane::Patient) {
            let patience = (2 * self.patient.1).min(PATIENCE_MAX);
            self.patient = (now + failed.took / 4, patience);
            return None;
        }
        if self.until > now {
            return None;
        }
        self.silent = if failed.silent { self.silent.saturating_add(1) } else { 0 };
        // A route whose tries cost time gets a tenth of it, unless it shares its trouble with all.
        let dear = if failed.outage { Duration::ZERO } else { failed.took * 3u32.pow(self.times.min(2)) };
        let rest = if self.times == 0 { backoff } else { backoff.max(dear.min(REST_MAX)) };
        self.until = now + rest;
        self.times = self.times.saturating_add(1);
        Some(rest)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::carrier::Carrier;

    const SECOND: Duration = Duration::from_secs(1);
    const QUICK: Failed = Failed { silent: false, outage: false, took: Duration::ZERO, lane: None };
    const SILENT: Failed =
        Failed { silent: true, outage: false, took: Duration::from_secs(5), lane: Some(Lane::Plain) };

    pub(in crate::relay) fn route(number: usize) -> Route {
        Route::of(&event(number))
    }

    pub(in crate::relay) fn event(number: usize) -> Event {
        Event {
            id: uuid::Uuid::from_u128(number as u128),
            topic: format!("events.{number}"),
            event_type: String::new(),
            payload: "{}".into(),
            carrier: Carrier::default(),
            headers: [].into(),
            key: None,
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            attempt_count: 0,
            defect: None,
        }
    }

    fn routes() -> PausedRoutes {
        PausedRoutes::new(Backoff { initial: SECOND, max: 4 * SECOND }, 5 * SECOND, Some(10 * SECOND))
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_is_given_up_after_it_alone_took_nothing_for_so_long() {
        let routes = routes();
        assert!(!routes.given_up(&event(1)), "nothing is wrong with it");
        routes.pause(route(1), QUICK);
        tokio::time::advance(6 * SECOND).await;
        assert!(!routes.given_up(&event(1)));
        routes.pause(route(1), Failed { outage: true, ..QUICK });
        tokio::time::advance(100 * SECOND).await;
        assert!(!routes.given_up(&event(1)), "an outage of all is not its own trouble");
        routes.pause(route(1), QUICK);
        tokio::time::advance(3 * SECOND).await;
        assert!(!routes.given_up(&event(1)));
        tokio::time::advance(SECOND).await;
        assert!(routes.given_up(&event(1)) && !routes.given_up(&event(2)));
        routes.took(&event(1), SECOND);
        routes.pause(route(1), QUICK);
        assert!(!routes.given_up(&event(1)), "it worked in between");
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_route_is_tried_again_after_its_wait_and_forgotten_when_it_works() {
        let routes = routes();
        let Paused::Newly { rest: delay, .. } = routes.pause(route(1), QUICK) else { panic!("newly paused") };
        assert_eq!(routes.pause(route(1), QUICK), Paused::Already, "a second worker reports the same trouble");
        assert_eq!(routes.try_now(Lane::Plain), (vec![], vec![route(1)]));
        let paused = Instant::now();
        routes.due(Lane::Plain).await;
        assert!(paused.elapsed().as_millis().abs_diff(delay.as_millis()) <= 1, "{delay:?}");
        assert_eq!(routes.try_now(Lane::Plain), (vec![route(1)], vec![]));
        assert_eq!(routes.left_out(), [route(1)], "whoever does not try it leaves it alone all the same");
        let Paused::Newly { rest: longer, .. } = routes.pause(route(1), QUICK) else { panic!("paused again") };
        assert!(longer >= 2 * SECOND, "{longer:?}");
        assert_eq!(routes.took(&event(1), SECOND), Took::InTime);
        assert_eq!(routes.left_out(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_whose_tries_cost_time_gets_a_tenth_of_it() {
        let routes = routes();
        let mut rests = Vec::new();
        for _ in 0..4 {
            let Paused::Newly { rest, .. } = routes.pause(route(1), SILENT) else { panic!("paused") };
            rests.push(rest.as_secs());
            routes.due(Lane::Plain).await;
        }
        assert!(rests[0] <= 2, "the first time may be bad luck: {rests:?}");
        assert!(rests[1] >= 15 && rests[2..].iter().all(|rest| *rest == 45), "{rests:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_lets_no_route_rest_for_long_and_its_end_lets_none() {
        let routes = routes();
        for _ in 0..5 {
            let Paused::Newly { rest, .. } = routes.pause(route(1), Failed { outage: true, ..SILENT }) else {
                panic!("paused")
            };
            assert!(rest <= 8 * SECOND, "{rest:?}");
            routes.due(Lane::Plain).await;
        }
        routes.pause(route(1), Failed { outage: true, ..SILENT });
        routes.retry_now();
        assert_eq!(routes.try_now(Lane::Plain).0, [route(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_route_gets_more_and_more_patience_and_one_that_answers_is_carried_slowly() {
        let routes = routes();
        routes.pause(route(1), SILENT);
        assert_eq!(routes.try_now(Lane::Patient).0, []);
        routes.due(Lane::Plain).await;
        routes.pause(route(1), SILENT);
        let mut waits = Vec::new();
        for _ in 0..5 {
            routes.due(Lane::Patient).await;
            let (wait, answers) = routes.patience(&[route(1)]);
            assert!(!answers);
            waits.push(wait.as_secs());
            routes.pause(route(1), Failed { took: wait, lane: Some(Lane::Patient), ..SILENT });
        }
        assert_eq!(waits, [15, 30, 60, 60, 60]);
        assert_eq!(routes.took(&event(1), 20 * SECOND), Took::Slowly, "nobody else can wait that long");
        assert_eq!(routes.patience(&[route(1)]), (40 * SECOND, true));
        assert_eq!((routes.try_now(Lane::Patient).0, routes.try_now(Lane::Plain).0), (vec![route(1)], vec![]));
        assert_eq!(routes.took(&event(1), SECOND), Took::InTime, "it is quick again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_of_which_nothing_is_left_is_forgotten() {
        let routes = routes();
        routes.pause(route(1), QUICK);
        assert_eq!(routes.absent(vec![route(1)]), [], "another replica may hold what there is");
        routes.due(Lane::Plain).await;
        assert_eq!(routes.absent(vec![route(1)]), [route(1)]);
        assert_eq!(routes.left_out(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_claims_leave_out_is_bounded_and_events_of_the_rest_wait_as_long() {
        let routes = routes();
        for number in 0..LEFT_OUT_MAX {
            assert!(matches!(routes.pause(route(number), QUICK), Paused::Newly { .. }));
        }
        let Paused::NoRoom(first) = routes.pause(route(LEFT_OUT_MAX), QUICK) else { panic!("no room") };
        assert_eq!(routes.left_out().len(), LEFT_OUT_MAX);
        assert_eq!(routes.waits(&event(LEFT_OUT_MAX)), Some(first));
        assert_eq!(routes.waits(&event(0)), None, "claims leave it out");
        tokio::time::advance(first).await;
        let Paused::NoRoom(second) = routes.pause(route(LEFT_OUT_MAX), QUICK) else { panic!("no room") };
        assert!(second >= 2 * SECOND && second > first / 2, "{first:?}, {second:?}");
        routes.took(&event(0), SECOND);
        tokio::time::advance(second).await;
        assert!(
            matches!(routes.pause(route(LEFT_OUT_MAX), QUICK), Paused::Newly { .. }),
            "one that is over makes room"
        );
        for number in 0..2 * KNOWN_MAX {
            routes.pause(route(number), QUICK);
        }
        assert!(routes.lock().len() <= KNOWN_MAX);
    }
}
