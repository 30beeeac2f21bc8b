//! A file system with one of each kind of file, made by `mke2fs` from a tree on the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use testkit::{have_root, run, run_ok, skip, tempdir};
use vmcraft::Guest;

/// The tree that all users can make. Its times are fixed, so that listings do not depend on the day.
const TREE: &str = r#"
umask 022
mkdir -p etc usr/bin dir/sub/deep empty 'sp ace' many
printf 'root:x:0:0\ndaemon:x:1:1\n\nline three' > etc/passwd
printf 'a\r\nb\n\nc' > crlf
: > zero
truncate -s 300k holes; printf x | dd of=holes bs=1 seek=200000 conv=notrunc status=none
seq 1 20000 > numbers
seq -w 1 100 > few
head -c 100000 /dev/zero > zeros
head -c 70000 /dev/urandom > random
printf 'gr\303\274\303\237e caf\351 \001\002 x\n\tword  word\f y\n' > words
printf 'wide: ' > wide; printf 'Hello, world' | sed 's/./&\x00/g' >> wide; printf '\377\001' >> wide
gzip -nc numbers > numbers.gz; xz -0c numbers > numbers.xz; bzip2 -c numbers > numbers.bz2; zstd -qc numbers > numbers.zst
ln -s etc/passwd link; ln -s /etc abs; ln -s nowhere dangling; ln -s loop loop; ln few dir/sub/hard
mkfifo fifo
printf 1 > "$(printf 'latin1-\351')"; printf 2 > "$(printf 'new\nline')"
for i in $(seq 1 300); do : > many/file-$i; done
printf '#!/bin/sh\necho\n' > usr/bin/script; chmod 4755 usr/bin/script; chmod 1777 empty
cp "$(readlink -f /bin/sh)" usr/bin/program
find . -exec touch -h -d '2023-11-14 22:13:20' {} +
touch -d '1960-02-03 04:05:06' zero
"#;

/// What needs root: owners, device nodes, attributes.
const ROOT_TREE: &str = r#"
mknod chr c 1 3; mknod blk b 259 17
chown 1000:54321 crlf
setfattr -n user.one -v 1 few; setfattr -n user.bin -v 0x00ff few; setfattr -n trusted.t -v t few
setfacl -m u:1000:rw,g:7:r few; setfacl -m u:55:rwx,d:g:8:rx,d:u:1:rwx dir
setcap cap_net_raw,cap_net_admin+ep usr/bin/script
touch -d '2023-11-14 22:13:20' chr blk few dir usr/bin/script
"#;

/// The sample: an image, and the tree that it was made from.
pub(crate) struct Sample {
    dir: TempDir,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let dir = tempdir();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).expect("a directory");
        let script = format!("set -eu\n{TREE}\n{}", if have_root() { ROOT_TREE } else { "" });
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(&tree).env("TZ", "UTC");
        let output = command.output().expect("bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let sample = Self { dir };
        make_image(&tree, &sample.image());
        sample
    }

    /// The directory on the host.
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// The image, which has no partitions.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// A handle on it, with the file system mounted.
    pub(crate) fn guest(&self) -> Guest {
        let mut guest = Guest::open(self.image()).expect("the image opens");
        guest.mount("/dev/sda".into(), "/".into()).expect("the file system mounts");
        guest
    }

    /// What a shell command prints in the tree, whatever its status.
    pub(crate) fn in_tree(&self, script: &str) -> Vec<u8> {
        shell(&self.tree(), script)
    }

    /// The kernel's mount of the image, if this user may mount.
    pub(crate) fn kernel(&self) -> Option<Mounted> {
        if !have_root() {
            skip("mounting the image with the kernel needs root");
            return None;
        }
        let dir = tempdir();
        run_ok(
            "mount",
            ["-o".as_ref(), "loop,ro,noload".as_ref(), self.image().as_os_str(), dir.path().as_os_str()],
        );
        Some(Mounted(dir))
    }
}

/// Makes an image of 64 MiB with the files of a tree.
pub(crate) fn make_image(tree: &Path, image: &Path) {
    std::fs::File::create(image).and_then(|file| file.set_len(64 << 20)).expect("space for the image");
    let options = ["-q", "-F", "-t", "ext4", "-b", "1024", "-d"].map(AsRef::as_ref);
    run_ok("mke2fs", options.into_iter().chain([tree.as_os_str(), image.as_os_str()]));
}

/// A mount, gone with the value.
pub(crate) struct Mounted(TempDir);

impl Mounted {
    /// What a shell command prints in its root, whatever its status.
    pub(crate) fn shell(&self, script: &str) -> Vec<u8> {
        shell(self.0.path(), script)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", [self.0.path()]);
    }
}

fn shell(dir: &Path, script: &str) -> Vec<u8> {
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(dir).env("LC_ALL", "C").env("TZ", "UTC");
    command.output().expect("bash").stdout
}

/// The lines of a program's output.
pub(crate) fn lines(output: &[u8]) -> Vec<&[u8]> {
    let text = output.strip_suffix(b"\n").unwrap_or(output);
    if output.is_empty() { Vec::new() } else { text.split(|byte| *byte == b'\n').collect() }
}
