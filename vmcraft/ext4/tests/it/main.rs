//! The driver against the kernel's own, and against images made to break it.

mod attributes;
mod blocks;
mod conformance;
mod content_write;
mod corpus;
mod features;
mod hostile;
mod hostile_write;
mod htree_write;
mod journal;
mod kernel;
mod mkfs;
mod model;
mod namespace;
mod operations;
mod random;
mod recovery;
mod refused;
mod rename;
mod sample;
mod scratch;
mod tree;
mod trim;
mod tune;
mod unwritable;
mod xattr_write;
