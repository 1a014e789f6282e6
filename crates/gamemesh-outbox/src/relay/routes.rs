use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use crate::store::Route;

/// The most routes that are left alone at a time. Claims carry them as parameters, so they are bounded; past this the
/// route that has waited longest is tried again early.
const PAUSED_MAX: usize = 256;

/// Routes for which the bus has no place. Their events stay in the table untouched while the rest goes on; each route is
/// tried again after a while.
#[derive(Debug)]
pub(super) struct PausedRoutes {
    backoff: Backoff,
    paused: Mutex<HashMap<Route, Pause>>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// How often it was paused in a row.
    times: u32,
}

impl PausedRoutes {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, paused: Mutex::default() }
    }

    /// Lists the routes to leave alone now.
    pub(super) fn current(&self) -> Vec<Route> {
        let now = Instant::now();
        self.lock()
            .iter()
            .filter(|(_, pause)| pause.until > now || planted!(RouteNeverResumed))
            .map(|(route, _)| route.clone())
            .collect()
    }

    /// Leaves `route` alone for longer than last time; returns for how long, unless it is paused already.
    pub(super) fn pause(&self, route: Route) -> Option<Duration> {
        let now = Instant::now();
        let mut paused = self.lock();
        if paused.get(&route).is_some_and(|pause| pause.until > now) {
            return None;
        }
        let times = paused.remove(&route).map_or(0, |pause| pause.times);
        let delay = self.backoff.after(times);
        if paused.len() >= PAUSED_MAX {
            let longest = paused.iter().min_by_key(|(_, pause)| pause.until).map(|(route, _)| route.clone());
            longest.map(|route| paused.remove(&route));
        }
        paused.insert(route, Pause { until: now + delay, times: times.saturating_add(1) });
        Some(delay)
    }

    /// Forgets the routes that just took an event.
    pub(super) fn resume(&self, routes: impl Iterator<Item = Route>) {
        let mut paused = self.lock();
        if paused.is_empty() {
            return;
        }
        for route in routes {
            paused.remove(&route);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Route, Pause>> {
        self.paused.lock().expect("no code panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: usize) -> Route {
        Route { topic: format!("events.{number}"), event_type: String::new() }
    }

    fn routes() -> PausedRoutes {
        PausedRoutes::new(Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(4) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_route_is_tried_again_after_its_wait_and_forgotten_when_it_works() {
        let routes = routes();
        let delay = routes.pause(route(1)).expect("newly paused");
        assert_eq!(routes.pause(route(1)), None, "a second worker reports the same trouble");
        assert_eq!(routes.current(), [route(1)]);
        tokio::time::advance(delay).await;
        assert_eq!(routes.current(), []);
        let longer = routes.pause(route(1)).expect("paused again");
        assert!(longer >= Duration::from_secs(2), "{longer:?}");
        routes.resume([route(1)].into_iter());
        assert_eq!(routes.current(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_bounded() {
        let routes = routes();
        for number in 0..PAUSED_MAX + 10 {
            routes.pause(route(number));
        }
        assert_eq!(routes.current().len(), PAUSED_MAX);
    }
}
