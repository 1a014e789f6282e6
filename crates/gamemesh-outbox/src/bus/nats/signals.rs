//! What the client learns from the server outside of any answer: lost connections and refused permissions.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::{Event, Server, ServerError};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// The most subjects whose refusal is remembered. Each is needed only until the publish that met it has read it.
const DENIED_MAX: usize = 1024;

/// Everything that was signalled so far. A number that grows with each signal tells old from new.
#[derive(Debug, Default)]
pub(super) struct Signals {
    number: u64,
    connected: bool,
    connected_at: u64,
    lost_at: u64,
    /// How many connections there have been.
    connections: u64,
    last_error: Option<String>,
    last_tries: Option<String>,
    denied: HashMap<String, Denial>,
}

#[derive(Debug)]
struct Denial {
    number: u64,
    text: String,
}

/// Why no answer will come.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Trouble {
    /// The server refuses the subject; the text names the permission.
    Denied(String),
    /// The connection was lost.
    Lost,
}

impl Signals {
    /// Takes in what the client reports.
    pub(super) fn note(&mut self, event: &Event) {
        self.number += 1;
        match event {
            Event::Connected => {
                info!("connected to NATS");
                self.connected = true;
                self.connected_at = self.number;
                self.connections += 1;
                self.last_error = None;
                self.last_tries = None;
            }
            Event::Disconnected | Event::Closed => {
                if std::mem::take(&mut self.connected) {
                    // The client's own end is one as well; of an outage the next tries tell, with server and reason.
                    debug!(error = self.last_error, "connection to NATS lost");
                }
                self.lost_at = self.number;
            }
            Event::ServerError(ServerError::Other(text)) => self.note_error(text),
            Event::ServerError(error) => self.last_error = Some(one_line(&error.to_string())),
            _ => {}
        }
    }

    /// Takes in why the last tries to connect failed. The addresses hold no login.
    pub(super) fn note_tries(&mut self, servers: &[Server]) {
        let tries = servers.iter().filter_map(|server| {
            let error = server.last_error.as_ref()?;
            Some(format!("{}:{}: {error}", server.addr.host(), server.addr.port()))
        });
        let tries: Vec<String> = tries.collect();
        if !tries.is_empty() {
            self.number += 1;
            let tries = one_line(&tries.join("; "));
            // Of one outage there are many rounds.
            if self.last_tries.as_ref() != Some(&tries) {
                warn!(error = tries, "cannot connect to NATS");
            }
            self.last_tries = Some(tries);
        }
    }

    fn note_error(&mut self, text: &str) {
        let text = one_line(text);
        if let Some(subject) = denied_subject(&text) {
            if self.denied.len() >= DENIED_MAX {
                let oldest = self.denied.iter().min_by_key(|(_, denial)| denial.number);
                let oldest = oldest.map(|(subject, _)| subject.clone());
                oldest.map(|subject| self.denied.remove(&subject));
            }
            let denial = Denial { number: self.number, text: text.clone() };
            self.denied.insert(subject.to_owned(), denial);
        }
        self.last_error = Some(text);
    }

    /// Says whether the last try to connect succeeded or failed; neither, at the very beginning.
    pub(super) fn tried(&self) -> bool {
        self.connected || self.last_tries.is_some()
    }

    /// Returns how many connections there have been.
    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    /// Returns why the server refuses `subject` on this connection, if it does.
    pub(super) fn denied(&self, subject: &str) -> Option<&str> {
        let denial = self.denied.get(subject).filter(|denial| denial.number > self.connected_at)?;
        Some(&denial.text)
    }

    /// Returns the last error of this connection, or of the tries to get one.
    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_tries.as_deref().or(self.last_error.as_deref())
    }

    fn trouble(&self, subject: &str, since: u64) -> Option<Trouble> {
        if let Some(denial) = self.denied.get(subject).filter(|denial| denial.number > since) {
            return Some(Trouble::Denied(denial.text.clone()));
        }
        (self.lost_at > since).then_some(Trouble::Lost)
    }
}

/// Waits for trouble with `subject` that is signalled after this call, so begin before the message is sent.
pub(super) fn trouble_from_now_on(
    signals: &Arc<watch::Sender<Signals>>,
    subject: &str,
) -> impl Future<Output = Trouble> + use<> {
    let mut receiver = signals.subscribe();
    let since = receiver.borrow_and_update().number;
    let subject = subject.to_owned();
    async move {
        let mut found = None;
        let seen = receiver.wait_for(|signals| {
            found = signals.trouble(&subject, since);
            found.is_some()
        });
        // The sender goes with the client, and then the connection is gone as well.
        let _ = seen.await.map(drop);
        found.unwrap_or(Trouble::Lost)
    }
}

/// Finds the subject in `Permissions Violation for Publish to "events.player"`, or in the same for a subscription.
fn denied_subject(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let kinds = ["permissions violation for publish to ", "permissions violation for subscription to "];
    let rest = kinds.iter().find_map(|kind| lower.find(kind)).map(|start| &text[start..])?;
    let quoted = rest.split_once('"')?.1;
    // A subscription that is taken away is named with its number.
    let end = quoted.find("\" (sid \"").or_else(|| quoted.rfind('"'))?;
    Some(&quoted[..end])
}

fn one_line(text: &str) -> String {
    const SHOWN: usize = 400;
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn denial(subject: &str) -> Event {
        Event::ServerError(ServerError::Other(format!("Permissions Violation for Publish to \"{subject}\"")))
    }

    #[tokio::test]
    async fn a_refused_subject_is_trouble_for_those_who_wait_for_it() {
        let signals = Arc::new(watch::Sender::new(Signals::default()));
        signals.send_modify(|signals| signals.note(&denial("events.secret")));
        let mine = trouble_from_now_on(&signals, "events.secret");
        let other = trouble_from_now_on(&signals, "events.player");
        tokio::pin!(mine, other);
        assert!((&mut mine).now_or_never().is_none(), "what was refused before may be granted now");
        signals.send_modify(|signals| signals.note(&denial("events.secret")));
        let Trouble::Denied(text) = mine.await else { panic!("expected a refusal") };
        assert!(text.contains("Permissions Violation"), "{text}");
        assert!((&mut other).now_or_never().is_none());
        signals.send_modify(|signals| signals.note(&Event::Disconnected));
        assert_eq!(other.await, Trouble::Lost);
    }

    #[test]
    fn the_subject_of_a_refusal_is_found_whatever_follows_it() {
        for (text, subject) in [
            ("Permissions Violation for Publish to \"events.player\"", Some("events.player")),
            ("Permissions Violation for Subscription to \"_INBOX.a.*\"", Some("_INBOX.a.*")),
            ("Permissions Violation for Subscription to \"_INBOX.a.*\" (sid \"1\")", Some("_INBOX.a.*")),
            ("Permissions Violation for Publish to \"a\"b\"", Some("a\"b")),
            ("Permissions Violation for Publish to ", None),
            ("Authorization Violation", None),
        ] {
            assert_eq!(denied_subject(text), subject, "{text}");
        }
    }

    #[test]
    fn refusals_are_bounded() {
        let mut signals = Signals::default();
        for number in 0..2 * DENIED_MAX {
            signals.note(&denial(&format!("events.{number}")));
        }
        assert_eq!(signals.denied.len(), DENIED_MAX);
        assert!(signals.trouble("events.0", 0).is_none(), "the oldest goes first");
        assert!(signals.trouble(&format!("events.{}", 2 * DENIED_MAX - 1), 0).is_some());
    }

    #[test]
    fn texts_of_the_server_stay_on_one_line() {
        let mut signals = Signals::default();
        signals.note(&Event::ServerError(ServerError::Other("a\r\nforged line".into())));
        assert_eq!(signals.last_error(), Some("a  forged line"));
    }
}
