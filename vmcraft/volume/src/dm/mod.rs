//! What the targets of the Linux device mapper do: tables of pieces, stripes, mirrors, snapshots, thin pools, caches.

pub mod cache;
mod linear;
pub mod mirror;
mod persistent;
mod read_only;
pub mod snapshot;
mod striped;
pub mod thin;

pub(crate) use linear::write_zeroes;
pub use linear::{Content, Linear, Piece};
pub(crate) use read_only::ReadOnly;
pub use striped::{Column, Striped};
