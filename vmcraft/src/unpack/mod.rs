//! Bringing trees into the guest: from tar and cpio archives, and from directories of the host.

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

pub(crate) use extract::UnpackOptions;
pub(crate) use host_tree::copy_in;
pub(crate) use tar::tar_in;
