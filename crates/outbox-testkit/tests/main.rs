//! Behaviour of the library against real servers and scripted faults.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

mod bus;
mod checker;
mod claims;
mod dead_letters;
mod encodings;
mod history;
mod migrations;
mod outbox_publish;
mod panics;
mod places;
mod postgres;
mod readers;
mod relay;
mod routes;
mod running;
mod settling_slowly;
mod sqlite;
mod stores;
mod tracing;
mod unwritten;
mod waiting;
