//! Names, formats, and what is refused.

use std::path::Path;

use vmcraft_block::image::{self, Format, OpenOptions};

use crate::support::{
    Noise, assert_same, given, mixed_disk, open, options, read_all, refusal, text, write_file,
};

fn create(path: &Path, format: &str) {
    testkit::run_ok("qemu-img", ["create", "-q", "-f", format, text(path), "1M"]);
}

#[test]
fn formats_are_told_by_content() {
    let dir = testkit::tempdir();
    for format in ["qcow2", "vmdk", "vpc", "vhdx", "vdi", "qed", "parallels", "qcow"] {
        let path = dir.path().join(format!("disk-of-{format}.img"));
        create(&path, format);
        assert_eq!(open(&path).format.to_string(), format);
        if format != "vdi" {
            let said = refusal(&path, &given("vdi".parse().unwrap()));
            assert!(said.contains(&format!("not in format vdi: its content is {format}")), "{said}");
        }
    }
    let fixed = dir.path().join("fixed.vhd");
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "vpc", "-o", "subformat=fixed", text(&fixed), "1M"]);
    assert!(refusal(&fixed, &given(Format::Qcow2)).contains("its content is vpc"));
}

#[test]
fn wrong_formats_are_refused() {
    let dir = testkit::tempdir();
    let raw = write_file(dir.path(), "disk.raw", &mixed_disk(1, 1 << 20));
    let said = refusal(&raw, &given(Format::Qcow2));
    assert!(said.contains("disk.raw: the image is not in format qcow2"), "{said}");
    assert!("qcow3".parse::<Format>().unwrap_err().contains("known are raw, qcow2"));
    // Raw has no mark, so a disk that looks like something else can be opened by saying so.
    let qcow2 = dir.path().join("disk.qcow2");
    create(&qcow2, "qcow2");
    let image = image::open(text(&qcow2), &given(Format::Raw)).unwrap();
    assert_eq!(image.format, Format::Raw);
}

#[test] // A guest can write a qcow2 header on its raw disk.
fn a_guessed_raw_format_is_known_as_guessed() {
    let dir = testkit::tempdir();
    let path = write_file(dir.path(), "disk.raw", &[0; 4096]);
    assert!(open(&path).format_is_guessed);
    assert!(!image::open(text(&path), &given(Format::Raw)).unwrap().format_is_guessed);
    let qcow2 = dir.path().join("disk.qcow2");
    create(&qcow2, "qcow2");
    assert!(!open(&qcow2).format_is_guessed);
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let dir = testkit::tempdir();
    let missing = dir.path().join("missing.qcow2");
    let said = refusal(&missing, &options());
    assert!(said.contains("missing.qcow2: cannot open: No such file"), "{said}");
    assert!(refusal(dir.path(), &options()).ends_with("is a directory, not a disk image"));
    let empty = write_file(dir.path(), "empty.img", &[]);
    assert!(refusal(&empty, &options()).contains("empty.img: the file is empty (0 bytes)"));
    assert!(refusal(&empty, &given(Format::Qcow2)).contains("not in format qcow2"));
    let fifo = dir.path().join("fifo");
    testkit::run_ok("mkfifo", [text(&fifo)]);
    assert!(refusal(&fifo, &options()).ends_with("is a FIFO, not a disk image"));
    assert!(refusal(Path::new("/dev/null"), &options()).contains("is a character device"));
    assert!(refusal(Path::new("/dev/null/x"), &options()).contains("Not a directory"));
}

#[test]
fn truncated_images_name_what_is_missing() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, "qcow2");
    let bytes = std::fs::read(&path).unwrap();
    let l1 = u64::from_be_bytes(bytes[40..48].try_into().unwrap());
    for (len, missing) in [(3, ""), (50, "header"), (100, "header"), (l1, "L1 table")] {
        let cut = write_file(dir.path(), "cut.qcow2", &bytes[..usize::try_from(len).unwrap()]);
        if len == 3 {
            // Too short for any mark.
            assert_eq!(open(&cut).format, Format::Raw);
            continue;
        }
        let said = refusal(&cut, &options());
        assert!(said.contains("cut.qcow2: truncated") && said.contains(missing), "{said}");
    }
}

#[test]
fn encryption_and_unknown_features_are_refused_by_name() {
    let dir = testkit::tempdir();
    let path = dir.path().join("luks.qcow2");
    testkit::run_ok(
        "qemu-img",
        [
            "create",
            "-q",
            "-f",
            "qcow2",
            "--object",
            "secret,id=s,data=x",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            text(&path),
            "1M",
        ],
    );
    let said = refusal(&path, &options());
    assert!(said.contains("LUKS encryption"), "{said}");

    let path = dir.path().join("future.qcow2");
    create(&path, "qcow2");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[72] = 0x80;
    let unnamed = write_file(dir.path(), "unnamed.qcow2", &bytes);
    assert!(refusal(&unnamed, &options()).contains("bit 63, which the image does not name"));
    // The first entry of the feature name table, which QEMU writes.
    let table = bytes.windows(5).position(|w| w == [0, 0, b'd', b'i', b'r']).expect("a name table");
    bytes[table + 1] = 63;
    let named = write_file(dir.path(), "named.qcow2", &bytes);
    assert!(refusal(&named, &options()).contains("incompatible feature \"dirty bit\""));
}

#[test] // A data disk that the guest encrypted as a whole is not QEMU's LUKS format, which has the same mark.
fn whole_disk_luks_is_raw() {
    let dir = testkit::tempdir();
    let mut bytes = Noise::new(50).bytes(1 << 20);
    bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    let path = write_file(dir.path(), "disk", &bytes);
    let image = open(&path);
    assert_eq!(image.format, Format::Raw);
    assert_same(&read_all(&*image.device), &bytes, "the disk");
}

#[test]
#[ignore = "run by the test below, as an ordinary user"]
fn as_an_ordinary_user() {
    let dir = std::env::var("VMCRAFT_TEST_DIR").expect("the test below gives a directory");
    let secret = refusal(&Path::new(&dir).join("secret.raw"), &options());
    assert!(secret.ends_with("secret.raw: cannot open: Permission denied (os error 13)"), "{secret}");
    let fixed = Path::new(&dir).join("fixed.raw");
    assert_eq!(open(&fixed).format, Format::Raw);
    let writable = OpenOptions { read_only: false, ..given(Format::Raw) };
    let said = refusal(&fixed, &writable);
    assert!(said.ends_with("fixed.raw: cannot open for writing: Permission denied (os error 13)"), "{said}");
    println!("refused");
}

#[test] // For root there are no permissions.
fn files_without_permission_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = testkit::tempdir();
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(dir.path(), 0o755);
    chmod(&write_file(dir.path(), "secret.raw", &[1; 512]), 0o000);
    chmod(&write_file(dir.path(), "fixed.raw", &[1; 512]), 0o444);
    // Where an ordinary user can run it.
    let program = dir.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    chmod(&program, 0o755);
    let mut command = if testkit::have_root() {
        let mut command = std::process::Command::new(testkit::require("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command
    } else {
        std::process::Command::new(&program)
    };
    let output = command
        .args(["--exact", "open::as_an_ordinary_user", "--ignored", "--nocapture"])
        .env("VMCRAFT_TEST_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("refused"), "{output:?}");
}
