//! The conformance checks, checked.

mod conformance;
mod memory;
