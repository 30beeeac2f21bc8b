//! Bringing trees into the guest: from tar and cpio archives, and from directories of the host.

mod cpio;
#[cfg(test)]
mod cpio_tests;
mod extract;
mod host_tree;
mod member;
mod pax;
mod sparse;
mod stream;
mod tar;
mod tar_header;
#[cfg(test)]
mod tests;

pub(crate) use cpio::cpio_in;
pub(crate) use extract::UnpackOptions;
pub(crate) use host_tree::copy_in;
pub(crate) use tar::tar_in;
