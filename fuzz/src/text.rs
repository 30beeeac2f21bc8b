//! Files of a guest as a fuzzer's input: each is its path's number (u8), its length (u16), and the content.

/// The files that are read to tell what a guest is, and to change it.
pub const PATHS: &[&str] = &[
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/lsb-release",
    "/etc/redhat-release",
    "/etc/debian_version",
    "/etc/hostname",
    "/etc/sysconfig/network",
    "/etc/sysconfig/clock",
    "/etc/hosts",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/selinux/config",
    "/etc/selinux/targeted/contexts/files/file_contexts",
    "/etc/selinux/targeted/contexts/files/file_contexts.subs",
    "/etc/selinux/targeted/contexts/files/file_contexts.homedirs",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/boot/loader/entries/entry.conf",
    "/var/lib/dpkg/status",
    "/lib/apk/db/installed",
    "/etc/ssh/sshd_config",
    "/bin/sh",
    // No file, but an access control list.
    "",
];

/// The files of an input.
pub fn files(mut input: &[u8]) -> Vec<(&'static str, &[u8])> {
    let mut files = Vec::new();
    while let Some((head, rest)) = input.split_at_checked(3) {
        let len = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
        let (content, rest) = rest.split_at(len);
        files.push((PATHS[usize::from(head[0]) % PATHS.len()], content));
        input = rest;
    }
    files
}

/// An input of these files.
pub fn encode_files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut input = Vec::new();
    for (path, content) in files {
        let number = PATHS.iter().position(|known| known == path).expect("a path that is known");
        input.push(u8::try_from(number).expect("few paths"));
        input.extend(u16::try_from(content.len()).expect("a short file").to_le_bytes());
        input.extend(*content);
    }
    input
}
