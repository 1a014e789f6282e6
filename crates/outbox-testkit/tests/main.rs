//! Behaviour of the library against real servers and scripted faults.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

mod bus;
mod checker;
mod dead_letters;
mod history;
mod migrations;
mod postgres;
mod relay;
mod sqlite;
mod stores;
mod tracing;
