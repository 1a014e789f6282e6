//! Errors of the client and of JetStream, as kinds of ours.

use std::error::Error as _;

use async_nats::SubjectError;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};

use crate::bus::{BusError, BusErrorKind};

/// Explains why a message was not given to the server.
pub(super) fn not_sent(error: &PublishError) -> BusError {
    let invalid_subject = error.source().is_some_and(|source| source.is::<SubjectError>());
    let kind = match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => BusErrorKind::Rejected,
        _ if invalid_subject => BusErrorKind::Rejected,
        // The client has ended, or takes nothing more for now.
        _ => BusErrorKind::Unavailable,
    };
    BusError::new(kind, format!("cannot send: {error}"))
}

/// Explains why a message that was sent is not acknowledged.
pub(super) fn not_acknowledged(error: &PublishError) -> BusError {
    if let Some(error) = error.source().and_then(|source| source.downcast_ref()) {
        return refused(error);
    }
    let kind = match error.kind() {
        // There are no responders: no stream has this subject.
        PublishErrorKind::StreamNotFound => BusErrorKind::NoRoute,
        _ => BusErrorKind::Unknown,
    };
    BusError::new(kind, error.to_string())
}

/// Explains what JetStream answered in place of an acknowledgement.
pub(super) fn refused(error: &async_nats::jetstream::Error) -> BusError {
    let text = error.to_string();
    BusError::new(kind_of(error.error_code(), &text), text)
}

/// The message is not stored, since the server said so. What remains is whose fault that is.
fn kind_of(code: ErrorCode, text: &str) -> BusErrorKind {
    match code {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => BusErrorKind::Rejected,
        // "maximum messages exceeded" and its like: this stream is full. Otherwise the server cannot write.
        ErrorCode::STREAM_STORE_FAILED if text.starts_with("maximum ") => BusErrorKind::NoRoute,
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::CLUSTER_NOT_LEADER
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::NO_ACCOUNT
        | ErrorCode::NO_LIMITS
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED => BusErrorKind::Unavailable,
        // A stream's own trouble (sealed, offline, ...), or a code that is not known here: other routes may work, and the
        // event is not to blame.
        _ => BusErrorKind::NoRoute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_jetstream_has_a_kind() {
        use BusErrorKind::*;
        let table = [
            (10002, "resource limits exceeded for account", Unavailable),
            (10008, "JetStream system temporarily unavailable", Unavailable),
            (10009, "JetStream cluster can not handle request", Unavailable),
            (10023, "insufficient resources", Unavailable),
            (10028, "insufficient memory resources available", Unavailable),
            (10035, "account not found", Unavailable),
            (10039, "JetStream not enabled for account", Unavailable),
            (10047, "insufficient storage resources available", Unavailable),
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
            let answer: async_nats::jetstream::Error = serde_json::from_value(answer).unwrap();
            let error = not_acknowledged(&PublishError::with_source(PublishErrorKind::Other, answer));
            assert_eq!(error.kind(), kind, "{code} {description}");
            assert!(error.chain().starts_with(description), "{}", error.chain());
        }
    }

    #[test]
    fn every_error_of_the_client_has_a_kind() {
        use BusErrorKind::*;
        use PublishErrorKind::*;
        for (kind, sent, expected) in [
            (StreamNotFound, true, NoRoute),
            (TimedOut, true, Unknown),
            (BrokenPipe, true, Unknown),
            (PublishErrorKind::Other, true, Unknown),
            (TimedOut, false, Unavailable),
            (MaxAckPending, false, Unavailable),
            (PublishErrorKind::Other, false, Unavailable),
            (MaxPayloadExceeded, false, Rejected),
        ] {
            let error = PublishError::new(kind);
            let error = if sent { not_acknowledged(&error) } else { not_sent(&error) };
            assert_eq!(error.kind(), expected, "{kind:?}, sent: {sent}");
        }
        let error = not_sent(&PublishError::with_source(PublishErrorKind::Other, SubjectError::InvalidFormat));
        assert_eq!(error.kind(), Rejected, "one bad subject is not an outage");
    }
}
