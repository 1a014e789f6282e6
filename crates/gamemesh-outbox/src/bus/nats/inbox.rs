//! An inbox that the server refuses: what it permits later counts for new subscriptions only.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Inner;

/// How often it is tried again. Nothing goes out meanwhile, so nobody is disturbed.
const AGAIN: Duration = Duration::from_secs(3);

/// How long a refusal is waited for; where none comes, answers will.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

/// When it was tried last.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Option<Instant>>);

impl Inner {
    /// Connects anew, now and then, while the server refuses the inbox: with that the client asks for it again.
    pub(super) async fn ask_for_inbox_again(&self) {
        let inbox = self.replies.subject();
        if self.signals.borrow().denied(&inbox).is_none() {
            return;
        }
        let mut tried = self.inbox.0.lock().await;
        if tried.is_none_or(|tried| tried.elapsed() > AGAIN) {
            self.connect_anew().await;
            let mut signals = self.signals.subscribe();
            let _ = timeout(REFUSED_WITHIN, signals.wait_for(|signals| signals.denied(&inbox).is_some())).await;
            *tried = Some(Instant::now());
        }
    }
}
