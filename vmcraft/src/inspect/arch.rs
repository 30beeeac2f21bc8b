//! The architecture of a guest, from the header of a program in it.
//!
//! Spec: the ELF header of the System V ABI; `e_machine` numbers from its registry. The names are
//! libguestfs's.

use super::tree::Tree;

/// Programs that nearly every Linux guest has, in the order that libguestfs tries them.
const PROGRAMS: &[&str] = &["/bin/bash", "/bin/ls", "/bin/echo", "/bin/rm", "/bin/sh", "/bin/busybox"];

/// How much of a program is read: the part of the ELF header that both classes share.
const HEADER_LEN: usize = 20;

/// The architecture of the guest's own programs.
pub(crate) fn detect(tree: &Tree) -> Option<String> {
    let own = PROGRAMS.iter().find_map(|path| elf_architecture(&tree.read_at(path, 0, HEADER_LEN)?));
    // The shell of NixOS and of images without one is a link into a store: look at init itself.
    own.or_else(|| elf_architecture(&tree.read_at("/sbin/init", 0, HEADER_LEN)?))
}

/// The architecture that an ELF file is for. `None` if it is not ELF, or for a machine without a
/// name here.
pub(crate) fn elf_architecture(header: &[u8]) -> Option<String> {
    let header: &[u8; HEADER_LEN] = header.first_chunk()?;
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let bits = match header[4] {
        1 => 32,
        2 => 64,
        _ => return None,
    };
    let is_big_endian = match header[5] {
        1 => false,
        2 => true,
        _ => return None,
    };
    let machine = [header[18], header[19]];
    let machine = if is_big_endian { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let name = match (machine, bits) {
        (2 | 18, _) => "sparc",
        (3 | 6, _) => "i386",
        (8, 32) if is_big_endian => "mips",
        (8, 32) => "mipsel",
        (8, _) if is_big_endian => "mips64",
        (8, _) => "mips64el",
        (15, _) => "parisc",
        (20, _) => "ppc",
        (21, _) if is_big_endian => "ppc64",
        (21, _) => "ppc64le",
        (22, 32) => "s390",
        (22, _) => "s390x",
        (40, _) => "arm",
        (42, _) => "sh4",
        (43, _) => "sparc64",
        (50, _) => "ia64",
        (62, _) => "x86_64",
        (183, _) => "aarch64",
        (243, 32) => "riscv32",
        (243, _) => "riscv64",
        (258, _) => "loongarch64",
        (0x9026, _) => "alpha",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header as far as it is looked at.
    fn header(class: u8, data: u8, machine: u16) -> Vec<u8> {
        let mut header = b"\x7fELF".to_vec();
        header.extend([class, data, 1]);
        header.resize(18, 0);
        header.extend(if data == 2 { machine.to_be_bytes() } else { machine.to_le_bytes() });
        header
    }

    #[test] // Byte order and word size decide where one machine number stands for several names.
    fn machines_have_libguestfs_names() {
        for (class, data, machine, name) in [
            (2, 1, 62, "x86_64"),
            (1, 1, 62, "x86_64"),
            (1, 1, 3, "i386"),
            (2, 1, 183, "aarch64"),
            (1, 1, 40, "arm"),
            (2, 2, 21, "ppc64"),
            (2, 1, 21, "ppc64le"),
            (2, 2, 22, "s390x"),
            (1, 2, 22, "s390"),
            (2, 1, 243, "riscv64"),
        ] {
            assert_eq!(elf_architecture(&header(class, data, machine)).as_deref(), Some(name));
        }
        assert_eq!(elf_architecture(&header(3, 1, 62)), None);
        assert_eq!(elf_architecture(&header(2, 1, 62)[..19]), None);
        assert_eq!(elf_architecture(b"#!/bin/sh and some more"), None);
    }

    #[test] // The header of a program that this machine runs.
    fn own_program_is_recognised() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let name = if std::env::consts::ARCH == "x86" { "i386" } else { std::env::consts::ARCH };
        assert_eq!(elf_architecture(&program).as_deref(), Some(name));
    }
}
