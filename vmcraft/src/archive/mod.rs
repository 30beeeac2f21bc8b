//! Writing trees as archives: GNU tar's, POSIX's and cpio's formats, and compression of any stream.

mod compress;
mod cpio;
mod exclude;
mod output;
mod tar;
mod tar_header;

pub(crate) use compress::{Compression, compress};
pub(crate) use cpio::{Format as CpioFormat, cpio_out};
pub(crate) use tar::{TarOptions, tar_out};
