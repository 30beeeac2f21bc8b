//! What kind of content a file has, in words: those that file(1) uses for the kinds known here.
//!
//! It is not all of file(1). Programs, scripts, text, compressed content, archives, and the images,
//! documents and disk formats that guests often hold are told as file(1) 5.44 tells them; of others it
//! says `data`, or `text` with its encoding.

pub(crate) mod architecture;
mod elf;
pub(crate) mod known;
mod text;

use vmcraft_fs::FileType;

/// How much of a file is looked at from its start.
pub(crate) const HEAD_LEN: usize = 64 * 1024;

/// Reads a part of the content; fewer bytes than asked, or none, past its end.
pub(crate) type ReadAt<'a> = dyn Fn(u64, usize) -> Vec<u8> + 'a;

/// What something is that is not a regular file.
pub(crate) fn special(file_type: FileType) -> Option<&'static str> {
    Some(match file_type {
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::CharDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::Unknown => "unknown",
        FileType::Regular => return None,
    })
}

/// What stands before the description of a program that runs with other rights.
pub(crate) fn mode_words(permissions: u32) -> Vec<&'static str> {
    let words = [(0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky")];
    words.iter().filter(|(bit, _)| permissions & bit != 0).map(|(_, word)| *word).collect()
}

/// Describes content by its first [`HEAD_LEN`] bytes, and parts further on where they matter.
pub(crate) fn describe(head: &[u8], read_at: &ReadAt<'_>) -> String {
    if head.is_empty() {
        return "empty".into();
    }
    elf::describe(head, read_at)
        .or_else(|| known::describe(head, read_at))
        .or_else(|| text::describe(head))
        .unwrap_or_else(|| "data".into())
}

/// Little-endian numbers at an offset, if they are there.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// As [`u16_at`], of 32 bits.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn ours(content: &[u8]) -> String {
        let head = &content[..content.len().min(HEAD_LEN)];
        describe(head, &|offset, len| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            content[start..content.len().min(start.saturating_add(len))].to_vec()
        })
    }

    fn theirs(content: &[u8]) -> String {
        let file = testkit::tempdir();
        let path = file.path().join("content");
        std::fs::write(&path, content).unwrap();
        let output = Command::new(testkit::require("file")).arg("-bS").arg(&path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    #[test] // Oracle: file(1), for what most files of a guest are.
    fn descriptions_are_those_of_file1() {
        let long = "x".repeat(400);
        for content in [
            &b"hello\n"[..],
            b"hello",
            b"a\r\nb\r\n",
            b"a\r\nb\nc\n",
            b"a\rb\r",
            "gr\u{fc}\u{df}e\n".as_bytes(),
            b"\xef\xbb\xbfhello\n",
            b"caf\xe9 au lait\n",
            b"caf\x85\x91 au lait\n",
            b"\xff\xfeh\0e\0l\0l\0o\0\n\0",
            b"\x1b[1mbold\x1b[0m\n",
            long.as_bytes(),
            b"#!/bin/sh\necho\n",
            b"#! /bin/bash -e\necho\n",
            b"#!/usr/bin/perl -w\nprint;\n",
            b"#!/usr/bin/python3\nprint()\n",
            b"#!/usr/bin/env python3\nprint()\n",
            b"#!/usr/bin/make -f\nall:\n",
            b"#!/opt/x/y z\nhello\n",
            b"#!/usr/bin/env node\nhello\n",
            b"#!/bin/dash\nhello\n",
            b"\0\x01\x02\x03 nothing in particular",
            b"GIF89a\x10\x00\x20\x00abc",
            b"%PDF-1.4\n%abc\n",
            b"!<arch>\nabc             ",
            b"<?xml version=\"1.0\"?>\n<a/>\n",
            b"{\"a\": 1}\n",
        ] {
            assert_eq!(ours(content), theirs(content), "{:?}", bstr::BStr::new(content));
        }
        for path in ["/bin/true", "/bin/sh", "/sbin/ldconfig", "/etc/passwd", "/lib64/ld-linux-x86-64.so.2"] {
            if let Ok(content) = std::fs::read(path) {
                assert_eq!(ours(&content), theirs(&content), "{path}");
            }
        }
    }

    #[test] // Headers whose tables lie beyond the file, or anywhere.
    fn forged_headers_do_no_harm() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = &program[..program.len().min(4096)];
        for at in 0..512 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut forged = program.to_vec();
                forged[at] = value;
                ours(&forged);
            }
            ours(&program[..at]);
        }
    }
}
