//! Programs and libraries: ELF.
//!
//! Spec: System V ABI, "Object Files", and the Linux extensions for notes.

use super::ReadAt;

/// The most entries of a table of headers that are looked at.
const MAX_HEADERS: u16 = 2048;

/// The most bytes of a string or of notes that are looked at.
const MAX_PART: usize = 4096;

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const SHT_SYMTAB: u32 = 2;

/// A number's place in a header: its offset and length in bytes.
type Place = (usize, usize);

/// Reads numbers as the file stores them.
struct Numbers {
    is_64: bool,
    is_big_endian: bool,
}

impl Numbers {
    /// The number at `narrow` in files of 32 bits, and at `wide` in those of 64.
    fn get(&self, bytes: &[u8], narrow: Place, wide: Place) -> Option<u64> {
        let (offset, len) = if self.is_64 { wide } else { narrow };
        let bytes = bytes.get(offset..offset.checked_add(len)?)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.is_big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }

    fn same(&self, bytes: &[u8], place: Place) -> Option<u64> {
        self.get(bytes, place, place)
    }
}

/// The description of an ELF file, `None` for anything else.
pub(super) fn describe(head: &[u8], read_at: &ReadAt<'_>) -> Option<String> {
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        return None;
    }
    let numbers = Numbers { is_64: head[4] == 2, is_big_endian: head[5] == 2 };
    let file_type = numbers.same(head, (16, 2))?;
    let machine = numbers.same(head, (18, 2))?;
    let start = format!(
        "ELF {} {} ",
        match head[4] {
            1 => "32-bit",
            2 => "64-bit",
            _ => "invalid class",
        },
        match head[5] {
            1 => "LSB",
            2 => "MSB",
            _ => "invalid byte order",
        }
    );
    let end = format!(
        ", {}, version {} ({})",
        machine_name(machine, numbers.is_64),
        numbers.same(head, (20, 4)).unwrap_or(0),
        abi(head[7]),
    );
    let link = Link::read(&numbers, head, read_at);
    let kind = match file_type {
        1 => "relocatable",
        2 => "executable",
        3 if link.as_ref().is_some_and(|link| link.is_pie) => "pie executable",
        3 => "shared object",
        4 => "core file",
        _ => "unknown type",
    };
    let mut text = format!("{start}{kind}{end}");
    if let Some(link) = link {
        link.add_to(file_type, &mut text);
        match symbols(&numbers, head, read_at) {
            Some(Symbols { is_stripped, has_debug_info }) => {
                if has_debug_info {
                    text.push_str(", with debug_info");
                }
                text.push_str(if is_stripped { ", stripped" } else { ", not stripped" });
            }
            None => text.push_str(", no section header"),
        }
    }
    Some(text)
}

fn machine_name(machine: u64, is_64: bool) -> String {
    match machine {
        2 => "SPARC",
        3 => "Intel 80386",
        8 => "MIPS",
        20 => "PowerPC or cisco 4500",
        21 => "64-bit PowerPC or cisco 7500",
        22 => "IBM S/390",
        40 => "ARM",
        43 => "SPARC V9",
        50 => "IA-64",
        62 => "x86-64",
        183 => "ARM aarch64",
        243 => "UCB RISC-V",
        258 if is_64 => "LoongArch",
        other => return format!("*unknown arch {other:#x}*"),
    }
    .to_owned()
}

fn abi(number: u8) -> &'static str {
    match number {
        0 => "SYSV",
        3 => "GNU/Linux",
        6 => "Solaris",
        9 => "FreeBSD",
        12 => "OpenBSD",
        97 => "ARM",
        255 => "embedded",
        _ => "unknown",
    }
}

/// How a program is linked, from its program headers.
#[derive(Default)]
struct Link {
    is_dynamic: bool,
    is_pie: bool,
    interpreter: Option<String>,
    /// What the notes say, in their order.
    notes: Vec<String>,
}

impl Link {
    /// `None` if the headers are not all there.
    fn read(numbers: &Numbers, head: &[u8], read_at: &ReadAt<'_>) -> Option<Self> {
        let mut link = Self::default();
        let offset = numbers.get(head, (28, 4), (32, 8))?;
        let size = usize::try_from(numbers.get(head, (42, 2), (54, 2))?).ok()?;
        let count = numbers.get(head, (44, 2), (56, 2))?.min(MAX_HEADERS.into());
        for index in 0..count {
            let header = read_at(offset.checked_add(index * size as u64)?, size.min(64));
            let kind = u32::try_from(numbers.same(&header, (0, 4))?).ok()?;
            let at = numbers.get(&header, (4, 4), (8, 8))?;
            let len = numbers.get(&header, (16, 4), (32, 8))?;
            let part = || read_at(at, usize::try_from(len).map_or(MAX_PART, |len| len.min(MAX_PART)));
            match kind {
                PT_DYNAMIC => {
                    link.is_dynamic = true;
                    link.is_pie |= has_pie_flag(numbers, &part());
                }
                PT_INTERP => {
                    let name = part();
                    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                    link.interpreter = Some(String::from_utf8_lossy(name).into_owned());
                    link.is_pie |= numbers.same(head, (16, 2)) == Some(3) && is_program(head, numbers);
                }
                PT_NOTE => link.add_notes(numbers, &part()),
                _ => {}
            }
        }
        if count == 0 {
            link.add_section_notes(numbers, head, read_at);
        }
        Some(link)
    }

    fn add_notes(&mut self, numbers: &Numbers, mut notes: &[u8]) {
        while let Some((Note { name, kind, content }, rest)) = note(numbers, notes) {
            match (name, kind) {
                (b"GNU\0", 3) => {
                    let hash = match content.len() {
                        8 => "xxHash",
                        16 => "md5/uuid",
                        20 => "sha1",
                        _ => "unknown",
                    };
                    let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
                    self.notes.push(format!("BuildID[{hash}]={hex}"));
                }
                (b"GNU\0", 1) => {
                    let word = |index: usize| numbers.same(content, (index * 4, 4));
                    if let (Some(0), Some(a), Some(b), Some(c)) = (word(0), word(1), word(2), word(3)) {
                        self.notes.push(format!("for GNU/Linux {a}.{b}.{c}"));
                    }
                }
                _ => {}
            }
            notes = rest;
        }
    }

    /// The notes of a file without program headers, such as a kernel module.
    fn add_section_notes(&mut self, numbers: &Numbers, head: &[u8], read_at: &ReadAt<'_>) {
        const SHT_NOTE: u64 = 7;
        for section in sections(numbers, head, read_at).into_iter().flatten() {
            if numbers.same(&section, (4, 4)) == Some(SHT_NOTE)
                && let Some(at) = numbers.get(&section, (16, 4), (24, 8))
                && let Some(len) = numbers.get(&section, (20, 4), (32, 8))
            {
                let len = usize::try_from(len).map_or(MAX_PART, |len| len.min(MAX_PART));
                self.add_notes(numbers, &read_at(at, len));
            }
        }
    }

    fn add_to(&self, file_type: u64, text: &mut String) {
        if matches!(file_type, 2 | 3) {
            text.push_str(match (self.is_dynamic, &self.interpreter) {
                (true, None) if self.is_pie => ", static-pie linked",
                (true, _) => ", dynamically linked",
                (false, _) => ", statically linked",
            });
        }
        let interpreter = self.interpreter.as_ref().map(|name| format!("interpreter {name}"));
        for part in interpreter.iter().chain(&self.notes) {
            text.push_str(", ");
            text.push_str(part);
        }
    }
}

/// Whether a shared object with an interpreter is a program: those have an entry point.
fn is_program(head: &[u8], numbers: &Numbers) -> bool {
    // libc.so has both too, and is told by its ABI: only programs are plain System V.
    head[7] == 0 && numbers.get(head, (24, 4), (24, 8)).is_some_and(|entry| entry != 0)
}

/// Whether the dynamic section has the flag of a position-independent program (`DF_1_PIE`).
fn has_pie_flag(numbers: &Numbers, dynamic: &[u8]) -> bool {
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_PIE: u64 = 0x0800_0000;
    let size = if numbers.is_64 { 16 } else { 8 };
    dynamic.chunks_exact(size).any(|entry| {
        numbers.get(entry, (0, 4), (0, 8)) == Some(DT_FLAGS_1)
            && numbers.get(entry, (4, 4), (8, 8)).is_some_and(|flags| flags & DF_1_PIE != 0)
    })
}

struct Note<'n> {
    name: &'n [u8],
    kind: u64,
    content: &'n [u8],
}

/// The first note, and the notes after it.
fn note<'n>(numbers: &Numbers, notes: &'n [u8]) -> Option<(Note<'n>, &'n [u8])> {
    let len = |place| usize::try_from(numbers.same(notes, place)?).ok();
    let (name_len, content_len) = (len((0, 4))?, len((4, 4))?);
    let kind = numbers.same(notes, (8, 4))?;
    let name = notes.get(12..name_len.checked_add(12)?)?;
    let start = name_len.checked_next_multiple_of(4)?.checked_add(12)?;
    let content = notes.get(start..start.checked_add(content_len)?)?;
    let end = start.checked_add(content_len.checked_next_multiple_of(4)?)?;
    Some((Note { name, kind, content }, notes.get(end..).unwrap_or_default()))
}

struct Symbols {
    is_stripped: bool,
    has_debug_info: bool,
}

/// The section headers, or `None` if there are none.
fn sections(numbers: &Numbers, head: &[u8], read_at: &ReadAt<'_>) -> Option<Vec<Vec<u8>>> {
    let offset = numbers.get(head, (32, 4), (40, 8))?;
    let size = usize::try_from(numbers.get(head, (46, 2), (58, 2))?).ok()?;
    let count = numbers.get(head, (48, 2), (60, 2))?.min(MAX_HEADERS.into());
    if count == 0 || !(40..=256).contains(&size) {
        return None;
    }
    let table = read_at(offset, usize::try_from(count).ok()?.checked_mul(size)?);
    Some(table.chunks_exact(size).map(<[u8]>::to_vec).collect())
}

/// What the section headers say of symbols, or `None` if there are none.
fn symbols(numbers: &Numbers, head: &[u8], read_at: &ReadAt<'_>) -> Option<Symbols> {
    let sections = sections(numbers, head, read_at)?;
    let names = usize::try_from(numbers.get(head, (50, 2), (62, 2))?).ok()?;
    let names_at = sections.get(names).and_then(|section| numbers.get(section, (16, 4), (24, 8)));
    let mut symbols = Symbols { is_stripped: true, has_debug_info: false };
    for section in &sections {
        symbols.is_stripped &= numbers.same(section, (4, 4)) != Some(SHT_SYMTAB.into());
        let name = numbers.same(section, (0, 4)).zip(names_at);
        let name = name.and_then(|(offset, start)| start.checked_add(offset));
        symbols.has_debug_info |= name.is_some_and(|at| read_at(at, 12) == b".debug_info\0");
    }
    Some(symbols)
}
