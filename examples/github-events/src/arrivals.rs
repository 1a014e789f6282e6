use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt;

use crate::TOPIC;

/// How long the server may take to hand out a message that it holds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message as a consumer receives it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) subject: String,
    pub(crate) message_id: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Reads everything under the topic that `stream` holds from sequence `first` on.
pub(crate) async fn read(mut stream: Stream, first: u64) -> anyhow::Result<Vec<Arrival>> {
    let last = stream.info().await?.state.last_sequence;
    if last < first {
        return Ok(Vec::new());
    }
    let config = pull::OrderedConfig {
        filter_subjects: vec![TOPIC.to_owned(), format!("{TOPIC}.>")],
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first },
        ..pull::OrderedConfig::default()
    };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut arrivals = Vec::new();
    loop {
        let message = tokio::time::timeout(PATIENCE, messages.try_next()).await.context("a message did not come")?;
        let message = message?.context("the consumer ended early")?;
        let info = message.info().map_err(|error| anyhow!(error))?;
        let (sequence, waiting) = (info.stream_sequence, info.pending);
        let headers = message.headers.as_ref();
        arrivals.push(Arrival {
            subject: message.subject.to_string(),
            message_id: headers.and_then(|headers| headers.get("Nats-Msg-Id")).map(ToString::to_string),
            body: message.payload.to_vec(),
        });
        if sequence >= last || waiting == 0 {
            return Ok(arrivals);
        }
    }
}
