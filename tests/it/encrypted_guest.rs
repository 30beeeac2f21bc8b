//! A Debian guest on LVM on LUKS2: its disk is made, it is changed, and it boots with the change.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::console::Console;
use crate::support::{binary, output};

const PASSPHRASE: &str = "correct horse battery staple";
/// Where the encrypted partition begins, in sectors of 512 bytes.
const ENCRYPTED_START: u64 = 264_192;

/// Makes the disk as an installer does, and unpacks the guest onto it.
fn install(disk: &Path, tree: &Path) {
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(disk), "1G"]);
    let script = format!(
        "run\n\
         part-init /dev/sda gpt\n\
         part-add /dev/sda p 2048 {}\n\
         part-add /dev/sda p {ENCRYPTED_START} -2048\n\
         part-set-gpt-guid /dev/sda 1 aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee01\n\
         part-set-gpt-guid /dev/sda 2 aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee02\n\
         luks-format /dev/sda2 0\n{PASSPHRASE}\n\
         cryptsetup-open /dev/sda2 cryptroot\n{PASSPHRASE}\n\
         pvcreate /dev/mapper/cryptroot\n\
         vgcreate vg /dev/mapper/cryptroot\n\
         lvcreate swap vg 64\n\
         lvcreate-free root vg 100\n\
         mkswap /dev/vg/swap\n\
         mkfs ext4 /dev/sda1\n\
         mkfs ext4 /dev/vg/root\n\
         mount /dev/vg/root /\n\
         mkdir /boot\n\
         mount /dev/sda1 /boot\n\
         tar-in {} / xattrs:true acls:true\n",
        ENCRYPTED_START - 1,
        tree.display()
    );
    let mut vmcraft = Command::new(binary());
    vmcraft.arg("--keys-from-stdin").arg("-a").arg(disk);
    let mut child = vmcraft.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin.write_all(script.as_bytes()).expect("the script is taken");
    drop(stdin);
    let ran = child.wait_with_output().expect("the output");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the test's own paths are text")
}

/// What commands of the shell print in the guest, opened with its passphrase.
fn in_guest(disk: &Path, arguments: &[&str]) -> String {
    let mut vmcraft = Command::new(binary());
    vmcraft.env("PASSPHRASE", PASSPHRASE).args(["--ro", "-a", text(disk), "-i"]);
    let ran = output(vmcraft.args(["--key", "all:env:PASSPHRASE"]).args(arguments));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.is_empty(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Has other programs look at each layer of the disk.
fn check(disk: &Path, dir: &Path) {
    testkit::run_ok("qemu-img", ["check", "-q", "-f", "qcow2", text(disk)]);
    // The encrypted partition in a file of its own, cut out by QEMU.
    let partition = dir.join("partition");
    let place = serde_json::json!({
        "driver": "raw",
        "offset": ENCRYPTED_START * 512,
        "file": {"driver": "qcow2", "file": {"driver": "file", "filename": text(disk)}},
    });
    testkit::run_ok("qemu-img", ["convert", "-O", "raw", &format!("json:{place}"), text(&partition)]);
    let dump = testkit::run_ok("cryptsetup", ["luksDump", text(&partition)]);
    assert!(
        dump.contains("Version:       \t2") && dump.contains("argon2id") && dump.contains("aes-xts-plain64"),
        "{dump}"
    );
    let opens = |passphrase: &str| {
        let key = dir.join("key");
        fs::write(&key, passphrase).expect("a key file");
        let options = ["open", "--test-passphrase", "--key-file", text(&key), text(&partition)];
        testkit::run("cryptsetup", options).status.code()
    };
    assert_eq!((opens(PASSPHRASE), opens("wrong")), (Some(0), Some(2)));
    // What is decrypted is what LVM and ext4 expect.
    let root = dir.join("root");
    in_guest(disk, &["download", "/dev/vg/root", text(&root)]);
    testkit::run_ok("e2fsck", ["-fn", text(&root)]);
    for made in [partition, root] {
        fs::remove_file(made).expect("a file that was made");
    }
}

/// The only file in a directory whose name begins so.
fn only(dir: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries
        .filter(|path| path.file_name().is_some_and(|n| text(n.as_ref()).starts_with(prefix)))
        .collect();
    assert_eq!(found.len(), 1, "{prefix}: {found:?}");
    found.remove(0)
}

#[test] // Debian's initramfs unlocks the disk, its LVM finds the root, and its services see the change.
fn a_guest_on_lvm_on_luks_boots_with_the_change() {
    if !testkit::long_suites("booting a guest takes minutes") {
        return;
    }
    let dir = testkit::tempdir();
    let disk = dir.path().join("disk.qcow2");
    let tree = testkit::guest::encrypted_debian();
    let started = Instant::now();
    install(&disk, &tree);
    eprintln!("the guest was made in {:.1?}", started.elapsed());

    let started = Instant::now();
    let mut customize = Command::new(binary());
    customize.args([
        "customize",
        "--hostname",
        "changed.example.com",
        "--write",
        "/etc/changed:by vmcraft\n",
    ]);
    customize.args(["-a", text(&disk), "--key", &format!("/dev/sda2:key:{PASSPHRASE}")]);
    let ran = output(&mut customize);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    eprintln!("the guest was changed in {:.1?}", started.elapsed());
    check(&disk, dir.path());

    let boot = dir.path().join("boot");
    in_guest(&disk, &["copy-out", "/boot", text(dir.path())]);
    let (kernel, initramfs) = (only(&boot, "vmlinuz-"), only(&boot, "initrd.img-"));
    let started = Instant::now();
    let mut console =
        Console::boot_kernel(&disk, &kernel, &initramfs, "root=/dev/mapper/vg-root ro console=ttyS0");
    console.sees("Please unlock disk cryptroot").types(PASSPHRASE);
    console.sees("MARKER-BOOT-OK changed.example.com /dev/mapper/vg-root ext4 ext4 64M");
    console.sees("CHANGED-FILE by vmcraft").sees("Power down");
    console.ends();
    eprintln!("the guest booted in {:.0?}", started.elapsed());

    // What the guest's kernel wrote on its way is read back.
    assert_eq!(in_guest(&disk, &["cat", "/var/lib/booted"]).trim_end(), "changed.example.com");
    check(&disk, dir.path());
}
