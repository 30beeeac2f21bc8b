//! The driver against the kernel's own, and against images made to break it.

mod blocks;
mod conformance;
mod corpus;
mod features;
mod hostile;
mod journal;
mod kernel;
mod mkfs;
mod refused;
mod sample;
mod tree;
