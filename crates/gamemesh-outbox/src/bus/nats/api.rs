//! Questions to JetStream, and what it says about streams.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::Config;
use async_nats::{Message, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Inner;
use super::error::refused;
use super::signals::{Trouble, trouble_from_now_on};
use crate::bus::{BusError, BusErrorKind};

/// Where JetStream listens unless a domain or a prefix is set.
pub(super) const API_PREFIX: &str = "$JS.API";

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Problem {
    /// JetStream as a whole does not answer.
    Bus(BusError),
    /// The permission to ask is missing.
    Denied(String),
    /// It answered with an error about this stream.
    Stream(String),
}

impl Problem {
    /// Says it on one line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Bus(error) => error.chain(),
            Self::Denied(text) | Self::Stream(text) => text.clone(),
        }
    }
}

/// What the server says about a stream.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Described {
    pub(super) config: Config,
    /// Empty where the server has none.
    #[serde(default)]
    pub(super) domain: String,
    /// When it was created: another time is another stream.
    #[serde(default)]
    pub(super) created: String,
    /// Whether this request created it.
    #[serde(default)]
    pub(super) did_create: bool,
    #[serde(default)]
    cluster: Option<Cluster>,
    #[serde(default)]
    state: Option<State>,
}

#[derive(Clone, Debug, Deserialize)]
struct State {
    last_seq: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Cluster {
    #[serde(default)]
    leader: String,
}

impl Described {
    /// Returns the number of its newest message, whether or not it has that still.
    pub(super) fn last_sequence(&self) -> Option<u64> {
        self.state.as_ref().map(|state| state.last_seq)
    }

    /// Says whether no server leads it, so that nobody takes its messages.
    pub(super) fn leaderless(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_empty())
    }
}

/// What every answer begins with.
#[derive(Deserialize)]
struct Heading {
    #[serde(rename = "type")]
    kind: String,
    error: Option<async_nats::jetstream::Error>,
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

#[cfg(feature = "doctor")]
#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    domain: String,
}

#[derive(Deserialize)]
struct Consumers {
    consumers: Option<Vec<Consumer>>,
}

#[derive(Deserialize)]
struct Consumer {
    config: Filters,
}

#[derive(Deserialize)]
struct Filters {
    #[serde(default)]
    filter_subject: String,
    #[serde(default)]
    filter_subjects: Vec<String>,
}

type Answered<T> = Result<T, async_nats::jetstream::Error>;

impl Inner {
    /// Returns which streams take something of `subject`, which may end in `>`.
    pub(super) async fn names(&self, subject: &str) -> Result<Vec<String>, Problem> {
        let asked: Answered<Names> =
            self.ask("STREAM.NAMES", "stream_names", &serde_json::json!({ "subject": subject })).await?;
        Ok(asked.map_err(|error| problem(&error))?.streams.unwrap_or_default())
    }

    /// Describes the stream `name`; `None` where there is none.
    pub(super) async fn describe(&self, name: &str) -> Result<Option<Described>, Problem> {
        match self.ask(&format!("STREAM.INFO.{name}"), "stream_info", &serde_json::json!({})).await? {
            Ok(described) => Ok(Some(described)),
            Err(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(problem(&error)),
        }
    }

    /// Creates a stream. Another replica may be quicker: the same configuration again is no error for the server, and
    /// `None` says that there is one of the name which was configured otherwise.
    pub(super) async fn create(&self, config: &Config) -> Result<Option<Described>, Problem> {
        match self.ask(&format!("STREAM.CREATE.{}", config.name), "stream_create", config).await? {
            Ok(described) => Ok(Some(described)),
            Err(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(None),
            Err(error) => Err(problem(&error)),
        }
    }

    /// Returns the domain of the JetStream that answers; empty where it has none.
    #[cfg(feature = "doctor")]
    pub(super) async fn domain(&self) -> Result<String, Problem> {
        let asked: Answered<Account> = self.ask("INFO", "account_info", &serde_json::json!({})).await?;
        Ok(asked.map_err(|error| problem(&error))?.domain)
    }

    /// Returns the subjects that the consumers of a stream ask for; a consumer without a filter asks for everything.
    pub(super) async fn asked_for(&self, stream: &str) -> Result<Vec<String>, Problem> {
        let subject = format!("CONSUMER.LIST.{stream}");
        let asked: Answered<Consumers> = self.ask(&subject, "consumer_list", &serde_json::json!({})).await?;
        let consumers = asked.map_err(|error| problem(&error))?.consumers.unwrap_or_default();
        let filters = consumers.into_iter().flat_map(|Consumer { config }| {
            let all = config.filter_subject.is_empty() && config.filter_subjects.is_empty();
            let one = if all { ">".to_owned() } else { config.filter_subject };
            config.filter_subjects.into_iter().chain((!one.is_empty()).then_some(one))
        });
        Ok(filters.collect())
    }

    /// Asks JetStream, and hears at once when asking is not permitted. Others who answer are passed over.
    async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        kind: &str,
        question: &impl Serialize,
    ) -> Result<Answered<T>, Problem> {
        let subject = format!("{}.{what}", self.config.api_prefix());
        let unavailable = |text: String| Problem::Bus(BusError::new(BusErrorKind::Unavailable, text));
        let body =
            serde_json::to_vec(question).map_err(|error| unavailable(format!("cannot ask JetStream: {error}")))?;
        let trouble = trouble_from_now_on(&self.signals, &subject);
        let letters = self.replies.open();
        let answer = async {
            let sent = self.client.publish_with_reply(subject.clone(), letters.address(), body.into()).await;
            sent.map_err(|error| unavailable(format!("cannot ask JetStream: {error}")))?;
            loop {
                let letter = letters.next().await;
                if letter.status == Some(StatusCode::NO_RESPONDERS) {
                    return Err(unavailable(self.config.no_jetstream()));
                }
                if let Some(answer) = read(&letter, kind) {
                    return Ok(answer);
                }
            }
        };
        let patience = self.config.publish_timeout;
        tokio::select! {
            biased;
            answer = tokio::time::timeout(patience, answer) => {
                answer.unwrap_or_else(|_| Err(unavailable("JetStream did not answer in time".to_owned())))
            }
            trouble = trouble => Err(match trouble {
                Trouble::Denied(text) => Problem::Denied(text),
                Trouble::Lost => unavailable("the connection was lost".to_owned()),
            }),
        }
    }
}

/// Reads an answer of JetStream to a question of this kind; `None` where it is something else.
fn read<T: DeserializeOwned>(letter: &Message, kind: &str) -> Option<Answered<T>> {
    let heading: Heading = serde_json::from_slice(&letter.payload).ok()?;
    let expected = heading.kind.strip_prefix("io.nats.jetstream.api.v1.")?.strip_suffix("_response")?;
    match heading.error {
        _ if expected != kind => None,
        Some(error) => Some(Err(error)),
        None => serde_json::from_slice(&letter.payload).ok().map(Ok),
    }
}

fn problem(error: &async_nats::jetstream::Error) -> Problem {
    let error = refused(error);
    match error.kind() {
        BusErrorKind::Unavailable => Problem::Bus(error),
        _ => Problem::Stream(error.chain()),
    }
}
