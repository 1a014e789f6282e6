//! Behaviour of the library against real servers and scripted faults.

mod relay;
mod tracing;
