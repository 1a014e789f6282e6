use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;
use gamemesh_outbox::NewEvent;
use gamemesh_outbox::event::PayloadError;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::TOPIC;

/// One line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// What happened, in GitHub's words: `pull_request`.
    pub event_type: String,
    /// Always `events.github`.
    pub topic: String,
    /// The repository's full name, where there is one.
    pub key: Option<String>,
    /// What GitHub sent.
    pub payload: Box<RawValue>,
}

impl Webhook {
    pub(crate) fn to_event(&self) -> Result<NewEvent, PayloadError> {
        let event = NewEvent::from_json(&self.topic, &self.event_type, self.payload.get())?;
        Ok(match &self.key {
            Some(key) => event.key(key),
            None => event,
        })
    }
}

/// Reads a file of JSON lines, compressed if its name ends in `.gz`.
pub fn read(path: &Path) -> anyhow::Result<Vec<Webhook>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let text: Box<dyn Read> = if compressed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    let mut webhooks = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(text).lines()) {
        let line = line.with_context(|| format!("cannot read {shown}"))?;
        let webhook: Webhook = serde_json::from_str(&line).with_context(|| format!("{shown}, line {number}"))?;
        ensure!(webhook.topic == TOPIC, "{shown}, line {number}: expected topic {TOPIC}, got {:?}", webhook.topic);
        webhooks.push(webhook);
    }
    ensure!(!webhooks.is_empty(), "{shown}: expected at least one line");
    Ok(webhooks)
}
