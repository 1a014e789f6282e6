//! Errors as a person sees them: kind, causes, hint, and an exit code for scripts.

use std::error::Error;
use std::process::ExitCode;

use gamemesh_outbox::error_chain;
use gamemesh_outbox::relay::RelayError;
use gamemesh_outbox::store::{StoreError, StoreErrorKind};

use crate::log_writer::print_error;
use crate::settings::load::ConfigError;

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// It may work another time.
    Failure,
    /// The command line is wrong.
    Usage,
    /// The settings are wrong.
    Config,
    /// The schema, or something else about the store that trying again cannot help.
    Schema,
}

impl Kind {
    fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failure => 1,
            Self::Usage | Self::Config => 2,
            Self::Schema => 3,
        })
    }
}

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    kind: Kind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
}

impl CommandError {
    /// Says what could not be done; `source` says why.
    pub fn failure(message: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Failure, message: message.into(), source: Some(source.into()), hint: None }
    }

    /// Says what is not as it should be; the details were printed already.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failure, message: message.into(), source: None, hint: None }
    }

    /// Says which setting cannot be used; the message holds no secret.
    pub fn config(message: impl Into<String>) -> Self {
        Self { kind: Kind::Config, message: message.into(), source: None, hint: None }
    }

    /// Says what is wrong with the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into(), source: None, hint: None }
    }

    /// Says what would help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writes the message and its causes on one line, for the log.
    pub fn line(&self) -> String {
        error_chain(self)
    }

    /// Prints the error to standard error and returns the exit code.
    pub fn report(self) -> ExitCode {
        let title = if self.kind == Kind::Config { "Config error" } else { "Error" };
        for line in self.message.lines() {
            print_error(&format!("{title}: {line}"));
        }
        let mut hints: Vec<String> = self.hint.iter().cloned().collect();
        for cause in std::iter::successors(self.source(), |&cause| cause.source()).map(ToString::to_string) {
            // A store's error may say what would help.
            let (cause, hint) = cause.split_once("; hint: ").unwrap_or((&cause, ""));
            print_error(&format!("Caused by: {cause}"));
            hints.extend((!hint.is_empty()).then(|| hint.to_owned()));
        }
        for hint in hints {
            print_error(&format!("Hint: {hint}"));
        }
        self.kind.exit_code()
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::config(error.to_string())
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::Unavailable
            | StoreErrorKind::Refused
            | StoreErrorKind::NotGranted
            | StoreErrorKind::Busy => Kind::Failure,
            StoreErrorKind::Unusable => Kind::Schema,
        };
        let hint = (error.kind() == StoreErrorKind::NotGranted)
            .then(|| "the role outbox_operator reads and changes dead letters (docs/security-roles.md)".to_owned());
        Self { kind, message: "cannot use the database".to_owned(), source: Some(error.into()), hint }
    }
}

impl From<RelayError> for CommandError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Store(error) => error.into(),
            RelayError::Panicked(source) => Self::failure("a worker of the relay panicked", source),
        }
    }
}
