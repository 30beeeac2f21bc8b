//! End-to-end tests: the binary as a user runs it.

mod guestfish;
mod support;
