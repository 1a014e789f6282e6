//! The message bus, as the relay sees it: one trait with one method.

mod error;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
mod patience;
#[cfg(feature = "read-back")]
pub mod read_back;
#[cfg(feature = "redis")]
pub mod redis;
pub mod stdout;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::error::{BusError, BusErrorKind};
pub use self::patience::{Patience, Terms};
pub use self::tls::TlsFiles;
#[cfg(feature = "doctor")]
use crate::diagnosis::Check;
use crate::event::Event;

/// What the bus said about one event.
pub type Receipt = Result<Ack, BusError>;

/// The bus has stored the event.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ack {
    /// The bus already had this id and kept only the first copy.
    pub duplicate: bool,
}

/// What a person should know of a kind of bus.
#[derive(Debug)]
pub struct About {
    /// What it is called.
    pub title: &'static str,
    /// What an acknowledgement is worth: Markdown.
    pub acknowledgement: &'static str,
    /// What is looked at when it is examined.
    #[cfg(feature = "doctor")]
    pub checks: &'static [&'static Check],
}

/// Publishes events.
///
/// Adapters classify failures ([`BusErrorKind`]) and decide nothing: what happens to the row is the relay's business.
/// The relay has validated topic, type and headers before it calls.
#[async_trait]
pub trait BusPublisher: Send + Sync + 'static {
    /// Publishes `events` and reports one receipt for each, in order.
    ///
    /// `Ok` means the bus has stored the event. Buffered is not stored: wait for the confirmation, or report an error.
    /// The batch may be sent in any order and all at once. The same event may come again, with the same id.
    ///
    /// Returns within the adapter's publish timeout: what is unanswered by then is [`BusErrorKind::Unknown`].
    async fn publish(&self, events: &[Event]) -> Vec<Receipt>;

    /// Publishes `events` as [`publish`](Self::publish) does, and waits for answers as long as `patience` does instead of
    /// for a time of its own: what is unanswered then is [`BusErrorKind::Unknown`], the rest counts.
    ///
    /// An adapter that has not its own way of doing so gets no answer at all when one is missing.
    async fn publish_patiently(&self, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        let lost = async {
            patience.silent().await;
            // Its own timeout says more.
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            receipts = self.publish(events) => receipts,
            () = lost => {
                let lost = || Err(BusError::new(BusErrorKind::Unknown, "the bus adapter did not return in time"));
                events.iter().map(|_| lost()).collect()
            }
        }
    }

    /// Returns what spans call it, `messaging.system`; `_OTHER` is OpenTelemetry's word for one without a name.
    fn system(&self) -> &'static str {
        "_OTHER"
    }
}

/// How much longer than its own timeout an adapter may take before nobody believes in it any more.
const GRACE: Duration = Duration::from_secs(1);

/// Shared among workers, a bus is still one.
#[async_trait]
impl<B: BusPublisher + ?Sized> BusPublisher for Arc<B> {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        (**self).publish(events).await
    }

    async fn publish_patiently(&self, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        (**self).publish_patiently(events, patience).await
    }

    fn system(&self) -> &'static str {
        (**self).system()
    }
}
