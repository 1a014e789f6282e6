//! Asks both sides whether they could do their part, so that what nobody needs at the moment is known all the same.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::store::HealthCheck;
use crate::telemetry::{Side, Telemetry};

/// How often a side is asked that works, unless the relay is to ask more seldom. With the time that an answer may take it
/// stays below ten seconds.
const ASKED_EVERY: Duration = Duration::from_secs(4);
/// How often one is asked that fails.
const RETRIED_EVERY: Duration = Duration::from_secs(2);
/// What is known is so old at most when somebody asks for it; otherwise the side is asked then.
const KNOWN_FOR: Duration = Duration::from_secs(6);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Keeps the verdict of a [`Telemetry`] true while nothing is to do. Clones share it.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    store: Asked,
    bus: Asked,
    telemetry: Telemetry,
    every: Duration,
}

/// A side, which is asked by one at a time.
struct Asked {
    side: Side,
    check: Arc<dyn HealthCheck>,
    asking: Mutex<()>,
}

impl Watch {
    /// Will ask `store` and `bus`, of its own accord no more often than a relay with this `poll_interval` asks for events.
    /// What they know to be amiss, `telemetry` tells from now on.
    pub fn new(
        store: Arc<dyn HealthCheck>,
        bus: Arc<dyn HealthCheck>,
        poll_interval: Duration,
        telemetry: Telemetry,
    ) -> Self {
        telemetry.tell_troubles_of(&store);
        telemetry.tell_troubles_of(&bus);
        let asked = |side, check| Asked { side, check, asking: Mutex::default() };
        let (store, bus) = (asked(Side::Store, store), asked(Side::Bus, bus));
        Self { shared: Arc::new(Shared { store, bus, telemetry, every: ASKED_EVERY.max(poll_interval) }) }
    }

    /// Asks again and again until `stop` completes.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let shared = &self.shared;
        let both = async { tokio::join!(shared.keep_asking(&shared.store), shared.keep_asking(&shared.bus)) };
        tokio::select! { biased; () = stop => {}, _ = both => {} }
    }

    /// Asks now what was asked too long ago to be told.
    pub async fn refresh(&self) {
        let shared = &self.shared;
        tokio::join!(shared.refresh(&shared.store, KNOWN_FOR), shared.refresh(&shared.bus, KNOWN_FOR));
    }
}

impl Shared {
    async fn keep_asking(&self, asked: &Asked) {
        let mut verdicts = self.telemetry.verdicts();
        loop {
            let verdict = self.telemetry.verdict();
            let standing = verdict.of(asked.side);
            let every = if standing.is_down() { RETRIED_EVERY } else { self.every };
            let rest = standing.checked_ago().map_or(Duration::ZERO, |ago| every.saturating_sub(ago));
            if rest.is_zero() {
                self.refresh(asked, every).await;
            } else if standing.is_down() {
                tokio::time::sleep(rest).await;
            } else {
                // A side that begins to fail is asked soon.
                let _ = timeout(rest, verdicts.wait_for(|verdict| verdict.of(asked.side).is_down())).await.is_ok();
            }
        }
    }

    /// Asks, unless it was asked less than `known_for` ago.
    async fn refresh(&self, asked: &Asked, known_for: Duration) {
        if self.is_known(asked.side, known_for) {
            return;
        }
        let _asking = asked.asking.lock().await;
        // Whoever asked meanwhile asked for both.
        if self.is_known(asked.side, known_for) {
            return;
        }
        let late = |_| Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
        let began = Instant::now();
        let answer = timeout(ANSWER_WITHIN, asked.check.check()).await.unwrap_or_else(late);
        self.telemetry.checked(asked.side, answer, began.elapsed());
    }

    fn is_known(&self, side: Side, known_for: Duration) -> bool {
        self.telemetry.verdict().of(side).checked_ago().is_some_and(|ago| ago < known_for)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use async_trait::async_trait;
    use tokio::time::Instant;

    use super::*;

    /// Answers as it is told to; `None` is silence.
    #[derive(Clone, Default)]
    struct Told(Arc<Lock<(Option<String>, bool, u32)>>);

    impl Told {
        fn fail(&self, why: Option<&str>) {
            self.0.lock().unwrap().0 = why.map(str::to_owned);
        }

        fn freeze(&self, frozen: bool) {
            self.0.lock().unwrap().1 = frozen;
        }

        fn asked(&self) -> u32 {
            self.0.lock().unwrap().2
        }
    }

    #[async_trait]
    impl HealthCheck for Told {
        async fn check(&self) -> Result<(), String> {
            let (why, frozen) = {
                let mut told = self.0.lock().unwrap();
                told.2 += 1;
                (told.0.clone(), told.1)
            };
            if frozen {
                std::future::pending::<()>().await;
            }
            why.map_or(Ok(()), Err)
        }
    }

    struct Scene {
        store: Told,
        bus: Told,
        telemetry: Telemetry,
        watch: Watch,
    }

    fn scene(poll_interval: Duration) -> Scene {
        let (store, bus, telemetry) = (Told::default(), Told::default(), Telemetry::new("test"));
        let watch = Watch::new(Arc::new(store.clone()), Arc::new(bus.clone()), poll_interval, telemetry.clone());
        Scene { store, bus, telemetry, watch }
    }

    impl Scene {
        /// Waits until the verdict is so, and returns how long that took.
        async fn until(&self, ready: bool) -> Duration {
            let began = Instant::now();
            self.telemetry.verdicts().wait_for(|verdict| verdict.is_ready() == ready).await.unwrap();
            began.elapsed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_and_ends_while_nothing_is_due_is_known_within_ten_seconds() {
        let scene = scene(Duration::from_secs(1));
        let watch = scene.watch.clone();
        let watching = tokio::spawn(async move { watch.run(std::future::pending()).await });
        scene.until(true).await;
        let within = Duration::from_secs(10);
        for side in [&scene.store, &scene.bus] {
            side.fail(Some("refused"));
            assert!(scene.until(false).await < within);
            side.fail(None);
            assert!(scene.until(true).await < within);
            side.freeze(true);
            assert!(scene.until(false).await < within);
            side.freeze(false);
            assert!(scene.until(true).await < within);
        }
        watching.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_asks_seldom_is_asked_for_its_verdict() {
        let scene = scene(Duration::from_secs(3600));
        let watch = scene.watch.clone();
        let watching = tokio::spawn(async move { watch.run(std::future::pending()).await });
        scene.until(true).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(scene.bus.asked(), 1, "the interval that the user sets is the interval at which anything asks");
        scene.bus.fail(Some("refused"));
        scene.watch.refresh().await;
        let failure = scene.telemetry.verdict().bus.failure().unwrap();
        assert_eq!(failure.reason, "refused");
        scene.watch.refresh().await;
        assert_eq!(scene.bus.asked(), 2, "what was said a moment ago is said again");
        watching.abort();
    }
}
