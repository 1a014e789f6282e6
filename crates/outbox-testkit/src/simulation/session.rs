use std::sync::Mutex;

use gamemesh_outbox::store::Claim;

/// What the server keeps of a claim: as long as the session lives, so does the claim.
#[derive(Debug)]
pub(super) struct Session(Mutex<Option<Box<dyn Claim>>>);

impl Session {
    pub(super) fn new(claim: Box<dyn Claim>) -> Self {
        Self(Mutex::new(Some(claim)))
    }

    pub(super) fn take(&self) -> Option<Box<dyn Claim>> {
        self.0.lock().expect("no code panics while it holds the lock").take()
    }

    pub(super) fn put_back(&self, claim: Box<dyn Claim>) {
        *self.0.lock().expect("no code panics while it holds the lock") = Some(claim);
    }

    /// Ends it, which gives its rows back; says whether there was one.
    pub(super) fn end(&self) -> bool {
        self.take().is_some()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.0.lock().expect("no code panics while it holds the lock").is_some()
    }
}
