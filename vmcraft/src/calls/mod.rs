//! The calls, a module an area. `#[api]` makes each module's `CALLS`.

mod archives;
mod checksums;
mod devices;
mod directories;
mod drives;
mod files;
mod inspection;
mod metadata;
mod mounts;
mod partitions;
mod settings;
mod text;
mod transfer;
mod xattrs;

use crate::call::Call;

/// All calls, in the order of the manual.
pub(crate) const AREAS: &[&[Call]] = &[
    drives::CALLS,
    settings::CALLS,
    devices::CALLS,
    partitions::CALLS,
    mounts::CALLS,
    directories::CALLS,
    metadata::CALLS,
    xattrs::CALLS,
    files::CALLS,
    text::CALLS,
    checksums::CALLS,
    transfer::CALLS,
    archives::CALLS,
    inspection::CALLS,
];
