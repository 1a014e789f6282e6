use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;

/// Slows all workers down while something they depend on is down: after a failure everybody waits, then one worker tries
/// while the others go on waiting, and its success lets them all through.
#[derive(Debug)]
pub(super) struct Breaker {
    backoff: Backoff,
    state: Mutex<State>,
    changed: Notify,
}

/// `failures` counts the tries of this outage that failed.
#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Instant, failures: u32 },
    Probing { failures: u32 },
}

/// Leave to try once. Dropped without a word (nothing was claimed, so nothing was learned), the probe's place is free
/// for the next worker.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, state: Mutex::new(State::Closed), changed: Notify::new() }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.lock(), State::Closed)
    }

    /// Waits until the caller may try.
    pub(super) async fn admit(&self) -> Permit<'_> {
        loop {
            let changed = self.changed.notified();
            let until = match self.try_admit() {
                Ok(permit) => return permit,
                Err(until) => until,
            };
            match until {
                Some(until) => tokio::select! { biased; () = sleep_until(until) => {}, () = changed => {} },
                None => changed.await,
            }
        }
    }

    /// Returns a permit, or until when there is none (`None`: until the probe is over).
    fn try_admit(&self) -> Result<Permit<'_>, Option<Instant>> {
        let mut state = self.lock();
        match *state {
            State::Closed => Ok(Permit { breaker: self, probe: false }),
            State::Open { until, .. } if until > Instant::now() => Err(Some(until)),
            State::Open { failures, .. } => {
                *state = State::Probing { failures };
                Ok(Permit { breaker: self, probe: true })
            }
            State::Probing { .. } => Err(None),
        }
    }

    /// Opens the breaker, or keeps it open for longer; returns for how long. A worker that fails while the breaker is
    /// open already reports the same outage, and changes nothing.
    fn trip(&self, probe: bool, backoff: Backoff) -> Option<Duration> {
        let mut state = self.lock();
        let failures = match *state {
            State::Closed => 0,
            State::Probing { failures } if probe => failures,
            State::Open { .. } | State::Probing { .. } => return None,
        };
        let delay = backoff.after(failures);
        *state = State::Open { until: Instant::now() + delay, failures: failures.saturating_add(1) };
        drop(state);
        self.changed.notify_waiters();
        Some(delay)
    }

    /// Lets everybody through, and says whether that is new.
    pub(super) fn close(&self) -> bool {
        let before = std::mem::replace(&mut *self.lock(), State::Closed);
        self.changed.notify_waiters();
        !matches!(before, State::Closed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

impl Permit<'_> {
    pub(super) fn succeeded(mut self) {
        self.probe = false;
        self.breaker.close();
    }

    /// Returns how long everybody waits now, if this failure is what opened the breaker.
    pub(super) fn failed(self) -> Option<Duration> {
        let backoff = self.breaker.backoff;
        self.failed_for(backoff)
    }

    /// Does so with waits of its own.
    pub(super) fn failed_for(mut self, backoff: Backoff) -> Option<Duration> {
        let probe = std::mem::take(&mut self.probe);
        self.breaker.trip(probe, backoff)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.probe {
            return;
        }
        let mut state = self.breaker.lock();
        if let State::Probing { failures } = *state {
            *state = State::Open { until: Instant::now(), failures };
        }
        drop(state);
        self.breaker.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn breaker() -> Breaker {
        Breaker::new(Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(4) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_makes_everybody_wait_and_one_probe() {
        let breaker = breaker();
        let delay = breaker.admit().await.failed().expect("the first failure opens it");
        let opened = Instant::now();
        let probe = breaker.admit().await;
        assert!(opened.elapsed() >= delay, "the probe waits");
        assert!(breaker.admit().now_or_never().is_none(), "the others wait for the probe");
        probe.succeeded();
        assert!(breaker.admit().now_or_never().is_some(), "its success lets them through");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_the_cap_and_start_small_after_a_success() {
        let breaker = breaker();
        let mut delays = Vec::new();
        for _ in 0..6 {
            delays.push(breaker.admit().await.failed().expect("each probe's failure opens it again"));
        }
        assert!(delays[0] < Duration::from_secs(2) + Duration::from_millis(1), "{delays:?}");
        assert!(delays[5] >= Duration::from_secs(2) && delays[5] <= Duration::from_secs(4), "{delays:?}");
        breaker.admit().await.succeeded();
        let delay = breaker.admit().await.failed().expect("a failure opens it");
        assert!(delay <= Duration::from_secs(2), "{delay:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_outage_seen_by_many_workers_counts_once() {
        let breaker = breaker();
        let (first, second) = (breaker.admit().await, breaker.admit().await);
        assert!(first.failed().is_some());
        assert!(second.failed().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_learned_nothing_leaves_its_place() {
        let breaker = breaker();
        breaker.admit().await.failed();
        drop(breaker.admit().await);
        assert!(breaker.admit().now_or_never().is_some());
        assert!(!breaker.is_closed());
    }
}
