//! The program as a process: what it prints, serves and returns.

mod configuration;
mod emit;
mod help;
mod migrate;
mod program;
mod relay;
mod secrets;
mod serving;
