//! Recognising an image's format by its content.

use std::io;

use super::Format;
use crate::storage::Storage;

/// How much of the start is looked at.
const START: usize = 2048;

/// A format's mark at a fixed place of the start.
struct Magic {
    offset: usize,
    bytes: &'static [u8],
    format: &'static str,
}

const fn magic(offset: usize, bytes: &'static [u8], format: &'static str) -> Magic {
    Magic { offset, bytes, format }
}

/// What the formats begin with. The names are QEMU's.
///
/// LUKS is not among them: a disk that is encrypted as a whole is a raw disk, whose content is
/// unlocked above this layer.
///
/// qcow and qcow2 are told apart by their version; a fixed VHD and a DMG have their mark at the end.
const MAGICS: &[Magic] = &[
    magic(0, b"KDMV", "vmdk"),
    magic(0, b"COWD", "vmdk"),
    magic(0, b"# Disk DescriptorFile", "vmdk"),
    magic(0, b"conectix", "vpc"),
    magic(0, b"vhdxfile", "vhdx"),
    magic(0x40, &[0x7f, 0x10, 0xda, 0xbe], "vdi"),
    magic(0, b"QED\0", "qed"),
    magic(0, b"WithoutFreeSpace", "parallels"),
    magic(0, b"WithouFreSpacExt", "parallels"),
    magic(0, b"Bochs Virtual HD Image", "bochs"),
    magic(0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
];

/// The length of the trailers that are looked for: a VHD's footer and a DMG's.
const TRAILER: usize = 512;

/// The format that the content says. `None`: it says none, so it may be raw.
pub(super) fn probe(storage: &dyn Storage) -> io::Result<Option<Format>> {
    let mut start = [0; START];
    let read = storage.read_at(0, &mut start)?;
    let start = &start[..read];
    if let Some(format) = probe_start(start) {
        return Ok(Some(format));
    }
    let len = storage.size()?;
    if len >= TRAILER as u64 {
        let mut end = [0; TRAILER];
        let read = storage.read_at(len - TRAILER as u64, &mut end)?;
        if read == TRAILER && end.starts_with(b"koly") {
            return Ok(Some(Format::ViaQemu("dmg".into())));
        }
        // The footer of old Virtual PC has one byte less, so the mark is a byte later.
        if read == TRAILER && (end.starts_with(b"conectix") || end[1..].starts_with(b"conectix")) {
            return Ok(Some(Format::ViaQemu("vpc".into())));
        }
    }
    Ok(None)
}

fn probe_start(start: &[u8]) -> Option<Format> {
    if start.starts_with(b"QFI\xfb") {
        return Some(match start.get(4..8) {
            Some([0, 0, 0, 1]) => Format::ViaQemu("qcow".into()),
            _ => Format::Qcow2,
        });
    }
    MAGICS
        .iter()
        .find(|magic| start.get(magic.offset..).is_some_and(|at| at.starts_with(magic.bytes)))
        .map(|magic| Format::ViaQemu(magic.format.into()))
}
