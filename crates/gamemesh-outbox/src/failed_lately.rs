//! Addresses that failed a moment ago, and are tried after the others.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// How long an address that failed is tried after the others.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Which addresses failed lately. They are tried last, so that one that says nothing costs its time once.
#[derive(Debug, Default)]
pub(crate) struct FailedLately(Mutex<HashMap<String, Instant>>);

impl FailedLately {
    /// Puts those that failed behind the others.
    pub(crate) fn last<A: Display>(&self, addresses: &mut [A]) {
        let mut failed = self.lock();
        failed.retain(|_, since| since.elapsed() < REMEMBERED);
        addresses.sort_by_key(|address| failed.contains_key(&address.to_string()));
    }

    /// Begins a try of an address.
    pub(crate) fn trying(&self, address: &impl Display) -> Trying<'_> {
        Trying { failed: self, address: address.to_string(), works: false }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

/// A try. Dropped without having succeeded, given up on the way as well, it counts as a failure.
#[derive(Debug)]
pub(crate) struct Trying<'a> {
    failed: &'a FailedLately,
    address: String,
    works: bool,
}

impl Trying<'_> {
    /// Notes that it succeeded.
    pub(crate) fn works(mut self) {
        self.works = true;
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let address = std::mem::take(&mut self.address);
        if self.works {
            self.failed.lock().remove(&address);
        } else {
            self.failed.lock().insert(address, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_failed_is_tried_last_for_a_minute() {
        let failed = FailedLately::default();
        let first = || {
            let mut addresses = ["one", "two"];
            failed.last(&mut addresses);
            addresses[0]
        };
        assert_eq!(first(), "one");
        let other = failed.trying(&"one");
        assert_eq!(first(), "one", "nobody knows yet");
        drop(other);
        assert_eq!(first(), "two");
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(first(), "one");
        drop(failed.trying(&"one"));
        failed.trying(&"one").works();
        assert_eq!(first(), "one");
    }
}
