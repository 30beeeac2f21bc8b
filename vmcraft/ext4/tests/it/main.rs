//! The driver against the kernel's own, and against images made to break it.

mod corpus;
mod features;
mod journal;
mod kernel;
mod tree;
