//! Which routes took an event lately: what tells one route's trouble from an outage.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;
use crate::store::Route;

/// The most routes that are remembered; more of them prove nothing more.
const KEPT_MAX: usize = 64;
/// How long an acknowledgement proves that the bus is there.
pub(super) const LATELY: Duration = Duration::from_secs(3);

/// How long a route of which nothing is known may say nothing before it is suspected.
const SUSPECTED_AFTER: Duration = Duration::from_millis(100);

/// Routes that took an event and have not failed since, and routes from which an answer is awaited.
#[derive(Debug, Default)]
pub(super) struct Well(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    taken: Vec<Taken>,
    awaited: BTreeMap<u64, (Instant, Vec<Route>)>,
    number: u64,
}

/// Something was sent, and while this lives no answer has come.
#[derive(Debug)]
pub(super) struct Awaited<'a> {
    well: &'a Well,
    number: u64,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.well.lock().awaited.remove(&self.number);
    }
}

#[derive(Debug)]
struct Taken {
    route: Route,
    /// When it took one last; `None` when it failed since.
    at: Option<Instant>,
    /// How long it took to answer, at worst and not long ago.
    answer: Duration,
}

impl Well {
    /// Notes that the route of `event` took one, `answer` after it was sent.
    pub(super) fn took(&self, event: &Event, answer: Duration) {
        let routes = &mut self.lock().taken;
        let at = Some(Instant::now());
        if let Some(taken) = routes.iter_mut().find(|taken| taken.route.is_of(event)) {
            taken.at = at;
            // It forgets slowly: one slow answer in a hundred is what the wait is for.
            taken.answer = answer.max(taken.answer.mul_f32(0.99));
            return;
        }
        if routes.len() >= KEPT_MAX {
            let oldest = routes.iter().enumerate().min_by_key(|(_, taken)| taken.at).map(|(place, _)| place);
            oldest.map(|place| routes.swap_remove(place));
        }
        routes.push(Taken { route: Route::of(event), at, answer });
    }

    /// Notes that the route of `event` failed: what it took before proves nothing any more. How long it takes to answer stays
    /// known.
    pub(super) fn failed(&self, event: &Event) {
        let routes = &mut self.lock().taken;
        if let Some(taken) = routes.iter_mut().find(|taken| taken.route.is_of(event)) {
            taken.at = None;
        }
    }

    /// Says whether any route took an event lately and has not failed since.
    pub(super) fn any_lately(&self) -> bool {
        self.lock().taken.iter().any(Taken::is_well)
    }

    /// Says whether any route but `except` took an event after `since`.
    pub(super) fn others_since(&self, since: Instant, except: &[Route]) -> bool {
        let since = |taken: &Taken| taken.at.is_some_and(|at| at > since);
        self.lock().taken.iter().any(|taken| since(taken) && !except.contains(&taken.route))
    }

    /// Says whether the route of `event` took one after `since`.
    pub(super) fn took_since(&self, event: &Event, since: Instant) -> bool {
        self.lock().taken.iter().any(|taken| taken.route.is_of(event) && taken.at.is_some_and(|at| at > since))
    }

    /// Returns how long the slowest of `routes` takes to answer, as far as that is known.
    pub(super) fn answer(&self, routes: &[Route]) -> Duration {
        let known = self.lock();
        let slowest = known.taken.iter().filter(|taken| routes.contains(&taken.route)).map(|taken| taken.answer).max();
        slowest.unwrap_or_default()
    }

    /// Notes that something was sent to `routes`.
    pub(super) fn await_answer(&self, routes: Vec<Route>) -> Awaited<'_> {
        let mut state = self.lock();
        state.number += 1;
        let number = state.number;
        state.awaited.insert(number, (Instant::now(), routes));
        Awaited { well: self, number }
    }

    /// Lists the routes that have said nothing for a while and of which nothing good is known: one worker waits for them
    /// already.
    pub(super) fn suspected(&self) -> Vec<Route> {
        let state = self.lock();
        let silent = state.awaited.values().filter(|(since, _)| since.elapsed() > SUSPECTED_AFTER);
        let unknown = |route: &&Route| !state.taken.iter().any(|taken| taken.is_well() && taken.route == **route);
        silent.flat_map(|(_, routes)| routes).filter(unknown).cloned().collect()
    }

    /// Says whether any route is suspected.
    pub(super) fn suspects(&self) -> bool {
        !self.suspected().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl Taken {
    fn is_well(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::routes::tests::{event, route};

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_proves_something_for_a_while_or_until_its_route_fails() {
        let well = Well::default();
        let began = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        well.took(&event(1), Duration::ZERO);
        assert!(well.any_lately() && well.others_since(began, &[route(2)]));
        assert!(!well.others_since(began, &[route(1)]), "one's own acknowledgements say nothing of others");
        well.failed(&event(1));
        assert!(!well.any_lately());
        well.took(&event(2), Duration::ZERO);
        tokio::time::advance(LATELY).await;
        assert!(!well.any_lately());
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_says_nothing_is_suspected_unless_it_is_known_to_be_well() {
        let well = Well::default();
        well.took(&event(1), Duration::ZERO);
        let awaited = well.await_answer(vec![route(1), route(2)]);
        assert_eq!(well.suspected(), []);
        tokio::time::advance(2 * SUSPECTED_AFTER).await;
        assert_eq!(well.suspected(), [route(2)]);
        drop(awaited);
        assert_eq!(well.suspected(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_remembered_and_fades() {
        let well = Well::default();
        well.took(&event(1), Duration::from_millis(300));
        for _ in 0..10 {
            well.took(&event(1), Duration::from_millis(1));
        }
        assert!(well.answer(&[route(1), route(2)]) > Duration::from_millis(250));
        for number in 2..2 + KEPT_MAX {
            tokio::time::advance(Duration::from_millis(1)).await;
            well.took(&event(number), Duration::ZERO);
        }
        assert_eq!(well.answer(&[route(1)]), Duration::ZERO, "the list is bounded");
    }
}
