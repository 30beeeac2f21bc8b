//! `cargo xtask demo`: the main job on a real guest, from nothing.

use anyhow::Result;
use testkit::guest::{Layout, Packing};
use xshell::{Shell, cmd};

use crate::install;

/// The programs that build the guest.
const NEEDED: &[&str] = &[
    "fakeroot",
    "fusermount3",
    "grub-mkimage",
    "mcopy",
    "mke2fs",
    "mkfs.vfat",
    "mkswap",
    "mmdebstrap",
    "qemu-img",
    "sfdisk",
    "sgdisk",
];

pub(crate) fn run(shell: &Shell) -> Result<()> {
    install::ensure(shell, true, |oracle| NEEDED.contains(&oracle.program))?;
    cmd!(shell, "cargo build --quiet --release --package vmcraft-cli").run()?;
    let disk = testkit::guest::debian(Layout::Mbr, Packing::Qcow2);
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    let vmcraft = testkit::workspace().join(target).join("release/vmcraft");
    println!("\nThe guest is {}.", disk.display());
    for arguments in
        [&["inspect", "-a"][..], &["-i", "--run", "ll /", "-a"], &["-i", "--run", "cat /etc/hostname", "-a"]]
    {
        println!("\n$ vmcraft {} {}", quoted(arguments), disk.display());
        cmd!(shell, "{vmcraft} {arguments...} {disk}").quiet().run()?;
    }
    // The guest is kept for the tests: what is changed is a copy.
    let copy = disk.with_file_name("demo.qcow2");
    std::fs::copy(&disk, &copy)?;
    println!("\nA copy of it is changed: all of this, or nothing.");
    for arguments in [
        &["customize", "--hostname", "web1", "--timezone", "Europe/Berlin", "--mkdir", "/srv/www", "-a"][..],
        &["-i", "--run", "write /srv/www/index.html \"It works\\n\"", "-a"],
        &["-i", "--run", "cat /etc/hostname", "--run", "ll /srv/www", "-a"],
    ] {
        println!("\n$ vmcraft {} {}", quoted(arguments), copy.display());
        cmd!(shell, "{vmcraft} {arguments...} {copy}").quiet().run()?;
    }
    println!("\nNow try the shell:\n\n    {} -i -a {}\n", vmcraft.display(), copy.display());
    Ok(())
}

/// The words as one would type them.
fn quoted(words: &[&str]) -> String {
    let quoted =
        words.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() });
    quoted.collect::<Vec<_>>().join(" ")
}
