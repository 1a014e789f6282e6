//! What a bus can carry, checked before any bus client sees it.
//!
//! Clients differ in what they do with a bad name: some panic, some accept wildcards, some report it as a missing stream
//! and make one bad row look like an outage. So one set of rules holds for every bus, at the producer and at the relay; the SQL
//! function `outbox_invalid` (migration 0011) is the same in SQL, for producers that call `outbox_publish`.

use jiff::tz::TimeZone;

use crate::event::{Event, Headers, NewEvent};

const NAME_BYTES_MAX: usize = 255;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 4096;
const KEY_BYTES_MAX: usize = 4096;
/// First tokens with which a bus's own control subjects begin.
const RESERVED_FIRST_TOKENS: [&str; 2] = ["_INBOX", "_R_"];
/// Headers that steer the bus itself; a producer must not set them.
const RESERVED_HEADER_PREFIX: &str = "nats-";

/// Why an event cannot be published.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// Topic or event type is not a name that every bus takes.
    #[error("invalid {what}: expected {expected}, got {got}")]
    Name {
        /// Which of them.
        what: &'static str,
        /// The rule.
        expected: &'static str,
        /// The name, quoted and shortened.
        got: String,
    },
    /// The topic is outside the allow-list.
    #[error("topic {0} is not allowed: expected one of the configured prefixes or what is below it")]
    NotAllowed(String),
    /// A header cannot be sent.
    #[error("invalid header {name}: {problem}")]
    Header {
        /// Its name, quoted and shortened.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Too many headers.
    #[error("expected at most {HEADERS_MAX} headers, got {0}")]
    TooManyHeaders(usize),
    /// The key is too large.
    #[error("event key too large: expected at most {KEY_BYTES_MAX} bytes")]
    KeyTooLarge,
    /// The event was created in a year that the wire format cannot write.
    #[error("column created_at: expected a time between the years 0 and 9999, got the year {0}")]
    Year(i16),
    /// The payload is too large.
    #[error("payload too large: expected at most {max} bytes, got {got}")]
    PayloadTooLarge {
        /// The limit.
        max: u64,
        /// Its size.
        got: u64,
    },
    /// Reading the row already showed that it cannot be published.
    #[error("{0}")]
    Defect(String),
}

/// Checks events against the rules and two limits.
#[derive(Clone, Debug)]
pub struct Validator {
    /// Allows each of these topics and everything below it: `events.player` allows `events.player.eu`, and neither
    /// `events.players` nor `events.player_admin`. With a dot at its end only what is below: `events.` allows no `events`.
    /// Empty allows every topic that is not reserved.
    pub topic_prefixes: Vec<String>,
    /// Largest payload, in bytes.
    pub payload_bytes_max: u64,
}

impl Default for Validator {
    /// No allow-list; payloads up to 8 MiB (the bus has its own, often lower limit).
    fn default() -> Self {
        Self { topic_prefixes: Vec::new(), payload_bytes_max: 8 * 1024 * 1024 }
    }
}

impl Validator {
    /// Checks an event that is about to be inserted.
    pub fn new_event(&self, event: &NewEvent) -> Result<(), Invalid> {
        check_key(event.event_key())?;
        self.check(event.topic(), event.event_type(), event.headers(), event.payload().len())
    }

    /// Checks an event that is about to be published.
    pub fn event(&self, event: &Event) -> Result<(), Invalid> {
        if let Some(defect) = &event.defect {
            return Err(Invalid::Defect(defect.clone()));
        }
        check_key(event.key.as_deref())?;
        // RFC 3339 writes years with four digits and without a sign.
        let year = event.created_at.to_zoned(TimeZone::UTC).year();
        if year < 0 {
            return Err(Invalid::Year(year));
        }
        self.check(&event.topic, &event.event_type, &event.headers, event.payload.len())
    }

    /// Says whether an event of `topic` can be published at all, whatever else it holds.
    pub fn topic(&self, topic: &str) -> bool {
        name("topic", topic).is_ok() && reserved(topic).is_ok() && self.allows(topic)
    }

    /// Says whether the allow-list has a place for `topic`.
    pub fn allows(&self, topic: &str) -> bool {
        self.topic_prefixes.is_empty() || self.topic_prefixes.iter().any(|prefix| is_within(topic, prefix))
    }

    /// Says whether the allow-list has a place for `topic` or for anything below it.
    pub fn reaches(&self, topic: &str) -> bool {
        self.allows(topic) || self.topic_prefixes.iter().any(|prefix| is_within(prefix.trim_end_matches('.'), topic))
    }

    fn check(&self, topic: &str, event_type: &str, headers: &Headers, payload_bytes: usize) -> Result<(), Invalid> {
        name("topic", topic)?;
        reserved(topic)?;
        if !event_type.is_empty() {
            name("event type", event_type)?;
        }
        if !self.allows(topic) {
            return Err(Invalid::NotAllowed(quoted(topic)));
        }
        check_headers(headers)?;
        let got = payload_bytes as u64;
        if got > self.payload_bytes_max {
            return Err(Invalid::PayloadTooLarge { max: self.payload_bytes_max, got });
        }
        Ok(())
    }
}

/// Says whether `topic` is `prefix` or below it; a prefix never ends within a token.
fn is_within(topic: &str, prefix: &str) -> bool {
    let rest = topic.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || prefix.ends_with('.'))
}

fn name(what: &'static str, got: &str) -> Result<(), Invalid> {
    let expected = if got.len() > NAME_BYTES_MAX {
        "at most 255 bytes"
    } else if got.split('.').any(str::is_empty) {
        "tokens separated by single dots"
    } else if !got.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>') {
        "printable ASCII without spaces, `*` and `>`"
    } else {
        return Ok(());
    };
    Err(Invalid::Name { what, expected, got: quoted(got) })
}

fn reserved(topic: &str) -> Result<(), Invalid> {
    let first = topic.split('.').next().unwrap_or_default();
    if topic.starts_with('$') || RESERVED_FIRST_TOKENS.contains(&first) {
        return Err(Invalid::Name {
            what: "topic",
            expected: "a name outside the bus's control subjects",
            got: quoted(topic),
        });
    }
    Ok(())
}

fn check_headers(headers: &Headers) -> Result<(), Invalid> {
    if headers.len() > HEADERS_MAX {
        return Err(Invalid::TooManyHeaders(headers.len()));
    }
    for (name, value) in headers {
        let problem = if name.is_empty() || !name.bytes().all(is_header_name_byte) {
            "expected a name of letters, digits and !#$%&'*+-.^_`|~"
        } else if name.len() + value.len() > HEADER_BYTES_MAX {
            "expected at most 4096 bytes of name and value"
        } else if value.chars().any(char::is_control) {
            "expected a value without control characters"
        } else if value.trim() != value {
            // Where a header is a line, nobody can tell them from its own spaces.
            "expected a value without spaces around it"
        } else if name.to_ascii_lowercase().starts_with(RESERVED_HEADER_PREFIX) {
            "names that begin with Nats- belong to the bus"
        } else {
            continue;
        };
        return Err(Invalid::Header { name: quoted(name), problem });
    }
    Ok(())
}

fn check_key(key: Option<&str>) -> Result<(), Invalid> {
    if key.is_some_and(|key| key.len() > KEY_BYTES_MAX) { Err(Invalid::KeyTooLarge) } else { Ok(()) }
}

/// A `tchar` of RFC 9110, section 5.6.2.
fn is_header_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Shows a name as what it is: a letter of another script, or one that nobody sees, is told by its number.
fn quoted(name: &str) -> String {
    const SHOWN_BYTES: usize = 80;
    let shown = &name[..name.floor_char_boundary(SHOWN_BYTES)];
    let cut = if shown.len() < name.len() { "…" } else { "" };
    format!("\"{}{cut}\"", shown.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_no_event_can_have_is_known_by_itself() {
        let validator = Validator { topic_prefixes: vec!["events.".to_owned()], ..Validator::default() };
        assert!(validator.topic("events.player"));
        for refused in ["", "events", "events player", "events.*", "$JS.events", "events..player", "billing"] {
            assert!(!validator.topic(refused), "{refused:?}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_token() {
        let table: [(&str, &[&str], &[&str]); 5] = [
            (
                "events.player",
                &["events.player", "events.player.eu", "events.player.eu.west"],
                &["events.players", "events.player_admin", "events.player-x.y", "events", "xevents.player"],
            ),
            ("events.", &["events.player", "events.player.eu"], &["events", "eventsx.player"]),
            ("tenant.1", &["tenant.1", "tenant.1.a"], &["tenant.10", "tenant.10.a", "tenant.1-a"]),
            ("a", &["a", "a.b"], &["ab", "ab.c", "A"]),
            ("tenant.1,tenant.2.", &["tenant.1", "tenant.2.a"], &["tenant.2", "tenant.20.a", "tenant.11"]),
        ];
        for (prefixes, allowed, refused) in table {
            let topic_prefixes = prefixes.split(',').map(str::to_owned).collect();
            let validator = Validator { topic_prefixes, ..Validator::default() };
            for topic in allowed {
                assert!(validator.allows(topic), "{prefixes} and {topic}");
            }
            for topic in refused {
                assert!(!validator.allows(topic), "{prefixes} and {topic}");
            }
        }
        assert!(Validator::default().allows("anything"));
    }
}
