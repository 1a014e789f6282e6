//! The program as a process: what it prints, serves and returns.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

mod admin;
mod browser;
mod chaos;
mod charge;
mod configuration;
mod dead_letters;
mod delivery;
mod deployment;
mod doctor;
mod documents;
mod earlier;
mod emit;
mod encodings;
mod help;
mod history;
mod hostile;
mod interop;
mod log;
mod migrate;
mod monitoring;
mod nats_logins;
mod nats_troubles;
mod otlp;
mod outbox;
mod places;
mod probe;
mod program;
mod relay;
mod roles;
mod rotation;
mod sandbox;
mod secrets;
mod serving;
mod signals;
mod status;
mod tls;
mod verdict;
