//! What is seen of a stream, and what of that is told.

use async_nats::jetstream::stream::RetentionPolicy;
use tracing::{info, warn};

use super::Inner;
use super::api::Described;
use super::drift::{Shape, drift};
use super::homes::Stream;
use super::risks::{Effect, Risk, risks};
use crate::troubles::TroubleKind;

/// What the server said about a stream.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) domain: String,
    pub(super) leaderless: bool,
    pub(super) risks: Vec<Risk>,
    shape: Shape,
}

impl Inner {
    pub(super) async fn see(&self, described: &Described) -> Seen {
        Seen {
            domain: described.domain.clone(),
            leaderless: described.leaderless(),
            risks: self.risks_of(described).await,
            shape: Shape::of(&described.config),
        }
    }

    /// Lists what is amiss with a stream, for everybody who tells it.
    pub(super) async fn risks_of(&self, described: &Described) -> Vec<Risk> {
        let stream = &described.config;
        let asked_for = match stream.retention {
            RetentionPolicy::Interest => self.asked_for(&stream.name).await.ok(),
            RetentionPolicy::Limits | RetentionPolicy::WorkQueue => None,
        };
        let wanted = self.config.streams.iter().find(|wanted| wanted.name == stream.name);
        let chosen_age = wanted.and_then(|wanted| wanted.max_age).unwrap_or(self.config.stream_max_age);
        let mut risks = risks(stream, asked_for.as_deref(), chosen_age);
        risks.extend(wanted.into_iter().flat_map(|wanted| drift(wanted, stream)));
        risks
    }

    /// Tells once what is amiss with a stream, and when it no longer is; and each change of what it keeps.
    pub(super) fn tell(&self, stream: &Stream, before: Option<&Stream>) {
        let Some(seen) = &stream.seen else { return };
        let less =
            before.and_then(|before| before.seen.as_ref()).and_then(|before| seen.shape.less_than(&before.shape));
        if let Some(less) = less {
            warn!(
                stream = stream.name,
                less, "somebody changed a stream while the relay runs: it keeps less than before"
            );
        }
        if seen.risks.is_empty() {
            if self.troubles.end(TroubleKind::Place, &stream.name) {
                info!(stream = stream.name, "the stream is as it should be again");
            }
            return;
        }
        let found: Vec<&str> = seen.risks.iter().map(|risk| risk.found.as_str()).collect();
        let found = found.join("; it ");
        if self.troubles.begin(TroubleKind::Place, &stream.name, &format!("stream {} {found}", stream.name)) {
            let first_line = |risk: &Risk| risk.fix.lines().next().unwrap_or_default().to_owned();
            let fix = seen.risks.iter().map(first_line).collect::<Vec<_>>().join("; ");
            if seen.risks.iter().all(|risk| risk.effect == Effect::Differs) {
                warn!(stream = stream.name, found, fix, "a stream is not as it is configured");
            } else {
                warn!(
                    stream = stream.name,
                    found, fix, "acknowledged events may be lost from a stream, or it takes none"
                );
            }
        }
    }
}
