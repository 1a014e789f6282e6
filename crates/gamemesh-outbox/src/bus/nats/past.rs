//! What a stream had acknowledged, whether or not it has that still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

/// A stream as it was known before.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// When it had been created; empty for a stream that nobody has looked at.
    created: String,
    /// The number of the newest message that it acknowledged, or was seen to have.
    newest: Arc<AtomicU64>,
}

impl Past {
    /// Notes that the stream has a message of this number.
    pub(super) fn has(&self, number: u64) {
        self.newest.fetch_max(number, Ordering::Relaxed);
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Tells what the stream `name` lost, if this is said of it now and it had `newest` before that was asked, and returns its
    /// past from now on. `last` is the number of its newest message, kept or not; a stream never goes back by itself.
    pub(super) fn told_now(self, name: &str, created: &str, last: Option<u64>, newest: u64) -> Self {
        // Two may have asked at the same time.
        let newest = newest.min(self.newest());
        let is_another = !self.created.is_empty() && self.created != created;
        let went_back = last.is_some_and(|last| last < newest);
        if is_another {
            warn!(stream = name, created, "a stream was created anew: what it had acknowledged before is gone");
        } else if went_back {
            warn!(
                stream = name,
                last_sequence = last,
                acknowledged = newest,
                "a stream went back: what it had acknowledged since is gone; was it restored from an older copy?"
            );
        }
        let created = created.to_owned();
        if is_another || went_back {
            return Self { created, newest: Arc::new(last.unwrap_or_default().into()) };
        }
        last.into_iter().for_each(|last| self.has(last));
        Self { created, ..self }
    }
}
