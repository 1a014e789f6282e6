//! Who else answers on the subjects of events: noise, which is passed over and told once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// The most subjects for which it is remembered.
const SUBJECTS_MAX: usize = 1024;
/// How long an answer that was looked into once is passed over without another question.
const LATELY: Duration = Duration::from_secs(10);

/// By subject, when somebody else was last heard.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<HashMap<String, Instant>>);

impl Strangers {
    /// Notes that the answer of somebody else was passed over. What it says stays out of the log: it may be anybody's data.
    pub(super) fn heard(&self, subject: &str, takes: &str) {
        let mut known = self.lock();
        if let Some(last) = known.get_mut(subject) {
            *last = Instant::now();
            return;
        }
        if known.len() >= SUBJECTS_MAX {
            return;
        }
        known.insert(subject.to_owned(), Instant::now());
        drop(known);
        warn!(
            subject,
            takes,
            "somebody else answers on this subject: a service that subscribes to it gets each event and should not reply; \
             only the acknowledgement of the stream counts"
        );
    }

    /// Says whether somebody else was heard on `subject`.
    pub(super) fn know(&self, subject: &str) -> bool {
        self.lock().contains_key(subject)
    }

    /// Says whether that was a moment ago.
    pub(super) fn lately(&self, subject: &str) -> bool {
        self.lock().get(subject).is_some_and(|last| last.elapsed() < LATELY)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}
