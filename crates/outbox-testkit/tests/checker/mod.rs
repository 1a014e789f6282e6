//! The checker, on histories made by hand: one that is good, and what breaks each promise.

mod allowed;
mod broken;
mod find;
mod good;
mod story;
