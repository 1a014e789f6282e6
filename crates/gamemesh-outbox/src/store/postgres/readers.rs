use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};
use tracing::warn;

use super::ANSWER_WITHIN;
use super::connector::{CONNECT_WITHIN, Connector};
use super::error::{no_answer, no_connection, of_a_question, one_line};
use super::pool::ConnectionPool;
use super::session::Session;
use crate::store::{StoreError, StoreErrorKind};

/// Questions of people that the server works at, at the same time, and changes that they ask for.
const QUESTIONS_MAX: u32 = 2;
const CHANGES_MAX: u32 = 1;
/// Connections for both. They are apart from the relay's, so that people never keep it or its probes waiting.
pub(super) const CONNECTIONS: u32 = QUESTIONS_MAX + CHANGES_MAX;
/// How long a question waits for its place.
const PLACE_WITHIN: Duration = Duration::from_secs(2);
/// How long the server may take over a question; together with the place less than an answer over HTTP may take.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(7);
/// How much longer the server is waited for than it may take: its own limit says more about what was slow.
const GRACE: Duration = Duration::from_millis(500);

/// Connections on which people's questions are answered. A question ends with whoever asked: the server is told to leave it
/// when nobody waits for it any more (if no pooler can be in between), ends it by itself after a time, and until it has, the question keeps its place. So
/// however many are asked and given up, the server never works at more than there are places.
#[derive(Clone)]
pub(super) struct Readers {
    pool: ConnectionPool,
    connector: Connector,
    questions: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    /// What the login was found not to be allowed, and that was logged.
    not_granted: Arc<Mutex<BTreeSet<String>>>,
}

impl Readers {
    pub(super) fn new(pool: ConnectionPool, connector: Connector) -> Self {
        Self {
            pool,
            connector,
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX as usize)),
            changes: Arc::new(Semaphore::new(CHANGES_MAX as usize)),
            not_granted: Arc::default(),
        }
    }

    /// Takes a place and a connection for a question that may take `at_most` so long.
    pub(super) async fn question(&self, at_most: Duration) -> Result<Question, StoreError> {
        self.begin(&self.questions, at_most).await
    }

    /// Takes those of a change.
    pub(super) async fn change(&self) -> Result<Question, StoreError> {
        self.begin(&self.changes, ANSWER_WITHIN).await?.for_writing()
    }

    /// Asks what one statement answers.
    pub(super) async fn read(
        &self,
        doing: &str,
        statement: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, StoreError> {
        let question = self.question(READ_WITHIN).await?;
        let rows = question.wait(question.read(statement, params)).await;
        question.end(doing, rows)
    }

    /// Makes a question of what the relay, or a command for itself, asks over `session`: it takes no place, and is left like
    /// the others.
    pub(super) fn own(&self, session: Session, at_most: Duration) -> Question {
        Question { under_way: Some(UnderWay { session, place: None }), readers: self.clone(), at_most }
    }

    async fn begin(&self, places: &Arc<Semaphore>, at_most: Duration) -> Result<Question, StoreError> {
        let busy = || StoreError::new(StoreErrorKind::Busy, "the database is busy with other questions of this kind");
        let place = timeout(PLACE_WITHIN, places.clone().acquire_owned()).await.map_err(|_| busy())?;
        let place = Some(place.expect("the semaphore is never closed"));
        let session = self.pool.get().await.map(Session::new).map_err(no_connection)?;
        Ok(Question { under_way: Some(UnderWay { session, place }), readers: self.clone(), at_most })
    }

    /// Logs a missing privilege once, until what it was missing for works.
    fn note(&self, doing: &str, error: Option<&StoreError>) {
        let mut not_granted = self.not_granted.lock().expect("no code panics while it holds the lock");
        match error {
            Some(error) if error.kind() == StoreErrorKind::NotGranted => {
                if not_granted.insert(doing.to_owned()) {
                    warn!(error = one_line(error), "the database does not grant this login what somebody asked for");
                }
            }
            Some(_) => {}
            None => drop(not_granted.remove(doing)),
        }
    }
}

/// A question that the server may be working at. Dropped before [`end`](Self::end), the server is told to leave it.
pub(super) struct Question {
    under_way: Option<UnderWay>,
    readers: Readers,
    at_most: Duration,
}

struct UnderWay {
    session: Session,
    place: Option<OwnedSemaphorePermit>,
}

impl Question {
    /// Returns itself, unless its server takes no writes.
    fn for_writing(mut self) -> Result<Self, StoreError> {
        let Some(UnderWay { session, place }) = self.under_way.take() else { return Ok(self) };
        self.under_way = Some(UnderWay { session: session.for_writing()?, place });
        Ok(self)
    }

    pub(super) fn client(&self) -> &ClientWrapper {
        self.under_way.as_ref().expect("only end and drop take it, and both end the question").session.client()
    }

    /// Runs one statement in a transaction that reads.
    pub(super) async fn read(
        &self,
        statement: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Error> {
        self.begin().await?;
        let rows = self.client().query_typed(statement, params).await?;
        self.client().batch_execute("COMMIT").await?;
        Ok(rows)
    }

    /// Begins a transaction that reads, each of whose statements the server ends in time.
    pub(super) async fn begin(&self) -> Result<(), Error> {
        let limit = self.at_most.as_millis();
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL idle_in_transaction_session_timeout = {limit}"
        );
        self.client().batch_execute(&begin).await
    }

    /// Waits for an answer as long as the question may take.
    pub(super) async fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, Elapsed> {
        timeout(self.at_most + GRACE, answer).await
    }

    /// Returns what came of it.
    pub(super) fn end<T>(mut self, doing: &str, answer: Result<Result<T, Error>, Elapsed>) -> Result<T, StoreError> {
        let Ok(answer) = answer else { return Err(no_answer(doing, self.at_most)) };
        // The server has answered, so there is nothing left for it to leave. After an error the connection is closed.
        let session = self.under_way.take().map(|under_way| under_way.session);
        let answer = answer.map_err(|error| of_a_question(doing, error));
        self.readers.note(doing, answer.as_ref().err());
        if let (Ok(_), Some(session)) = (&answer, session) {
            session.give_back();
        }
        answer
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // Without a runtime the program is ending, and its connections with it.
        if let (Some(under_way), Ok(runtime)) = (self.under_way.take(), Handle::try_current()) {
            runtime.spawn(under_way.leave(self.readers.connector.clone(), self.at_most));
        }
    }
}

impl UnderWay {
    /// Tells the server to leave a question, and keeps its place until the server has. Where it is not told, or does not
    /// hear it, the limit of the statement ends it.
    async fn leave(self, connector: Connector, at_most: Duration) {
        // PgBouncer 1.18 ends, with the connections of everybody, over a cancellation whose client goes away (its issues 801
        // and 822).
        if self.session.is_direct() {
            let (_, tls) = connector.current();
            let _ = timeout(CONNECT_WITHIN, self.session.client().cancel_token().cancel_query(tls)).await;
        }
        // Comes back when the server is done with what it was asked before.
        let _ = timeout(at_most + GRACE, self.session.client().batch_execute("ROLLBACK")).await;
        // Not used again: a cancellation that comes late would end another question.
        drop(self.session);
        drop(self.place);
    }
}
