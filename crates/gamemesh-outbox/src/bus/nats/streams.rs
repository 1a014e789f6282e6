//! The streams that the configuration names: created when missing, never changed.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::refused;
use super::signals::{Trouble, trouble_from_now_on};
use super::{Inner, StreamConfig};
use crate::bus::{BusError, BusErrorKind};

/// How long a stream that could not be ensured is left alone on one connection.
const RETRY: Duration = Duration::from_secs(10);

/// What is known about the streams on the present connection.
#[derive(Debug, Default)]
pub(super) struct Ensured {
    /// Which connection, counted from 1.
    connection: u64,
    tried: Option<Instant>,
    problems: Vec<String>,
}

/// A stream that is not known to be there, and why.
#[derive(Debug)]
pub(super) enum Problem {
    /// JetStream as a whole does not answer.
    Bus(BusError),
    /// It answered, or the permission to ask is missing: publishing may work all the same.
    Stream(String),
}

/// What the server says about a stream.
pub(super) enum Found {
    Stream(Box<Config>),
    Missing,
    /// The permission to ask is missing.
    Unknown(String),
}

impl Inner {
    /// Creates missing streams, once for each connection.
    ///
    /// An error means that JetStream does not answer. A problem with one stream is no error: publishing goes on, its own
    /// events are answered with [`BusErrorKind::NoRoute`], and [`stream_problems`](Self::stream_problems) explains.
    pub(super) async fn ensure_streams(&self) -> Result<(), BusError> {
        let mut ensured = self.ensured.lock().await;
        let connection = self.connections();
        let waiting = ensured.tried.is_some_and(|tried| tried.elapsed() < RETRY);
        if ensured.connection == connection && (ensured.problems.is_empty() || waiting) {
            return Ok(());
        }
        let mut problems = Vec::new();
        for stream in &self.config.streams {
            match self.ensure(stream).await {
                Ok(()) => {}
                Err(Problem::Bus(error)) => return Err(error),
                Err(Problem::Stream(text)) => {
                    let problem = format!("stream {}: {text}", stream.name);
                    warn!(stream = stream.name, error = text, "cannot ensure a stream");
                    problems.push(problem);
                }
            }
        }
        *ensured = Ensured { connection, tried: Some(Instant::now()), problems };
        Ok(())
    }

    /// Explains on one line which streams could not be ensured; empty when all are there.
    pub(super) async fn stream_problems(&self) -> String {
        self.ensured.lock().await.problems.join("; ")
    }

    /// Fails when a configured stream is not there now.
    pub(super) async fn check_streams(&self) -> Result<(), String> {
        for stream in &self.config.streams {
            match self.find(&stream.name).await {
                Ok(Found::Stream(_) | Found::Unknown(_)) => {}
                Ok(Found::Missing) => {
                    let problems = self.stream_problems().await;
                    let problems = if problems.is_empty() { "it was deleted".into() } else { problems };
                    return Err(format!("stream {} is missing: {problems}", stream.name));
                }
                Err(Problem::Bus(error)) => return Err(error.chain()),
                Err(Problem::Stream(text)) => return Err(format!("stream {}: {text}", stream.name)),
            }
        }
        Ok(())
    }

    async fn ensure(&self, stream: &StreamConfig) -> Result<(), Problem> {
        match self.find(&stream.name).await? {
            Found::Stream(config) => {
                for concern in concerns(&config, &stream.subjects()) {
                    warn!(stream = stream.name, concern, "an existing stream is used as it is");
                }
                Ok(())
            }
            Found::Missing => self.create(stream).await,
            Found::Unknown(text) => Err(Problem::Stream(text)),
        }
    }

    pub(super) async fn find(&self, name: &str) -> Result<Found, Problem> {
        match self.ask(&format!("STREAM.INFO.{name}"), &()).await {
            Ok(Response::Ok(info)) => Ok(Found::Stream(Box::new(info.config))),
            Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(Found::Missing),
            Ok(Response::Err { error }) => Err(problem(&error)),
            Err(Problem::Stream(text)) => Ok(Found::Unknown(text)),
            Err(problem) => Err(problem),
        }
    }

    /// Creates `stream`. Another replica may be quicker: the same configuration again is no error for the server.
    async fn create(&self, stream: &StreamConfig) -> Result<(), Problem> {
        let subject = format!("STREAM.CREATE.{}", stream.name);
        match self.ask(&subject, &self.config.describe(stream)).await? {
            Response::Ok(_) => {
                info!(stream = stream.name, subjects = ?stream.subjects(), "stream is ready");
                Ok(())
            }
            // Created meanwhile, and not as configured here.
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(()),
            Response::Err { error } => Err(problem(&error)),
        }
    }

    /// Asks JetStream, and hears at once when asking is not permitted.
    async fn ask<T: ?Sized + Serialize>(&self, subject: &str, payload: &T) -> Result<Response<Info>, Problem> {
        let unavailable = |text: &str| Problem::Bus(BusError::new(BusErrorKind::Unavailable, text));
        let trouble = trouble_from_now_on(&self.signals, &format!("$JS.API.{subject}"));
        tokio::select! {
            answer = self.jetstream.request(subject.to_owned(), payload) => answer.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => unavailable("JetStream is not enabled"),
                RequestErrorKind::TimedOut => unavailable("JetStream did not answer in time"),
                RequestErrorKind::InvalidSubject => Problem::Stream(format!("invalid name: {error}")),
                RequestErrorKind::Other => unavailable(&format!("cannot ask JetStream: {error}")),
            }),
            trouble = trouble => Err(match trouble {
                Trouble::Denied(text) => Problem::Stream(text),
                Trouble::Lost => unavailable("the connection was lost"),
            }),
        }
    }
}

fn problem(error: &async_nats::jetstream::Error) -> Problem {
    let error = refused(error);
    match error.kind() {
        BusErrorKind::Unavailable => Problem::Bus(error),
        _ => Problem::Stream(error.chain()),
    }
}

/// Says what in an existing stream may surprise its owner: the relay never changes a stream that is there.
fn concerns(config: &Config, wanted: &[String]) -> Vec<String> {
    let covered = |subject: &&String| config.subjects.iter().any(|pattern| covers(pattern, subject));
    let missing: Vec<&String> = wanted.iter().filter(|subject| !covered(subject)).collect();
    let mut concerns = Vec::new();
    if !missing.is_empty() {
        concerns.push(format!("it does not take the subjects {missing:?}"));
    }
    if config.no_ack {
        concerns.push("it has no_ack, so every publish runs into its timeout".into());
    }
    if config.discard == DiscardPolicy::Old && (config.max_messages > 0 || config.max_bytes > 0) {
        concerns.push("it has a size limit and discards old messages, so unread events can vanish".into());
    }
    if config.storage == StorageType::Memory {
        concerns.push("it is kept in memory, so a restart loses acknowledged events".into());
    }
    concerns
}

/// Says whether a stream's subject `pattern` takes everything that `subject` (which may end in `>`) takes.
pub(super) fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(expected), Some(token)) if expected == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_takes() {
        for (pattern, subject, expected) in [
            ("events.player", "events.player", true),
            ("events.player", "events.player.>", false),
            ("events.player.>", "events.player.>", true),
            ("events.player.>", "events.player", false),
            ("events.>", "events.player.>", true),
            ("events.>", "events.player", true),
            (">", "events.player.>", true),
            ("events.*", "events.player", true),
            ("events.*", "events.player.>", false),
            ("events.*", "events.>", false),
            ("events.*.>", "events.player.>", true),
            ("events.team", "events.player", false),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} covers {subject}");
        }
    }

    #[test]
    fn only_a_stream_that_loses_or_refuses_events_is_a_concern() {
        let wanted = ["events.player".to_owned(), "events.player.>".to_owned()];
        let good = Config { subjects: vec!["events.>".into()], ..Config::default() };
        assert_eq!(concerns(&good, &wanted), Vec::<String>::new());
        let bad = Config {
            subjects: vec!["events.player".into()],
            no_ack: true,
            max_messages: 10,
            storage: StorageType::Memory,
            ..Config::default()
        };
        let concerns = concerns(&bad, &wanted);
        assert_eq!(concerns.len(), 4, "{concerns:?}");
        assert!(concerns[0].contains("events.player.>") && !concerns[0].contains("\"events.player\""), "{concerns:?}");
    }
}
