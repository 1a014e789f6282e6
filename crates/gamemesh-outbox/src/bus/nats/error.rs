//! What comes back for a message, and errors of the client and of JetStream, as kinds of ours.

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::jetstream::ErrorCode;
use async_nats::{Message, StatusCode};
use serde::Deserialize;

use crate::bus::{BusError, BusErrorKind};
use crate::error_chain::bounded_line;

/// What one message on the inbox of a publish is. Whether it counts depends on who takes the subject.
#[derive(Debug)]
pub(super) enum Answer {
    /// A stream says that it has stored the message.
    Stored { stream: String, domain: String, seq: u64, duplicate: bool },
    /// A stream says why it has not.
    Refused { stream: String, error: BusError },
    /// Nobody listens to the subject, or somebody says so.
    NoResponders,
    /// Nothing that a stream would say: somebody else answers.
    Foreign,
}

/// A stream names itself in every answer, in errors too.
#[derive(Deserialize)]
struct FromStream {
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    domain: String,
    #[serde(default)]
    duplicate: bool,
    error: Option<async_nats::jetstream::Error>,
}

impl Answer {
    /// Reads a message.
    pub(super) fn read(letter: &Message) -> Self {
        if letter.status == Some(StatusCode::NO_RESPONDERS) {
            return Self::NoResponders;
        }
        match serde_json::from_slice::<FromStream>(&letter.payload) {
            Ok(FromStream { stream, error: Some(error), .. }) => Self::Refused { stream, error: refused(&error) },
            Ok(FromStream { stream, seq: seq @ 1.., domain, duplicate, .. }) => {
                Self::Stored { stream, domain, seq, duplicate }
            }
            _ => Self::Foreign,
        }
    }
}

/// Explains why a message was not given to the server.
pub(super) fn not_sent(error: &PublishError) -> BusError {
    let kind = match error.kind() {
        PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => BusErrorKind::Rejected,
        // The client has ended, or takes nothing more for now.
        PublishErrorKind::Send => BusErrorKind::Unavailable,
    };
    BusError::new(kind, bounded_line(error))
}

/// Explains what JetStream answered in place of an acknowledgement.
pub(super) fn refused(error: &async_nats::jetstream::Error) -> BusError {
    let text = bounded_line(error);
    BusError::new(kind_of(error.error_code(), &text), text)
}

/// The message is not stored, since the server said so. What remains is whose fault that is.
fn kind_of(code: ErrorCode, text: &str) -> BusErrorKind {
    match code {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => BusErrorKind::Rejected,
        // "maximum messages exceeded" and its like: this stream is full. Otherwise the server cannot write.
        ErrorCode::STREAM_STORE_FAILED if text.starts_with("maximum ") => BusErrorKind::NoRoute,
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::CLUSTER_NOT_LEADER
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        | ErrorCode::NO_ACCOUNT
        | ErrorCode::NO_LIMITS => BusErrorKind::Unavailable,
        // A stream's own trouble (sealed, offline, ...), a store of its kind that is full while another has room, or a code
        // that is not known here: other routes may work, and the event is not to blame.
        _ => BusErrorKind::NoRoute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(status: Option<StatusCode>, payload: &str) -> Message {
        let payload = payload.to_owned().into();
        Message {
            subject: "_INBOX.a.1".into(),
            reply: None,
            payload,
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn only_a_stream_that_names_itself_is_heard() {
        let stored = Answer::read(&letter(None, r#"{"stream":"PLAYER","domain":"hub","seq":7,"duplicate":true}"#));
        assert!(
            matches!(&stored, Answer::Stored { stream, domain, seq: 7, duplicate: true } if stream == "PLAYER" && domain == "hub"),
            "{stored:?}"
        );
        let refused = Answer::read(&letter(
            None,
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"PLAYER","seq":0}"#,
        ));
        assert!(matches!(&refused, Answer::Refused { stream, .. } if stream == "PLAYER"), "{refused:?}");
        assert!(matches!(Answer::read(&letter(Some(StatusCode::NO_RESPONDERS), "")), Answer::NoResponders));
        for foreign in [
            "",
            "ok",
            "{}",
            "[]",
            r#"{"stream":"PLAYER"}"#,
            r#"{"stream":"PLAYER","seq":0}"#,
            r#"{"stream":"PLAYER","seq":"1"}"#,
            r#"{"seq":1}"#,
            r#"{"error":{"code":404,"description":"player not found"}}"#,
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}"#,
        ] {
            assert!(matches!(Answer::read(&letter(None, foreign)), Answer::Foreign), "{foreign}");
        }
    }

    #[test]
    fn every_answer_of_jetstream_has_a_kind() {
        use BusErrorKind::*;
        let table = [
            (10002, "resource limits exceeded for account", NoRoute),
            (10008, "JetStream system temporarily unavailable", Unavailable),
            (10009, "JetStream cluster can not handle request", Unavailable),
            (10023, "insufficient resources", NoRoute),
            (10028, "insufficient memory resources available", NoRoute),
            (10035, "account not found", Unavailable),
            (10039, "JetStream not enabled for account", Unavailable),
            (10047, "insufficient storage resources available", NoRoute),
            (10054, "message size exceeds maximum allowed", Rejected),
            (10059, "stream not found", NoRoute),
            (10076, "JetStream not enabled", Unavailable),
            (10077, "maximum messages exceeded", NoRoute),
            (10077, "maximum bytes exceeded", NoRoute),
            (10077, "maximum messages per subject exceeded", NoRoute),
            (10077, "no space left on device", Unavailable),
            (10097, "header size exceeds maximum allowed of 64k", Rejected),
            (10109, "invalid operation on sealed stream", NoRoute),
            (10118, "stream is offline", NoRoute),
            (10120, "no JetStream default or applicable tiered limit present", Unavailable),
            (19999, "a code of the future", NoRoute),
        ];
        for (code, description, kind) in table {
            let answer = serde_json::json!({"code": 503, "err_code": code, "description": description});
            let error = refused(&serde_json::from_value(answer).unwrap());
            assert_eq!(error.kind(), kind, "{code} {description}");
            assert!(error.chain().starts_with(description), "{}", error.chain());
        }
    }

    #[test]
    fn every_error_of_the_client_has_a_kind() {
        for (kind, expected) in [
            (PublishErrorKind::Send, BusErrorKind::Unavailable),
            (PublishErrorKind::MaxPayloadExceeded, BusErrorKind::Rejected),
            // One bad subject is not an outage.
            (PublishErrorKind::InvalidSubject, BusErrorKind::Rejected),
        ] {
            assert_eq!(not_sent(&PublishError::new(kind)).kind(), expected, "{kind:?}");
        }
    }
}
