//! The commands.

pub(crate) mod bench;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod emit;
pub(crate) mod migrate;
pub(crate) mod run;
pub(crate) mod status;
