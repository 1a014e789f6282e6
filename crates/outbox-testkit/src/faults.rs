//! Faults that a test scripts for one bus, above all "it worked, but the answer was lost".

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::{BusError, BusErrorKind, BusPublisher, Receipt};
use gamemesh_outbox::store::HealthCheck;
use tokio::sync::watch;

/// What goes wrong with one call of `publish`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nothing: the call goes through.
    Pass,
    /// Nothing is delivered, and every receipt says so.
    Refuse(BusErrorKind),
    /// Everything is delivered, and every receipt denies it.
    DeliverThenFail(BusErrorKind),
    /// Everything is delivered, and the call never returns.
    DeliverThenHang,
    /// The call goes through after a while.
    Slow(Duration),
}

/// A bus whose calls of `publish` follow a script, one fault for each, and go through when it is at its end. Clones share
/// the script.
#[derive(Clone, Debug)]
pub struct FaultyBus<B> {
    inner: B,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    script: Mutex<VecDeque<Fault>>,
    calls: watch::Sender<u64>,
}

impl<B> FaultyBus<B> {
    /// Wraps `inner`; without a script everything goes through.
    pub fn new(inner: B) -> Self {
        Self { inner, shared: Arc::default() }
    }

    /// Adds to the end of the script.
    #[must_use]
    pub fn script(self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.lock().extend(faults);
        self
    }

    /// Follows the number of calls that have begun.
    pub fn calls(&self) -> watch::Receiver<u64> {
        self.shared.calls.subscribe()
    }

    /// Counts the faults that have not fired yet.
    pub fn faults_left(&self) -> usize {
        self.lock().len()
    }

    /// Returns the wrapped bus.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Fault>> {
        self.shared.script.lock().expect("no code panics while it holds the lock")
    }
}

#[async_trait]
impl<B: BusPublisher> BusPublisher for FaultyBus<B> {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let fault = self.lock().pop_front().unwrap_or(Fault::Pass);
        self.shared.calls.send_modify(|calls| *calls += 1);
        match fault {
            Fault::Pass => self.inner.publish(events).await,
            Fault::Refuse(kind) => fail(events, kind),
            Fault::DeliverThenFail(kind) => {
                self.inner.publish(events).await;
                fail(events, kind)
            }
            Fault::DeliverThenHang => {
                self.inner.publish(events).await;
                pending().await
            }
            Fault::Slow(delay) => {
                tokio::time::sleep(delay).await;
                self.inner.publish(events).await
            }
        }
    }
}

#[async_trait]
impl<B: HealthCheck> HealthCheck for FaultyBus<B> {
    async fn check(&self) -> Result<(), String> {
        self.inner.check().await
    }
}

fn fail(events: &[Event], kind: BusErrorKind) -> Vec<Receipt> {
    events.iter().map(|_| Err(BusError::new(kind, "scripted fault"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus_suite::event;
    use futures_util::FutureExt;
    use gamemesh_outbox::bus::memory::MemoryBus;

    #[tokio::test(start_paused = true)]
    async fn each_call_meets_its_fault_and_the_rest_goes_through() {
        let script = [
            Fault::Refuse(BusErrorKind::Unavailable),
            Fault::DeliverThenFail(BusErrorKind::Unknown),
            Fault::Slow(Duration::from_secs(60)),
            Fault::DeliverThenHang,
        ];
        let bus = FaultyBus::new(MemoryBus::default()).script(script);
        let mut stored = Vec::new();
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let receipts = bus.publish(&[event("events.player", "registered")]).await;
            kinds.push(receipts[0].as_ref().err().map(BusError::kind));
            stored.push(bus.inner().messages().len());
        }
        assert_eq!(kinds, [Some(BusErrorKind::Unavailable), Some(BusErrorKind::Unknown), None]);
        assert_eq!(stored, [0, 1, 2]);
        let hanging = [event("events.player", "registered")];
        assert!(bus.publish(&hanging).now_or_never().is_none());
        assert_eq!(bus.inner().messages().len(), 3, "it was delivered all the same");
        assert_eq!(bus.faults_left(), 0);
        assert!(bus.publish(&hanging).await[0].as_ref().is_ok_and(|ack| ack.duplicate));
        assert_eq!(*bus.calls().borrow(), 5);
    }
}
