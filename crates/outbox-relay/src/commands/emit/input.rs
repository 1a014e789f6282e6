//! JSON lines to events, in bounded memory.

use std::path::Path;

use gamemesh_outbox::event::Headers;
use gamemesh_outbox::validate::Validator;
use gamemesh_outbox::{Carrier, NewEvent};
use indicatif::ProgressBar;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use uuid::Uuid;

use crate::report::CommandError;

/// Most events of one statement.
const BATCH_EVENTS: usize = 500;
/// What a line may hold besides its payload.
const LINE_BYTES_BESIDES_PAYLOAD: u64 = 1024 * 1024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Where events come from.
pub(super) struct Input {
    one: Option<NewEvent>,
    lines: Option<Lines>,
}

struct Lines {
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    validator: Validator,
    progress: ProgressBar,
    number: u64,
    buffer: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    topic: String,
    #[serde(default)]
    event_type: String,
    /// Kept as it is: never parsed and rebuilt.
    #[serde(borrow)]
    payload: &'a RawValue,
    key: Option<String>,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    carrier: Carrier,
    id: Option<Uuid>,
    available_at: Option<Timestamp>,
}

impl Input {
    pub(super) fn one(event: NewEvent) -> Self {
        Self { one: Some(event), lines: None }
    }

    /// Opens a file, or standard input for `-`.
    pub(super) async fn open(path: &Path, validator: Validator, progress: ProgressBar) -> Result<Self, CommandError> {
        let reader: Box<dyn AsyncBufRead + Send + Unpin> = if path.as_os_str() == "-" {
            Box::new(BufReader::new(tokio::io::stdin()))
        } else {
            let cannot = |error| CommandError::failure(format!("cannot read {}", path.display()), error);
            let file = tokio::fs::File::open(path).await.map_err(cannot)?;
            let length = file.metadata().await.map_err(cannot)?.len();
            if length > 0 {
                progress.set_length(length);
            }
            Box::new(BufReader::new(file))
        };
        let lines = Lines { reader, validator, progress, number: 0, buffer: Vec::new() };
        Ok(Self { one: None, lines: Some(lines) })
    }

    /// Reads the next events; `None` at the end.
    pub(super) async fn next_batch(&mut self) -> Result<Option<Vec<NewEvent>>, CommandError> {
        let mut batch: Vec<NewEvent> = self.one.take().into_iter().collect();
        if let Some(lines) = &mut self.lines {
            let mut bytes = 0;
            while batch.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
                let Some(event) = lines.next_event().await? else { break };
                bytes += event.payload().len();
                batch.push(event);
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

impl Lines {
    /// Reads the next event; empty lines are passed over.
    async fn next_event(&mut self) -> Result<Option<NewEvent>, CommandError> {
        let line_bytes_max = self.validator.payload_bytes_max + LINE_BYTES_BESIDES_PAYLOAD;
        loop {
            self.buffer.clear();
            self.number += 1;
            let number = self.number;
            let mut line = (&mut self.reader).take(line_bytes_max);
            let read = line.read_until(b'\n', &mut self.buffer).await;
            let read = read.map_err(|error| wrong_line(number, error))? as u64;
            self.progress.inc(read);
            if read == 0 {
                return Ok(None);
            }
            if read == line_bytes_max && !self.buffer.ends_with(b"\n") {
                return Err(wrong_line(number, format!("expected at most {line_bytes_max} bytes")));
            }
            if !self.buffer.trim_ascii().is_empty() {
                let event = event(&self.buffer).map_err(|error| wrong_line(number, error))?;
                self.validator.new_event(&event).map_err(|error| wrong_line(number, error))?;
                return Ok(Some(event));
            }
        }
    }
}

fn event(line: &[u8]) -> Result<NewEvent, Box<dyn std::error::Error + Send + Sync>> {
    // Each line is a document of its own: the line that the error counts says nothing.
    let line: Line =
        serde_json::from_slice(line).map_err(|error| error.to_string().replace(" at line 1 column ", " at column "))?;
    let mut event = NewEvent::from_json(line.topic, line.event_type, line.payload.get())?.carrier(line.carrier);
    for (name, value) in line.headers {
        event = event.header(name, value);
    }
    if let Some(key) = line.key {
        event = event.key(key);
    }
    if let Some(id) = line.id {
        event = event.with_id(id);
    }
    if let Some(time) = line.available_at {
        event = event.available_at(time);
    }
    Ok(event)
}

fn wrong_line(number: u64, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
    CommandError::failure(format!("line {number} cannot be used; nothing was written"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> Input {
        let validator = Validator { payload_bytes_max: 64, ..Validator::default() };
        let reader = Box::new(text.as_bytes());
        let lines = Lines { reader, validator, progress: ProgressBar::hidden(), number: 0, buffer: Vec::new() };
        Input { one: None, lines: Some(lines) }
    }

    #[tokio::test]
    async fn a_payload_stays_as_it_was_written() {
        let mut input = lines(
            "{\"topic\":\"events.player\",\"event_type\":\"a\",\"payload\":{\"b\": 1e999, \"b\":  2}}\n\n\
             {\"topic\":\"events.player\",\"payload\":[],\"key\":\"k\",\"headers\":{\"Tenant\":\"eu\"},\
             \"id\":\"0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f\",\"available_at\":\"2026-01-02T03:04:05+01:00\"}",
        );
        let batch = input.next_batch().await.unwrap().unwrap();
        assert_eq!(batch[0].payload(), "{\"b\": 1e999, \"b\":  2}");
        assert_eq!(batch[1].event_key(), Some("k"));
        assert_eq!(batch[1].headers()["Tenant"], "eu");
        assert_eq!(batch[1].id().to_string(), "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f");
        assert_eq!(batch[1].due_at(), "2026-01-02T02:04:05Z".parse().ok());
        assert!(input.next_batch().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_wrong_line_is_named() {
        let wrong = [
            "\n{\"topic\":\"events.player\"}",
            "\nnot json",
            "\n{\"topic\":\"events.*\",\"payload\":1}",
            "\n{\"topic\":\"events.player\",\"payload\":1,\"typo\":2}",
        ];
        for text in wrong {
            let error = lines(text).next_batch().await.unwrap_err();
            assert!(format!("{error:?}").contains("line 2"), "{text}: {error:?}");
        }
    }
}
