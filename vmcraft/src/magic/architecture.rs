//! The architecture that a file's code is for.

use std::io::{self, BufRead, BufReader, Read};

use super::{HEAD_LEN, known};
use crate::decompress::Kind;
use crate::inspect::arch::elf_architecture;

/// How many archives, one after the other, an initial RAM disk may have.
const MAX_ARCHIVES: usize = 16;

/// How many entries of archives are looked at.
const MAX_ENTRIES: usize = 1_000_000;

/// How much of an entry is looked at.
const ENTRY_HEAD: usize = 64;

/// How often compressed content may hold compressed content.
const MAX_NESTING: u32 = 3;

/// The architecture of a program, library, kernel or kernel module, or of the first program in an
/// initial RAM disk, compressed or not. `None` if the content says none.
///
/// The names are libguestfs's.
pub(crate) fn detect(content: &mut dyn BufRead, nesting: u32) -> io::Result<Option<String>> {
    let start = content.fill_buf()?;
    if let Some(kind) = Kind::detect(start) {
        if nesting >= MAX_NESTING {
            return Ok(None);
        }
        let mut inner = BufReader::with_capacity(HEAD_LEN, kind.decoder(content)?);
        return detect(&mut inner, nesting + 1);
    }
    if start.starts_with(b"070701") || start.starts_with(b"070702") {
        return in_archives(content, nesting);
    }
    let mut head = Vec::new();
    content.take(HEAD_LEN as u64).read_to_end(&mut head)?;
    Ok(elf_architecture(&head).or_else(|| known::architecture(&head).map(str::to_owned)))
}

/// The architecture of the first program in cpio archives that follow each other, as a processor's
/// microcode and the RAM disk proper do.
///
/// Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.
fn in_archives(content: &mut dyn BufRead, nesting: u32) -> io::Result<Option<String>> {
    let mut archives = 0;
    for _ in 0..MAX_ENTRIES {
        let mut header = [0; 110];
        content.read_exact(&mut header)?;
        // After the magic number, 13 fields of 8 hexadecimal digits.
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).ok()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let (Some(mode), Some(size), Some(name_len)) = (field(1), field(6), field(11)) else {
            return Ok(None);
        };
        if !header.starts_with(b"07070") || name_len == 0 || name_len > 4096 {
            return Ok(None);
        }
        let mut name = Vec::new();
        content.take(name_len).read_to_end(&mut name)?;
        // Header and name together, and the content, are padded to 4 bytes.
        skip(content, (110 + name_len).next_multiple_of(4) - 110 - name_len)?;
        let mut head = Vec::new();
        content.take(size.min(ENTRY_HEAD as u64)).read_to_end(&mut head)?;
        if mode & 0o170_000 == 0o100_000
            && let Some(found) = elf_architecture(&head)
        {
            return Ok(Some(found));
        }
        skip(content, size.next_multiple_of(4) - head.len() as u64)?;
        if name == b"TRAILER!!!\0" {
            archives += 1;
            skip_zeros(content)?;
            let next = content.fill_buf()?;
            if next.is_empty() || archives >= MAX_ARCHIVES {
                return Ok(None);
            }
            if !next.starts_with(b"07070") {
                return if nesting < MAX_NESTING { detect(content, nesting + 1) } else { Ok(None) };
            }
        }
    }
    Ok(None)
}

fn skip(content: &mut dyn BufRead, len: u64) -> io::Result<()> {
    io::copy(&mut content.take(len), &mut io::sink()).map(drop)
}

fn skip_zeros(content: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buf = content.fill_buf()?;
        let zeros = buf.iter().take_while(|byte| **byte == 0).count();
        if zeros == 0 {
            return Ok(());
        }
        content.consume(zeros);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn of(content: &[u8]) -> Option<String> {
        detect(&mut BufReader::with_capacity(HEAD_LEN, content), 0).unwrap()
    }

    fn shell(script: &str, dir: &Path) -> Vec<u8> {
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(dir)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}");
        output.stdout
    }

    fn own() -> String {
        if std::env::consts::ARCH == "x86" { "i386".into() } else { std::env::consts::ARCH.to_owned() }
    }

    #[test] // Microcode first, uncompressed, then the RAM disk proper: as Debian and Fedora build them.
    fn initial_ram_disks_are_searched() {
        for tool in ["cpio", "gzip", "xz", "zstd"] {
            testkit::require(tool);
        }
        let dir = testkit::tempdir();
        std::fs::create_dir_all(dir.path().join("kernel/x86")).unwrap();
        std::fs::write(dir.path().join("kernel/x86/microcode.bin"), [7; 1000]).unwrap();
        std::fs::create_dir_all(dir.path().join("main/bin")).unwrap();
        std::fs::write(dir.path().join("main/a-script"), "#!/bin/sh\n").unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), dir.path().join("main/bin/program")).unwrap();
        let early = shell("find kernel | cpio -o -H newc --quiet", dir.path());
        let main = "cd main; find . | cpio -o -H newc --quiet";
        assert_eq!(of(&early), None);
        for compress in ["cat", "gzip -1", "xz -0 --check=crc32", "zstd -q -1"] {
            let main = shell(&format!("({main}) | {compress}"), dir.path());
            assert_eq!(of(&main), Some(own()), "{compress}");
            let both = [&early[..], &[0; 512], &main].concat();
            assert_eq!(of(&both), Some(own()), "{compress} after microcode");
            // Cut anywhere, it is an error or nothing, and no panic.
            for len in (0..early.len()).step_by(101) {
                let _ = detect(&mut BufReader::new(&both[..len]), 0);
            }
        }
    }

    #[test]
    fn kernels_and_windows_programs_are_known() {
        let mut kernel = vec![0; 0x300];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        assert_eq!(of(&kernel).as_deref(), Some("i386"));
        kernel[0x236] = 1;
        assert_eq!(of(&kernel).as_deref(), Some("x86_64"));
        let mut program = b"MZ".to_vec();
        program.resize(0x80, 0);
        program[0x3c] = 0x80;
        program.extend(b"PE\0\0\x64\x86");
        assert_eq!(of(&program).as_deref(), Some("x86_64"));
        program[0x3f] = 0xff;
        assert_eq!(of(&program), None);
        assert_eq!(of(b"#!/bin/sh\n"), None);
        assert_eq!(of(b""), None);
    }
}
