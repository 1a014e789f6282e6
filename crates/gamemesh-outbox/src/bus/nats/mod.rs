//! NATS JetStream.
//!
//! An event goes to the subject `<topic>.<event_type>` with the envelope as its body, `Nats-Msg-Id: <id>` (on which the
//! stream deduplicates), its own headers, its key as `Event-Key`, and the W3C trace headers of its carrier. It counts as
//! published when the stream has acknowledged it; a whole batch is sent before the first acknowledgement is awaited.
//!
//! # What an acknowledgement is worth
//!
#![doc = include_str!("acknowledgement.md")]
//!
//! # Connections
//!
//! TLS is used where the URL says `tls://`, where certificates are given, or where the server asks for it. Only the first
//! two insist on it: whoever stands between can make a server's wish go away. Certificates are believed that lead to the
//! operating system's authorities, or to those of [`NatsConfig::tls`].
//!
//! Logins and certificates are read again for each new connection, as far as they lie in files.
//!
//! An application that compiles more than one cryptographic provider of rustls must install one as the default.

mod api;
mod config;
#[cfg(feature = "doctor")]
pub mod diagnose;
mod drift;
mod error;
mod homes;
mod inbox;
mod limit;
mod login;
mod message;
mod past;
#[cfg(feature = "read-back")]
mod read_back;
mod replies;
mod risks;
mod seen;
mod signals;
mod strangers;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::connection::State;
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

pub use self::config::{NatsConfig, StreamConfig};
use self::error::{Answer, not_sent};
use self::homes::{Home, Homes};
use self::inbox::Inbox;
use self::limit::Limit;
#[cfg(feature = "read-back")]
pub use self::read_back::NatsReader;
use self::replies::Replies;
use self::signals::{Signals, Trouble, trouble_from_now_on};
use self::strangers::Strangers;
use self::streams::Beginning;
use super::{About, Ack, BusError, BusErrorKind, BusPublisher, Patience, Receipt, Terms};
use crate::crash_point::crash_point;
use crate::event::Event;
use crate::renew::Renewed;
use crate::store::HealthCheck;
use crate::troubles::{Trouble as Known, TroubleKind, Troubles};

/// What a person should know of this bus.
pub static ABOUT: About = About {
    title: "NATS JetStream",
    acknowledgement: include_str!("acknowledgement.md"),
    #[cfg(feature = "doctor")]
    checks: &diagnose::CHECKS,
};

/// How long the client waits between two tries to connect; short, so that an outage ends soon after the server is back.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// How often the client makes sure that a silent server is still there.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long `connect` waits for a first result, good or bad.
const FIRST_TRY: Duration = Duration::from_secs(1);
/// How long a health check may take.
const CHECK_TIMEOUT: Duration = Duration::from_millis(3_500);

/// Publishes to JetStream. Clones share one connection.
#[derive(Clone, Debug)]
pub struct NatsBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NatsConfig,
    client: async_nats::Client,
    signals: Arc<watch::Sender<Signals>>,
    replies: Replies,
    beginning: Beginning,
    homes: Homes,
    strangers: Strangers,
    limit: Limit,
    inbox: Inbox,
    /// Read by each batch while it is in flight.
    in_flight: RwLock<()>,
    troubles: Troubles,
}

impl NatsBus {
    /// Connects in the background, for as long as it takes: an unreachable server is no error, a wrong URL is.
    pub async fn connect(config: NatsConfig) -> Result<Self, BusError> {
        let signals = Arc::new(watch::Sender::new(Signals::default()));
        let servers = config.servers()?;
        let options = options(&config, servers.require_tls(), signals.clone())?;
        let client = options.connect(servers.addresses).await.map_err(|error| {
            BusError::new(BusErrorKind::Unavailable, format!("cannot start the NATS client: {}", error.kind()))
        })?;
        let replies = Replies::listen(&client).await.map_err(|error| {
            BusError::new(BusErrorKind::Unavailable, format!("cannot listen for answers: {}", error.kind()))
        })?;
        let mut first = signals.subscribe();
        // A batch that comes while the connection is being made would be refused.
        let _ = timeout(FIRST_TRY, first.wait_for(Signals::tried)).await;
        let inner = Inner {
            config,
            client,
            signals,
            replies,
            beginning: Beginning::default(),
            homes: Homes::default(),
            strangers: Strangers::default(),
            limit: Limit::default(),
            inbox: Inbox::default(),
            in_flight: RwLock::default(),
            troubles: Troubles::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the client, for a consumer in the same process. It is the same connection.
    pub fn client(&self) -> async_nats::Client {
        self.inner.client.clone()
    }
}

/// A connection that lasts, and tells what becomes of it.
fn options(
    config: &NatsConfig,
    require_tls: bool,
    signals: Arc<watch::Sender<Signals>>,
) -> Result<ConnectOptions, BusError> {
    let tried = signals.clone();
    Ok(login_options(config, require_tls)?
        // Asked before each round of tries, it is where the reasons of the last one can be seen.
        .reconnect_to_server_callback(move |servers, _| {
            tried.send_modify(|signals| signals.note_tries(&servers));
            std::future::ready(None)
        })
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_delay)
        .ping_interval(PING_INTERVAL)
        .event_callback(move |event| {
            signals.send_modify(|signals| signals.note(&event));
            std::future::ready(())
        }))
}

/// How the server is reached, and who the relay is to it.
fn login_options(config: &NatsConfig, require_tls: bool) -> Result<ConnectOptions, BusError> {
    config.tls.check()?;
    let login = Renewed::new("the NATS login", config.login()?);
    let rereading = config.clone();
    let mut options = ConnectOptions::with_auth_callback(move |nonce| {
        let login = login.renew(rereading.reread_login());
        std::future::ready(login.answer(&nonce))
    });
    if config.tls_first {
        options = options.tls_first();
    }
    if let Some(ca) = &config.tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options
        .require_tls(require_tls || config.tls_first || config.tls.wanted())
        .name("gamemesh-outbox")
        .connection_timeout(config.publish_timeout)
        .request_timeout(Some(config.publish_timeout)))
}

fn reconnect_delay(attempts: usize) -> Duration {
    match u32::try_from(attempts) {
        Ok(0 | 1) => Duration::ZERO,
        Ok(attempts) if attempts < 8 => RECONNECT_DELAY * 2u32.pow(attempts - 2),
        _ => RECONNECT_DELAY_MAX,
    }
    .min(RECONNECT_DELAY_MAX)
}

#[async_trait]
impl BusPublisher for NatsBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let patience = Patience::new(events, Terms::of(self.inner.config.publish_timeout));
        self.publish_patiently(events, &patience).await
    }

    async fn publish_patiently(&self, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        if let Err(error) = self.inner.ready(Instant::now() + self.inner.config.publish_timeout).await {
            return events.iter().map(|_| Err(BusError::new(error.kind(), error.chain()))).collect();
        }
        self.inner.notice_raised_limit(events).await;
        let _in_flight = self.inner.in_flight.read().await;
        let publish = |(place, event)| async move {
            let receipt = self.inner.publish(event, patience).await;
            patience.answered(place, receipt.is_ok());
            receipt
        };
        join_all(events.iter().enumerate().map(publish)).await
    }

    fn system(&self) -> &'static str {
        "nats"
    }
}

/// A message that waits for its answer. Without one, whether the timeout came or nobody waits any more, there is doubt about
/// who takes its subject.
struct Question<'a> {
    homes: &'a Homes,
    subject: &'a str,
    heard: bool,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.heard {
            self.homes.doubt(self.subject);
        }
    }
}

/// What follows from an answer.
enum Heard {
    Receipt(Receipt),
    /// It does not fit what was known of the subject.
    Doubt(Answer),
    /// Not the stream's.
    Noise,
}

impl Inner {
    /// Returns how many connections there have been.
    fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Fails while nothing can be published. The client would keep messages for later; here only the store does that.
    async fn ready(&self, deadline: Instant) -> Result<(), BusError> {
        let late = |_| BusError::new(BusErrorKind::Unavailable, "JetStream did not answer in time");
        timeout_at(deadline, self.ask_for_inbox_again()).await.map_err(late)?;
        self.connected()?;
        timeout_at(deadline, self.begin()).await.map_err(late)?
    }

    fn connected(&self) -> Result<(), BusError> {
        let signals = self.signals.borrow();
        let unavailable = |text: String| Err(BusError::new(BusErrorKind::Unavailable, text));
        if self.client.connection_state() != State::Connected {
            let why = signals.last_error().unwrap_or("connecting");
            return unavailable(format!("not connected to NATS: {why}"));
        }
        match signals.denied(&self.replies.subject()) {
            None => Ok(()),
            Some(why) => unavailable(format!(
                "no answer can be received: {why} (permit the login to subscribe to its inbox, or set \
                 OUTBOX_NATS_INBOX_PREFIX)"
            )),
        }
    }

    async fn publish(&self, event: &Event, patience: &Patience) -> Receipt {
        let subject = event.subject();
        let deadline = Instant::now() + self.config.publish_timeout;
        let (headers, body) = message::build(event, self.client.max_payload())?;
        let late = |_| BusError::new(BusErrorKind::Unavailable, "JetStream did not say in time who takes the subject");
        let home = timeout_at(deadline, self.home(&subject)).await.map_err(late)?;
        let home = match home {
            Err(error) if error.kind() == BusErrorKind::NoRoute => self.try_home(event, &subject).await.ok_or(error)?,
            home => home?,
        };
        self.open(&home, &subject)?;
        let trouble = trouble_from_now_on(&self.signals, &subject);
        let letters = self.replies.open();
        let mut question = Question { homes: &self.homes, subject: &subject, heard: false };
        let answer = async {
            let sent = self.client.publish_with_reply_and_headers(subject.clone(), letters.address(), headers, body);
            sent.await.map_err(|error| not_sent(&error))?;
            crash_point("nats.sent");
            loop {
                let letter = letters.next().await;
                if let Some(receipt) = self.hear(event, &subject, &home, Answer::read(&letter)).await {
                    crash_point("nats.acknowledged");
                    return receipt;
                }
            }
        };
        let heard = tokio::select! {
            biased;
            receipt = answer => Some(receipt),
            () = patience.over() => None,
            trouble = trouble => Some(Err(match trouble {
                Trouble::Denied(text) => BusError::new(BusErrorKind::NoRoute, format!("subject {subject}: {text}")),
                Trouble::Lost => {
                    BusError::new(BusErrorKind::Unknown, "the connection was lost before the acknowledgement")
                }
            })),
        };
        question.heard = heard.is_some();
        heard.unwrap_or_else(|| Err(self.unanswered(&subject, &home, patience)))
    }

    /// Fails where nothing is to be published.
    fn open(&self, home: &Home, subject: &str) -> Result<(), BusError> {
        let closed = match home {
            Home::Stream(stream) => self.closed(stream),
            Home::Untold(why) => self
                .config
                .require_durable
                .then(|| format!("this login may not ask which stream takes it (OUTBOX_REQUIRE_DURABLE=true): {why}")),
        };
        match closed {
            Some(why) => Err(BusError::new(BusErrorKind::NoRoute, format!("subject {subject}: {why}"))),
            None => Ok(()),
        }
    }

    /// Judges one answer; `None` where the one that counts is still to come.
    async fn hear(&self, event: &Event, subject: &str, home: &Home, answer: Answer) -> Option<Receipt> {
        let came = Instant::now();
        let doubted = match self.weigh(subject, home, answer) {
            Heard::Receipt(receipt) => return Some(receipt),
            Heard::Doubt(answer) if !self.strangers.lately(subject) => answer,
            Heard::Doubt(_) | Heard::Noise => return self.pass_over(subject, home),
        };
        let home = match self.ask_home(subject, came).await {
            Ok(home) => home,
            Err(error) => return Some(Err(error)),
        };
        // A stream that nobody leads for the moment is known all the same: that is silence, and no stranger.
        let nobody = matches!(doubted, Answer::NoResponders);
        match &home {
            Home::Stream(stream) if stream.leaderless() => {
                let text = format!("subject {subject}: stream {} has no leader", stream.name);
                Some(Err(BusError::new(BusErrorKind::NoRoute, text)))
            }
            home => match self.weigh(subject, home, doubted) {
                Heard::Receipt(receipt) => Some(receipt),
                Heard::Doubt(answer) => match self.try_home(event, subject).await {
                    Some(tried) if let Heard::Receipt(receipt) = self.weigh(subject, &tried, answer) => Some(receipt),
                    _ if nobody => None,
                    _ => self.pass_over(subject, home),
                },
                Heard::Noise => self.pass_over(subject, home),
            },
        }
    }

    fn weigh(&self, subject: &str, home: &Home, answer: Answer) -> Heard {
        let named =
            |error: BusError| Heard::Receipt(Err(BusError::new(error.kind(), format!("subject {subject}: {error}"))));
        match (home, answer) {
            (_, Answer::Foreign) => Heard::Noise,
            (_, Answer::Stored { domain, .. }) if self.another_domain(&domain) => Heard::Noise,
            (Home::Stream(stream), Answer::Stored { stream: name, domain, seq, duplicate })
                if stream.is(&name, &domain) =>
            {
                stream.past.has(seq);
                Heard::Receipt(Ok(Ack { duplicate }))
            }
            (Home::Stream(stream), Answer::Refused { stream: name, error }) if stream.name == name => named(error),
            // The stream of that name in another domain.
            (Home::Stream(stream), Answer::Stored { stream: name, .. }) if stream.name == name => Heard::Noise,
            (Home::Stream(_), answer) => Heard::Doubt(answer),
            (Home::Untold(why), Answer::Stored { stream, duplicate, .. }) => {
                self.believed(&stream, why);
                Heard::Receipt(Ok(Ack { duplicate }))
            }
            (Home::Untold(_), Answer::Refused { error, .. }) => named(error),
            (Home::Untold(_), Answer::NoResponders) => {
                let text = format!("subject {subject}: no stream takes it: nobody listens to it");
                Heard::Receipt(Err(BusError::new(BusErrorKind::NoRoute, text)))
            }
        }
    }

    fn pass_over(&self, subject: &str, home: &Home) -> Option<Receipt> {
        let takes = match home {
            Home::Stream(stream) => &stream.name,
            Home::Untold(_) => "not known",
        };
        self.strangers.heard(subject, takes);
        None
    }

    fn another_domain(&self, domain: &str) -> bool {
        self.config.jetstream_domain.as_ref().is_some_and(|wanted| wanted != domain)
    }

    /// Tells once that an acknowledgement cannot be checked.
    fn believed(&self, stream: &str, why: &str) {
        let reason =
            format!("stream {stream} acknowledges events, and this login may not ask whether it takes them: {why}");
        if self.troubles.begin(TroubleKind::Place, stream, &reason) {
            warn!(
                stream,
                why,
                "acknowledgements are believed unchecked: permit the login to publish to JetStream's STREAM.NAMES and STREAM.INFO"
            );
        }
    }

    fn unanswered(&self, subject: &str, home: &Home, patience: &Patience) -> BusError {
        let mut message = format!("no acknowledgement within {}", patience.waited());
        if let Home::Stream(stream) = home {
            message.push_str(&format!(" from stream {}", stream.name));
        }
        if self.strangers.know(subject) {
            message.push_str("; somebody else answers on this subject, which does not count");
        }
        // Without the permission to receive answers, this is the only trace of the reason.
        if let Some(error) = self.signals.borrow().last_error() {
            message.push_str("; the server said: ");
            message.push_str(error);
        }
        BusError::new(BusErrorKind::Unknown, message)
    }
}

#[async_trait]
impl HealthCheck for NatsBus {
    async fn check(&self) -> Result<(), String> {
        let checked = async {
            self.inner.ask_for_inbox_again().await;
            self.inner.connected().map_err(|error| error.chain())?;
            self.inner.begin().await.map_err(|error| error.chain())?;
            self.inner.check_homes().await
        };
        timeout(CHECK_TIMEOUT, checked).await.unwrap_or_else(|_| Err("JetStream did not answer in time".into()))
    }

    fn troubles(&self) -> Vec<Known> {
        self.inner.troubles.list()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnecting_starts_at_once_and_never_waits_longer_than_a_second() {
        let delays: Vec<_> = [1, 2, 3, 4, 6, 7, 8, 100, usize::MAX].map(reconnect_delay).to_vec();
        assert_eq!(delays[0], Duration::ZERO);
        assert_eq!(delays[1], RECONNECT_DELAY);
        assert!(delays.is_sorted(), "{delays:?}");
        assert_eq!(delays.last(), Some(&RECONNECT_DELAY_MAX));
    }
}
