//! Binary formats that are known by their first bytes.

use bstr::ByteSlice;

use super::{ReadAt, u16_at, u32_at};
use crate::decompress::Kind;

/// The description of a known format, `None` for anything else.
pub(super) fn describe(head: &[u8], read_at: &ReadAt<'_>) -> Option<String> {
    compressed(head).or_else(|| archive(head)).or_else(|| image(head)).or_else(|| system(head, read_at))
}

/// What compressed content is, by itself.
fn compressed(head: &[u8]) -> Option<String> {
    Some(match Kind::detect(head)? {
        Kind::Gzip => gzip(head),
        Kind::Bzip2 => {
            format!("bzip2 compressed data, block size = {}00k", char::from(*head.get(3)?))
        }
        Kind::Xz => {
            let check = match head.get(7)? {
                1 => ", checksum CRC32",
                4 => ", checksum CRC64",
                10 => ", checksum SHA-256",
                _ => "",
            };
            format!("XZ compressed data{check}")
        }
        Kind::Zstd => "Zstandard compressed data (v0.8+), Dictionary ID: None".into(),
        Kind::Compress => format!("compress'd data {} bits", head.get(2)? & 0x1f),
        Kind::Lz4 if head[0] == 2 => "LZ4 compressed data (v0.1-v0.9)".into(),
        Kind::Lz4 => "LZ4 compressed data (v1.4+)".into(),
    })
}

/// Spec: RFC 1952.
fn gzip(head: &[u8]) -> String {
    let mut text = String::from("gzip compressed data");
    let flags = head.get(3).copied().unwrap_or(0);
    if flags & 8 != 0 && flags & 4 == 0 {
        let name = head.get(10..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
        let name = &name[..name.len().min(255)];
        text.push_str(&format!(", was \"{}\"", name.to_str_lossy()));
    }
    if let Some(seconds) = u32_at(head, 4).filter(|seconds| *seconds != 0)
        && let Ok(moment) = jiff::Timestamp::from_second(seconds.into())
    {
        let date = jiff::tz::TimeZone::UTC.to_datetime(moment);
        text.push_str(&date.strftime(", last modified: %a %b %e %H:%M:%S %Y").to_string());
    }
    text.push_str(match head.get(8) {
        Some(2) => ", max compression",
        Some(4) => ", max speed",
        _ => "",
    });
    text.push_str(match head.get(9) {
        Some(0) => ", from FAT filesystem (MS-DOS, OS/2, NT)",
        Some(3) => ", from Unix",
        Some(10) => ", from NTFS filesystem (NT)",
        _ => "",
    });
    text
}

fn archive(head: &[u8]) -> Option<String> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    Some(match head {
        _ if at(257, b"ustar  \0") => "POSIX tar archive (GNU)".into(),
        _ if at(257, b"ustar\0") => "POSIX tar archive".into(),
        _ if starts(b"070701") => "ASCII cpio archive (SVR4 with no CRC)".into(),
        _ if starts(b"070702") => "ASCII cpio archive (SVR4 with CRC)".into(),
        _ if starts(b"070707") => "ASCII cpio archive (pre-SVR4 or odc)".into(),
        _ if starts(b"!<arch>\ndebian-binary") => "Debian binary package (format 2.0)".into(),
        _ if starts(b"!<arch>\n") => "current ar archive".into(),
        _ if starts(b"PK\x03\x04") => zip(head)?,
        _ if starts(b"PK\x05\x06") => "Zip archive data (empty)".into(),
        _ if starts(b"7z\xbc\xaf\x27\x1c") => {
            format!("7-zip archive data, version {}.{}", head.get(6)?, head.get(7)?)
        }
        _ if starts(b"\xed\xab\xee\xdb") => {
            let kind = if u16_at(head, 6)? == 0 { "bin" } else { "src" };
            format!("RPM v{}.{} {kind}", head.get(4)?, head.get(5)?)
        }
        _ => return None,
    })
}

/// Spec: PKWARE APPNOTE, 4.3.7.
fn zip(head: &[u8]) -> Option<String> {
    let version = u16_at(head, 4)?;
    let method = match u16_at(head, 8)? {
        0 => "store",
        8 => "deflate",
        12 => "bzip2",
        14 => "lzma",
        _ => "unknown",
    };
    let (major, minor) = (version / 10, version % 10);
    Some(format!("Zip archive data, at least v{major}.{minor} to extract, compression method={method}"))
}

fn image(head: &[u8]) -> Option<String> {
    let be32 = |offset: usize| Some(u32::from_be_bytes(*head.get(offset..)?.first_chunk()?));
    Some(match head {
        [b'G', b'I', b'F', b'8', version @ (b'7' | b'9'), b'a', ..] => format!(
            "GIF image data, version 8{}a, {} x {}",
            char::from(*version),
            u16_at(head, 6)?,
            u16_at(head, 8)?
        ),
        _ if head.starts_with(b"\x89PNG\r\n\x1a\n") => {
            let colour = match head.get(25)? {
                0 => "grayscale",
                2 => "/color RGB",
                3 => " colormap",
                4 => "gray+alpha",
                6 => "/color RGBA",
                _ => "",
            };
            let depth = head.get(24)?;
            let space = if colour.starts_with(['/', ' ']) { "" } else { " " };
            let lace = if *head.get(28)? == 0 { "non-interlaced" } else { "interlaced" };
            let (width, height) = (be32(16)?, be32(20)?);
            format!("PNG image data, {width} x {height}, {depth}-bit{space}{colour}, {lace}")
        }
        [0xff, 0xd8, 0xff, ..] => "JPEG image data".into(),
        [b'%', b'P', b'D', b'F', b'-', major, b'.', minor, ..] => {
            format!("PDF document, version {}.{}", char::from(*major), char::from(*minor))
        }
        [b'B', b'M', ..] if u32_at(head, 14)? == 40 => {
            let (width, height) = (u32_at(head, 18)?, u32_at(head, 22)?);
            format!("PC bitmap, Windows 3.x format, {width} x {height} x {}", u16_at(head, 28)?)
        }
        _ => return None,
    })
}

/// What systems are made of: kernels, Windows programs, databases, disk images.
fn system(head: &[u8], read_at: &ReadAt<'_>) -> Option<String> {
    Some(match head {
        _ if head.get(0x202..0x206) == Some(b"HdrS") => bzimage(head, read_at),
        [b'M', b'Z', ..] => windows_program(head).unwrap_or_else(|| "MS-DOS executable".into()),
        _ if head.starts_with(b"SQLite format 3\0") => "SQLite 3.x database".into(),
        _ if head.starts_with(b"regf") => "MS Windows registry file, NT/2000 or above".into(),
        [b'Q', b'F', b'I', 0xfb, ..] => {
            let version = u32::from_be_bytes(*head.get(4..)?.first_chunk()?);
            let size = u64::from_be_bytes(*head.get(24..)?.first_chunk()?);
            format!("QEMU QCOW Image (v{version}), {size} bytes")
        }
        _ if head.starts_with(b"hsqs") => "Squashfs filesystem, little endian".into(),
        _ if head.starts_with(b"LUKS\xba\xbe") => {
            format!("LUKS encrypted file, ver {}", head.get(7)?)
        }
        [0xca, 0xfe, 0xba, 0xbe, _, _, _, major @ 45..=99, ..] => {
            format!("compiled Java class data, version {major}.0")
        }
        _ if u16_at(head, 0x438) == Some(0xef53) => "Linux ext2/3/4 filesystem data".into(),
        _ if u16_at(head, 510) == Some(0xaa55) => "DOS/MBR boot sector".into(),
        _ => return None,
    })
}

/// Spec: Linux `Documentation/arch/x86/boot.rst`.
fn bzimage(head: &[u8], read_at: &ReadAt<'_>) -> String {
    let mut text = String::from("Linux kernel x86 boot executable bzImage");
    if let Some(offset) = u16_at(head, 0x20e).filter(|offset| *offset != 0) {
        let version = read_at(u64::from(offset) + 0x200, 256);
        let version = version.split(|byte| *byte == 0).next().unwrap_or_default();
        text.push_str(&format!(", version {}", version.to_str_lossy()));
    }
    text
}

/// Spec: Microsoft "PE Format".
fn windows_program(head: &[u8]) -> Option<String> {
    let header = usize::try_from(u32_at(head, 0x3c)?).ok()?;
    let pe = head.get(header..)?.strip_prefix(b"PE\0\0")?;
    let bits = match u16_at(pe, 20)? {
        0x10b => "PE32",
        0x20b => "PE32+",
        _ => return None,
    };
    let is_library = u16_at(pe, 18)? & 0x2000 != 0;
    let kind = if is_library { "executable (DLL)" } else { "executable" };
    let subsystem = match u16_at(pe, 20 + 68)? {
        1 => " (native)",
        2 => " (GUI)",
        3 => " (console)",
        10..=13 => " (EFI application)",
        _ => "",
    };
    let machine = match machine(pe)? {
        "i386" => "Intel 80386",
        "x86_64" => "x86-64",
        "aarch64" => "Aarch64",
        other => other,
    };
    Some(format!("{bits} {kind}{subsystem} {machine}, for MS Windows"))
}

/// libguestfs's name for the machine of a Windows program, after its signature.
fn machine(pe: &[u8]) -> Option<&'static str> {
    Some(match u16_at(pe, 0)? {
        0x014c => "i386",
        0x8664 => "x86_64",
        0xaa64 => "aarch64",
        0x01c0 | 0x01c4 => "arm",
        0x0200 => "ia64",
        0x5032 => "riscv32",
        0x5064 => "riscv64",
        0x6264 => "loongarch64",
        _ => return None,
    })
}

/// The architecture of a Windows program or EFI application, or of an x86 Linux kernel.
pub(crate) fn architecture(head: &[u8]) -> Option<&'static str> {
    if head.get(0x202..0x206) == Some(b"HdrS") {
        // Boot protocol 2.12 has a flag for kernels of 64 bits.
        let is_64 = u16_at(head, 0x206)? >= 0x020c && u16_at(head, 0x236)? & 1 == 1;
        return Some(if is_64 { "x86_64" } else { "i386" });
    }
    if !head.starts_with(b"MZ") {
        return None;
    }
    let header = usize::try_from(u32_at(head, 0x3c)?).ok()?;
    machine(head.get(header..)?.strip_prefix(b"PE\0\0")?)
}
