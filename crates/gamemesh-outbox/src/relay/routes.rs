use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use crate::store::Route;

/// The most routes that are left alone at a time. Claims carry them as parameters, so they are bounded; past this it is
/// the events that wait, one by one.
const PAUSED_MAX: usize = 256;

/// What was done about a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Paused {
    /// Left alone from now on, for this long.
    Newly(Duration),
    /// Left alone already.
    Already,
    /// As many are left alone as can be. Were the event given back, it would stand at the head of the queue again, and
    /// with enough such events nobody behind them would ever be claimed.
    NoRoom,
}

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
        self.lock().iter().filter(|(_, pause)| pause.until > now).map(|(route, _)| route.clone()).collect()
    }

    /// Leaves `route` alone for longer than last time, if there is room.
    pub(super) fn pause(&self, route: Route) -> Paused {
        let now = Instant::now();
        let mut paused = self.lock();
        let times = match paused.get(&route) {
            Some(pause) if pause.until > now => return Paused::Already,
            Some(pause) => pause.times,
            None => 0,
        };
        if times == 0 && paused.len() >= PAUSED_MAX {
            // Those that are due to be tried again have no need of their place.
            paused.retain(|_, pause| pause.until > now);
            if paused.len() >= PAUSED_MAX {
                return Paused::NoRoom;
            }
        }
        let delay = self.backoff.after(times);
        paused.insert(route, Pause { until: now + delay, times: times.saturating_add(1) });
        Paused::Newly(delay)
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
        let Paused::Newly(delay) = routes.pause(route(1)) else { panic!("newly paused") };
        assert_eq!(routes.pause(route(1)), Paused::Already, "a second worker reports the same trouble");
        assert_eq!(routes.current(), [route(1)]);
        tokio::time::advance(delay).await;
        assert_eq!(routes.current(), []);
        let Paused::Newly(longer) = routes.pause(route(1)) else { panic!("paused again") };
        assert!(longer >= Duration::from_secs(2), "{longer:?}");
        routes.resume([route(1)].into_iter());
        assert_eq!(routes.current(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_bounded() {
        let routes = routes();
        for number in 0..PAUSED_MAX {
            assert!(matches!(routes.pause(route(number)), Paused::Newly(_)));
        }
        assert_eq!(routes.pause(route(PAUSED_MAX)), Paused::NoRoom);
        assert_eq!(routes.current().len(), PAUSED_MAX);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(matches!(routes.pause(route(PAUSED_MAX)), Paused::Newly(_)), "those that are over make room");
    }
}
