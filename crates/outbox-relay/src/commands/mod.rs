//! The commands.

pub(crate) mod bench;
pub(crate) mod check_config;
pub(crate) mod dead_letters;
#[cfg(feature = "sqlite")]
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod emit;
pub(crate) mod health;
pub(crate) mod migrate;
pub(crate) mod run;
mod running;
pub(crate) mod status;
