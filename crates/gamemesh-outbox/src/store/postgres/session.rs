use std::future::Future;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};
use tokio_postgres::Error;

use super::error::{Failure, no_answer, unavailable};
use crate::store::StoreError;

/// A pooled connection in use. It goes back to the pool only by [`give_back`](Self::give_back), after its work came to
/// a clean end; dropped in any other way it is closed, so that the server ends the transaction and frees the rows at
/// once, and nobody inherits a half-used connection.
pub(super) struct Session(Option<Object>);

impl Session {
    pub(super) fn new(connection: Object) -> Self {
        Self(Some(connection))
    }

    pub(super) fn client(&self) -> &ClientWrapper {
        self.0.as_ref().expect("only give_back and drop take the connection, and both end the session")
    }

    pub(super) fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
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
