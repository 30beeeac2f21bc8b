//! The calls, a module an area. `#[api]` makes each module's `CALLS`.

mod archives;
pub(crate) mod arrays;
mod attributes;
mod checksums;
mod customize;
mod device_data;
mod devices;
pub(crate) mod directories;
mod disk_create;
mod drives;
mod dynamic;
mod encrypted;
mod file_flags;
mod files;
mod filesystems;
pub(crate) mod handle;
mod inspection;
mod kinds;
pub(crate) mod lvm;
mod making;
pub(crate) mod metadata;
mod mounts;
pub(crate) mod partitioning;
pub(crate) mod partitions;
mod removing;
mod settings;
mod signatures;
mod swap;
mod text;
mod transfer;
mod tuning;
mod unpacking;
mod uploads;
mod volumes;
pub(crate) mod writing;
pub(crate) mod xattrs;

pub(crate) use self::metadata::device_number;
use crate::call::Call;

/// All calls, in the order of the manual.
pub(crate) const AREAS: &[&[Call]] = &[
    handle::CALLS,
    drives::CALLS,
    disk_create::CALLS,
    settings::CALLS,
    devices::CALLS,
    device_data::CALLS,
    partitions::CALLS,
    partitioning::CALLS,
    volumes::CALLS,
    arrays::CALLS,
    dynamic::CALLS,
    encrypted::CALLS,
    lvm::physical_volumes::CALLS,
    lvm::volume_groups::CALLS,
    lvm::logical_volumes::CALLS,
    lvm::activation::CALLS,
    signatures::CALLS,
    filesystems::CALLS,
    tuning::CALLS,
    swap::CALLS,
    mounts::CALLS,
    directories::CALLS,
    metadata::CALLS,
    xattrs::CALLS,
    files::CALLS,
    writing::CALLS,
    making::CALLS,
    removing::CALLS,
    attributes::CALLS,
    file_flags::CALLS,
    kinds::CALLS,
    text::CALLS,
    checksums::CALLS,
    transfer::CALLS,
    uploads::CALLS,
    archives::CALLS,
    unpacking::CALLS,
    customize::CALLS,
    inspection::CALLS,
];
