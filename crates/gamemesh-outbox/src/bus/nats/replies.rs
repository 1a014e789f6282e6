//! Where answers arrive: one inbox for everything that is asked or published, and a box for each question.
//!
//! The client's own requests end with the first message that comes, whoever sent it. Here a question stays open until
//! whoever asked has heard the answer that counts.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_nats::{Client, Message, SubscribeError, Subscriber};
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The most messages that wait for one reader: somebody who floods an inbox must not fill the memory.
const LETTERS_MAX: usize = 64;

/// The inbox.
#[derive(Debug)]
pub(super) struct Replies {
    inbox: String,
    next: AtomicU64,
    open: Arc<Open>,
    sorting: AbortHandle,
}

/// The boxes of those who wait, by number.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<u64, Arc<Slot>>>);

#[derive(Debug, Default)]
struct Slot {
    letters: Mutex<VecDeque<Message>>,
    came: Notify,
}

impl Replies {
    /// Begins to listen. The client asks for the inbox again after each lost connection.
    pub(super) async fn listen(client: &Client) -> Result<Self, SubscribeError> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(format!("{inbox}.*")).await?;
        let open = Arc::new(Open::default());
        let sorting = tokio::spawn(sort(subscriber, inbox.len() + 1, open.clone())).abort_handle();
        Ok(Self { inbox, next: AtomicU64::default(), open, sorting })
    }

    /// Returns the subject that is listened to.
    pub(super) fn subject(&self) -> String {
        format!("{}.*", self.inbox)
    }

    /// Opens a box for the answers to one message.
    pub(super) fn open(&self) -> Letterbox<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::<Slot>::default();
        self.open.lock().insert(number, slot.clone());
        Letterbox { replies: self, number, slot }
    }
}

/// The subscription holds the client, which would otherwise never end.
impl Drop for Replies {
    fn drop(&mut self) {
        self.sorting.abort();
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.letters.lock().expect("no code panics while it holds the lock")
    }
}

/// Puts each message into the box whose number its subject ends with; for a box that is closed nobody waits.
async fn sort(mut subscriber: Subscriber, number_at: usize, open: Arc<Open>) {
    while let Some(message) = subscriber.next().await {
        let number = message.subject.get(number_at..).and_then(|number| number.parse().ok());
        let slot = number.and_then(|number: u64| open.lock().get(&number).cloned());
        let Some(slot) = slot else { continue };
        let mut letters = slot.lock();
        if letters.len() < LETTERS_MAX {
            letters.push_back(message);
            slot.came.notify_one();
        }
    }
}

/// Takes the answers to one message, for as long as it lives.
#[derive(Debug)]
pub(super) struct Letterbox<'a> {
    replies: &'a Replies,
    number: u64,
    slot: Arc<Slot>,
}

impl Letterbox<'_> {
    /// Returns the subject to which answers are sent.
    pub(super) fn address(&self) -> String {
        format!("{}.{}", self.replies.inbox, self.number)
    }

    /// Waits for the next answer. Whoever waits bounds it.
    pub(super) async fn next(&self) -> Message {
        loop {
            let letter = self.slot.lock().pop_front();
            match letter {
                Some(letter) => return letter,
                None => self.slot.came.notified().await,
            }
        }
    }
}

impl Drop for Letterbox<'_> {
    fn drop(&mut self) {
        self.replies.open.lock().remove(&self.number);
    }
}
