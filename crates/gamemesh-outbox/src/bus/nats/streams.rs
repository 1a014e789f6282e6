//! The streams that the configuration names: made at the start where they are missing, never changed, and never made again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::api::Problem;
use super::risks::covers;
use super::{Inner, StreamConfig};
use crate::bus::{BusError, BusErrorKind};

/// How long a stream that could not be made is left alone on one connection.
const RETRY: Duration = Duration::from_secs(10);

/// How far the streams are that have to be there.
#[derive(Debug, Default)]
pub(super) struct Beginning(Mutex<Begun>);

#[derive(Debug, Default)]
struct Begun {
    /// By name, why one could not be made; `None` once it was there, or its subjects had another stream.
    streams: BTreeMap<String, Option<String>>,
    /// Those of the default list of which it was told that events miss them.
    missed: BTreeSet<String>,
    connection: u64,
    tried: Option<Instant>,
}

impl Begun {
    /// Says whether a stream is there, was there, or need not be: one of the default list that could not be made is left
    /// alone until an event `misses` it.
    fn is_done(&self, stream: &StreamConfig, misses: impl Fn(&StreamConfig) -> bool) -> bool {
        match self.streams.get(&stream.name) {
            Some(None) => true,
            Some(Some(_)) => stream.by_default && !misses(stream),
            None => false,
        }
    }
}

impl Inner {
    /// Makes what is missing. A stream that was there once, or that was made, is its owner's: when it goes, it stays away.
    ///
    /// An error means that JetStream does not answer. A problem with one stream is no error: publishing goes on, and
    /// [`no_home`](Self::no_home) explains.
    pub(super) async fn begin(&self) -> Result<(), BusError> {
        let mut begun = self.beginning.0.lock().await;
        let connection = self.connections();
        let waiting = begun.connection == connection && begun.tried.is_some_and(|tried| tried.elapsed() < RETRY);
        if waiting {
            return Ok(());
        }
        let misses = |stream: &StreamConfig| self.homes.misses(stream);
        let mut tried = false;
        for stream in &self.config.streams {
            if begun.is_done(stream, misses) {
                continue;
            }
            tried = true;
            let problem = match self.make(stream).await {
                Ok(()) => None,
                Err(Problem::Bus(error)) => return Err(error),
                Err(Problem::Denied(text) | Problem::Stream(text)) => Some(text),
            };
            let before = begun.streams.insert(stream.name.clone(), problem.clone());
            let Some(text) = problem else { continue };
            if stream.by_default && !misses(stream) {
                info!(
                    stream = stream.name,
                    error = text,
                    "a stream of the default list is not made, and no event needs it"
                );
            } else if before.flatten().as_ref() != Some(&text)
                || stream.by_default && begun.missed.insert(stream.name.clone())
            {
                warn!(stream = stream.name, error = text, "cannot make sure of a stream");
            }
        }
        if tried {
            (begun.connection, begun.tried) = (connection, Some(Instant::now()));
        }
        Ok(())
    }

    async fn make(&self, stream: &StreamConfig) -> Result<(), Problem> {
        if let Some(found) = self.look(&stream.name, "").await? {
            let missing: Vec<String> = stream.subjects().into_iter().filter(|subject| !found.takes(subject)).collect();
            if found.is_seen() && !missing.is_empty() {
                warn!(
                    stream = stream.name,
                    ?missing,
                    "an existing stream is used as it is, and does not take all subjects"
                );
            }
            return Ok(());
        }
        if let Some(other) = self.taken(stream).await? {
            info!(stream = stream.name, by = other, "another stream takes its subjects, and is used");
            return Ok(());
        }
        let created = self.create(&self.config.stream(stream)).await?;
        match created.is_some_and(|created| created.did_create) {
            true => info!(stream = stream.name, subjects = ?stream.subjects(), "stream created"),
            false => info!(stream = stream.name, subjects = ?stream.subjects(), "stream is ready"),
        }
        self.look(&stream.name, "").await.map(drop)
    }

    /// Returns which other stream takes all subjects of this one, if there is one.
    async fn taken(&self, stream: &StreamConfig) -> Result<Option<String>, Problem> {
        let mut by = None;
        for subject in stream.subjects() {
            let names = match self.names(&subject).await {
                Err(Problem::Denied(_)) => return Ok(None),
                names => names?,
            };
            for name in names {
                self.look(&name, "").await?;
            }
            let Some(other) = self.homes.any(&subject) else { return Ok(None) };
            by = Some(other.name.clone());
        }
        Ok(by)
    }

    /// Says that no stream takes `subject`, and what became of the one that should.
    pub(super) fn no_home(&self, subject: &str) -> BusError {
        let mut message = format!("no stream takes subject {subject}");
        let topic = |stream: &&StreamConfig| stream.subjects().iter().any(|pattern| covers(pattern, subject));
        if let Some(stream) = self.config.streams.iter().find(topic) {
            message.push_str(": ");
            message.push_str(&self.became_of(&stream.name));
        }
        BusError::new(BusErrorKind::NoRoute, message)
    }

    /// Says why a configured stream is not there, or does not take what it should.
    fn became_of(&self, name: &str) -> String {
        if self.homes.stream(name).is_some() {
            return format!("stream {name} does not take it");
        }
        // Whoever holds it is asking about a stream, and says so itself.
        let problem = self.beginning.0.try_lock().ok().and_then(|begun| begun.streams.get(name).cloned().flatten());
        match problem {
            Some(problem) => format!("stream {name} cannot be made: {problem}"),
            None => format!(
                "stream {name} is gone: it was deleted or renamed, and a running relay does not make it again (create a \
                 stream that takes its subjects, or restart the relay)"
            ),
        }
    }

    /// Says for which topics in use there is no stream: configured ones, and those of events that were published lately or
    /// wait.
    pub(super) async fn check_homes(&self) -> Result<(), String> {
        self.look_again().await?;
        let mut missing = Vec::new();
        // Those of the default list are missed by the events that need them.
        for stream in self.config.streams.iter().filter(|stream| !stream.by_default) {
            for topic in &stream.topics {
                if !self.has_home(topic).await.map_err(|problem| problem.text())? {
                    missing.push(format!("no stream takes topic {topic}: {}", self.became_of(&stream.name)));
                }
            }
        }
        let without = self.without_home().await.map_err(|error| error.chain())?;
        missing.extend(without.iter().map(|subject| self.no_home(subject).chain()));
        missing.is_empty().then_some(()).ok_or_else(|| missing.join("; "))
    }

    /// Says whether a stream takes some of a topic. Where nobody may ask, the events will show.
    async fn has_home(&self, topic: &str) -> Result<bool, Problem> {
        let below = format!("{topic}.>");
        let known = || self.homes.any(topic).or_else(|| self.homes.any(&below)).is_some();
        if known() || self.homes.any_mapped(topic) {
            return Ok(true);
        }
        for subject in [topic, &below] {
            match self.names(subject).await {
                Ok(names) if names.is_empty() => {}
                Ok(names) => {
                    for name in names {
                        self.look(&name, subject).await?;
                    }
                    return Ok(true);
                }
                Err(Problem::Denied(_)) => return Ok(true),
                Err(problem) => return Err(problem),
            }
        }
        Ok(false)
    }
}
