//! NATS JetStream.
//!
//! An event goes to the subject `<topic>.<event_type>` with the envelope as its body, `Nats-Msg-Id: <id>` (on which the
//! stream deduplicates), its own headers, and the W3C trace headers of its carrier. It counts as published when the
//! stream has acknowledged it; a whole batch is sent before the first acknowledgement is awaited.
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

mod config;
#[cfg(feature = "doctor")]
pub mod diagnose;
mod error;
mod login;
mod message;
#[cfg(feature = "read-back")]
mod read_back;
mod signals;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::connection::State;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::config::{NatsConfig, StreamConfig};
use self::error::{not_acknowledged, not_sent};
#[cfg(feature = "read-back")]
pub use self::read_back::NatsReader;
use self::signals::{Signals, Trouble, trouble_from_now_on};
use self::streams::Ensured;
use super::{About, Ack, BusError, BusErrorKind, BusPublisher, Receipt};
use crate::crash_point::crash_point;
use crate::event::Event;
use crate::renew::Renewed;
use crate::store::HealthCheck;

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
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes to JetStream. Clones share one connection.
#[derive(Clone, Debug)]
pub struct NatsBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NatsConfig,
    client: async_nats::Client,
    jetstream: jetstream::Context,
    signals: Arc<watch::Sender<Signals>>,
    ensured: Mutex<Ensured>,
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
        let jetstream = ContextBuilder::new()
            .timeout(config.publish_timeout)
            .ack_timeout(config.publish_timeout)
            .build(client.clone());
        let mut first = signals.subscribe();
        // A batch that comes while the connection is being made would be refused.
        let _ = timeout(FIRST_TRY, first.wait_for(Signals::tried)).await;
        Ok(Self { inner: Arc::new(Inner { config, client, jetstream, signals, ensured: Mutex::default() }) })
    }

    /// Returns the client, for a consumer in the same process. It is the same connection.
    pub fn client(&self) -> async_nats::Client {
        self.inner.client.clone()
    }
}

fn options(
    config: &NatsConfig,
    require_tls: bool,
    signals: Arc<watch::Sender<Signals>>,
) -> Result<ConnectOptions, BusError> {
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
    let tried = signals.clone();
    Ok(options
        .require_tls(require_tls || config.tls_first || config.tls.wanted())
        // Asked before each round of tries, it is where the reasons of the last one can be seen.
        .reconnect_to_server_callback(move |servers, _| {
            tried.send_modify(|signals| signals.note_tries(&servers));
            std::future::ready(None)
        })
        .name("gamemesh-outbox")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_delay)
        .connection_timeout(config.publish_timeout)
        .request_timeout(Some(config.publish_timeout))
        .ping_interval(PING_INTERVAL)
        .event_callback(move |event| {
            signals.send_modify(|signals| signals.note(&event));
            std::future::ready(())
        }))
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
        let deadline = Instant::now() + self.inner.config.publish_timeout;
        match self.inner.ready(deadline).await {
            Ok(()) => join_all(events.iter().map(|event| self.inner.publish(event, deadline))).await,
            Err(error) => events.iter().map(|_| Err(BusError::new(error.kind(), error.chain()))).collect(),
        }
    }
}

impl Inner {
    /// Returns how many connections there have been.
    fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Fails while nothing can be published. The client would keep messages for later; here only the store does that.
    async fn ready(&self, deadline: Instant) -> Result<(), BusError> {
        self.connected()?;
        let late = |_| BusError::new(BusErrorKind::Unavailable, "JetStream did not answer in time");
        timeout_at(deadline, self.ensure_streams()).await.map_err(late)?
    }

    fn connected(&self) -> Result<(), BusError> {
        if self.client.connection_state() == State::Connected {
            return Ok(());
        }
        let signals = self.signals.borrow();
        let why = signals.last_error().unwrap_or("connecting");
        Err(BusError::new(BusErrorKind::Unavailable, format!("not connected to NATS: {why}")))
    }

    async fn publish(&self, event: &Event, deadline: Instant) -> Receipt {
        let subject = event.subject();
        let message = message::build(event, self.client.max_payload())?;
        let trouble = trouble_from_now_on(&self.signals, &subject);
        let answer = async {
            let sent = self.jetstream.send_publish(subject.clone(), message).await.map_err(|error| not_sent(&error))?;
            crash_point("nats.sent");
            let ack = sent.await.map_err(|error| not_acknowledged(&error))?;
            crash_point("nats.acknowledged");
            Ok(Ack { duplicate: ack.duplicate })
        };
        let receipt = tokio::select! {
            biased;
            answer = timeout_at(deadline, answer) => answer.unwrap_or_else(|_| Err(self.unanswered())),
            trouble = trouble => Err(match trouble {
                Trouble::Denied(text) => BusError::new(BusErrorKind::NoRoute, text),
                Trouble::Lost => {
                    BusError::new(BusErrorKind::Unknown, "the connection was lost before the acknowledgement")
                }
            }),
        };
        match receipt {
            Err(error) if error.kind() == BusErrorKind::NoRoute => Err(self.explain(error, &subject).await),
            receipt => receipt,
        }
    }

    fn unanswered(&self) -> BusError {
        let seconds = self.config.publish_timeout.as_secs_f64();
        let mut message = format!("no acknowledgement within {seconds} s");
        // Without the permission to receive answers, this is the only trace of the reason.
        if let Some(error) = self.signals.borrow().last_error() {
            message.push_str("; the server said: ");
            message.push_str(error);
        }
        BusError::new(BusErrorKind::Unknown, message)
    }

    /// Adds why the stream may be missing.
    async fn explain(&self, error: BusError, subject: &str) -> BusError {
        let mut message = format!("subject {subject}: {error}");
        let problems = self.stream_problems().await;
        if !problems.is_empty() {
            message.push_str(" (");
            message.push_str(&problems);
            message.push(')');
        }
        BusError::new(error.kind(), message)
    }
}

#[async_trait]
impl HealthCheck for NatsBus {
    async fn check(&self) -> Result<(), String> {
        let checked = async {
            self.inner.connected().map_err(|error| error.chain())?;
            self.inner.ensure_streams().await.map_err(|error| error.chain())?;
            self.inner.check_streams().await
        };
        timeout(CHECK_TIMEOUT, checked).await.unwrap_or_else(|_| Err("JetStream did not answer in time".into()))
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
