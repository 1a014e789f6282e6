use std::future::Future;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::join3;
use tokio_postgres::Error;

use super::error::{Failure, no_answer, unavailable};
use super::pool::PostgresConnection;
use crate::store::StoreError;

/// A pooled connection in use. It goes back to the pool only by [`give_back`](Self::give_back), after its work came to
/// a clean end; dropped in any other way it is closed, so that the server ends the transaction and frees the rows at
/// once, and nobody inherits a half-used connection.
pub(super) struct Session(Option<PostgresConnection>);

impl Session {
    pub(super) fn new(connection: PostgresConnection) -> Self {
        Self(Some(connection))
    }

    pub(super) fn client(&self) -> &ClientWrapper {
        self.connection()
    }

    /// Returns itself, unless its server takes no writes.
    pub(super) fn for_writing(self) -> Result<Self, StoreError> {
        match self.connection().writable() {
            Ok(()) => Ok(self),
            Err(error) => {
                self.give_back();
                Err(error)
            }
        }
    }

    /// Says whether its server knows a limit for whole transactions.
    pub(super) fn limits_transactions(&self) -> bool {
        self.connection().limits_transactions()
    }

    /// Says whether nobody is in between.
    pub(super) fn is_direct(&self) -> bool {
        self.connection().is_direct()
    }

    fn connection(&self) -> &PostgresConnection {
        self.0.as_ref().expect("only give_back and drop take the connection, and both end the session")
    }

    /// Runs `work`, which has been prepared on this session, in a transaction after `first`, and has the server end it `within`
    /// that time: whatever becomes of this relay, its statement does not go on for longer.
    ///
    /// The inner error is what the server said of `work`. There is no open transaction then, and the session can be given back.
    pub(super) async fn limited<T>(
        &self,
        doing: &str,
        within: Duration,
        first: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, StoreError> {
        let client = self.client();
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = '5s'; {first}",
            within.as_millis()
        );
        let all = async {
            let (began, done, ended) = join3(client.batch_execute(&begin), work, client.batch_execute("COMMIT")).await;
            // The first error is the reason of the others. A COMMIT ends a transaction that failed, too.
            match began.and(done) {
                Ok(done) => ended.map(|()| Ok(done)),
                Err(failure) => ended.map(|()| Err(failure)),
            }
        };
        in_time(doing, 2 * within, all).await
    }

    pub(super) fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(PostgresConnection::take(connection));
        }
    }
}

/// Waits for the server's answer, but not for ever: a stopped server acknowledges packets and never answers.
pub(super) async fn answer<T>(
    doing: &str,
    at_most: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    in_time(doing, at_most, work).await
}

/// Waits for an answer as [`answer`] does, whoever gives it.
pub(super) async fn in_time<T, F: Failure>(
    doing: &str,
    at_most: Duration,
    work: impl Future<Output = Result<T, F>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(at_most, work).await {
        Ok(answer) => answer.map_err(|failure| unavailable(doing, failure)),
        Err(_) => Err(no_answer(doing, at_most)),
    }
}
