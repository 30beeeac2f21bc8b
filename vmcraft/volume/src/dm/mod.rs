//! What the targets of the Linux device mapper do: tables of pieces, stripes, mirrors, snapshots, thin pools, caches.

pub mod cache;
mod linear;
pub mod mirror;
mod persistent;
pub mod snapshot;
mod striped;
pub mod thin;

pub(crate) use linear::write_zeroes;
pub use linear::{Content, Linear, Piece};
pub use striped::{Column, Striped};
