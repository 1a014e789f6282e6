//! What an event costs, counted and not timed: statements, blocks, WAL and rows in the database, instructions in the relay.
//! Such figures are the same on a busy machine, so that a clear regression fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

mod bad_tables;
mod database;
mod instructions;
mod outbox;
mod reference;
