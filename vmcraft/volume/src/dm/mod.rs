//! What the targets of the Linux device mapper do: tables of pieces, stripes, mirrors, snapshots, thin pools, caches.

mod linear;
mod persistent;
pub mod snapshot;
mod striped;
pub mod thin;

pub use linear::{Content, Linear, Piece};
pub use striped::{Column, Striped};
