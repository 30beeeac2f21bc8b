//! Signatures against `blkid`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use serde_json::Value;
use testkit::{corpus, run, run_ok, tempdir};
use vmcraft_block::RawFile;
use vmcraft_volume::signature::{self, Signature};

/// The tags that are compared: those that [`Signature`] has.
const TAGS: [&str; 6] = ["LABEL", "TYPE", "USAGE", "UUID", "UUID_SUB", "VERSION"];

fn probe(image: &Path) -> Option<Signature> {
    let file = File::open(image).expect("the image is there");
    let device = RawFile::new(file, true).expect("it can be read");
    signature::probe(&device).unwrap_or_else(|e| panic!("{}: {e}", image.display()))
}

/// What we found, as `blkid` would print it.
fn ours(image: &Path) -> BTreeMap<&'static str, String> {
    let Some(signature) = probe(image) else { return BTreeMap::new() };
    let values = [
        visible(&signature.label),
        signature.kind.to_owned(),
        signature.usage.name().to_owned(),
        signature.uuid,
        signature.sub_uuid,
        signature.version,
    ];
    TAGS.into_iter().zip(values).filter(|(_, value)| !value.is_empty()).collect()
}

/// What `blkid` prints now.
fn theirs(image: &Path) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for tag in TAGS {
        let args =
            ["-p".as_ref(), "-o".as_ref(), "value".as_ref(), "-s".as_ref(), tag.as_ref(), image.as_os_str()];
        let output = run("blkid", args);
        let value = visible(output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout));
        if !value.is_empty() {
            found.insert(tag, value);
        }
    }
    found
}

/// Text as `blkid` prints it where the locale is not UTF-8: `M-` for the eighth bit, `^` for control.
fn visible(text: &[u8]) -> String {
    let mut visible = String::new();
    for byte in text {
        if byte & 0x80 != 0 {
            visible.push_str("M-");
        }
        match byte & 0x7f {
            control @ (0..0x20 | 0x7f) => visible.extend(['^', char::from(control ^ 0x40)]),
            plain => visible.push(char::from(plain)),
        }
    }
    visible
}

/// What `blkid` 2.38 does not know; what only versions before 2.41 take for LUKS, by a second header
/// whose own position is another; and a UUID that we leave out.
const KNOWN_DIFFERENCES: [&str; 3] = ["fvault2/", "luks/ul-swap-luks", "otherfs/ul-befs"];

/// Larger images only take longer: each kind has small ones.
const MAX_IMAGE_BYTES: u64 = 64 << 20;

#[test] // The images of the corpus that `blkid` was asked about.
fn corpus_is_recognised_as_blkid_does() {
    let Some(corpus) = corpus::dir() else { return };
    let mut differing = Vec::new();
    let mut compared = 0;
    for row in corpus::rows(&corpus, "") {
        let facts: Value = serde_json::from_str(&row.facts).expect("facts are JSON");
        let Some(blkid) = facts.get("blkid") else { continue };
        if facts["size"].as_u64().is_none_or(|size| size > MAX_IMAGE_BYTES) {
            continue;
        }
        if KNOWN_DIFFERENCES.iter().any(|path| row.path.starts_with(path)) {
            continue;
        }
        let dir = tempdir();
        let image = corpus::unpack(&corpus, &row, dir.path());
        let theirs: BTreeMap<_, _> = TAGS
            .into_iter()
            .filter_map(|tag| Some((tag, blkid.get(tag)?.as_str()?.replace('\\', ""))))
            .collect();
        compared += 1;
        let ours = ours(&image);
        if ours != theirs {
            differing.push(format!("{}\n  ours:   {ours:?}\n  theirs: {theirs:?}", row.path));
        }
    }
    assert!(compared > 400, "only {compared} images");
    assert!(differing.is_empty(), "{} of {compared} differ:\n{}", differing.len(), differing.join("\n"));
}

/// The images that one tool makes on a disk of `mib` MiB: name, program, arguments before the image.
struct Recipe {
    mib: u64,
    program: &'static str,
    arguments: &'static [&'static str],
}

const fn recipe(mib: u64, program: &'static str, arguments: &'static [&'static str]) -> Recipe {
    Recipe { mib, program, arguments }
}

const RECIPES: &[Recipe] = &[
    recipe(8, "mke2fs", &["-q", "-F", "-t", "ext2", "-L", "sixteen letters!"]),
    recipe(8, "mke2fs", &["-q", "-F", "-t", "ext3", "-L", "trailing "]),
    recipe(8, "mke2fs", &["-q", "-F", "-t", "ext4", "-L", "d\u{e4}ta"]),
    recipe(8, "mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^has_journal"]),
    recipe(8, "mke2fs", &["-q", "-F", "-t", "ext2", "-r", "0", "-O", "none"]),
    recipe(8, "mke2fs", &["-q", "-F", "-O", "journal_dev", "-b", "1024", "-L", "journal"]),
    recipe(300, "mkfs.xfs", &["-q", "-L", "twelve bytes"]),
    recipe(300, "mkfs.xfs", &["-q", "-m", "crc=0"]),
    recipe(300, "mkfs.btrfs", &["-q", "-L", "a longer label than others have"]),
    recipe(2, "mkfs.vfat", &["-F", "12", "-n", "ELEVEN CHRS"]),
    recipe(32, "mkfs.vfat", &["-F", "16"]),
    recipe(100, "mkfs.vfat", &["-F", "32", "-n", "EFI", "-i", "0123abcd"]),
    recipe(64, "mkfs.vfat", &["-F", "32", "-S", "4096"]),
    recipe(32, "mkntfs", &["-q", "-Q", "-F", "-L", "W\u{ef}ndows \u{1f427}"]),
    recipe(32, "mkntfs", &["-q", "-Q", "-F", "-c", "65536"]),
    recipe(32, "mkfs.exfat", &["-L", "eleven chrs"]),
    recipe(32, "mkfs.exfat", &[]),
    recipe(64, "mkfs.f2fs", &["-q", "-l", "fl\u{e4}sh"]),
    recipe(256, "mkfs.nilfs2", &["-q", "-L", "nilfs"]),
    recipe(8, "mkfs.minix", &["-1"]),
    recipe(8, "mkfs.minix", &["-2"]),
    recipe(8, "mkfs.minix", &["-3"]),
    recipe(16, "mkudffs", &["--utf8", "-l", "\u{fc}ber UDF"]),
    recipe(16, "mkudffs", &["-b", "4096", "-r", "1.50"]),
    recipe(8, "mkswap", &["-L", "swap space"]),
    recipe(8, "mkswap", &["-p", "65536"]),
    recipe(
        32,
        "cryptsetup",
        &["-q", "luksFormat", "--type", "luks1", "--iter-time", "1", "-d", "/dev/zero", "-l", "8"],
    ),
    recipe(
        32,
        "cryptsetup",
        &[
            "-q",
            "luksFormat",
            "--type",
            "luks2",
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
            "--label",
            "vault",
            "-d",
            "/dev/zero",
            "-l",
            "8",
        ],
    ),
];

#[test] // Every kind of volume whose tool makes it in a file.
fn fresh_volumes_are_recognised_as_blkid_does() {
    let dir = tempdir();
    let image = dir.path().join("volume");
    for recipe in RECIPES {
        File::create(&image)
            .and_then(|file| file.set_len(recipe.mib << 20))
            .expect("space for a sparse file");
        let arguments = recipe.arguments.iter().map(|argument| (*argument).into());
        run_ok(recipe.program, arguments.chain([image.clone().into_os_string()]));
        let theirs = theirs(&image);
        assert!(theirs.contains_key("TYPE"), "blkid does not know what {} made", recipe.program);
        assert_eq!(ours(&image), theirs, "{} {:?}", recipe.program, recipe.arguments);
    }
}

#[test] // Volumes that are made from a tree of files.
fn volumes_of_files_are_recognised_as_blkid_does() {
    let dir = tempdir();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("a directory can be made");
    std::fs::write(tree.join("file"), vec![b'x'; 100_000]).expect("space for a file");
    let image = dir.path().join("volume");
    let (tree, name) = (tree.to_str().expect("plain"), image.to_str().expect("plain"));
    for (program, arguments) in [
        ("mksquashfs", &[tree, name, "-quiet", "-no-progress"][..]),
        ("mkfs.erofs", &["--quiet", name, tree]),
        ("mkfs.erofs", &["--quiet", "-E", "nosbcrc", name, tree]),
        ("mkfs.cramfs", &["-n", "cramped", tree, name]),
        ("genisoimage", &["-quiet", "-V", "PLAIN", "-o", name, tree]),
        ("genisoimage", &["-quiet", "-J", "-r", "-V", "Mixed Case_and long label", "-o", name, tree]),
        ("genisoimage", &["-quiet", "-udf", "-V", "Both", "-o", name, tree]),
    ] {
        let _ = std::fs::remove_file(&image);
        run_ok(program, arguments);
        let theirs = theirs(&image);
        assert!(theirs.contains_key("TYPE"), "blkid does not know what {program} made");
        assert_eq!(ours(&image), theirs, "{program} {arguments:?}");
    }
}

#[test] // The flag that only development kernels would mount.
fn ext4dev_is_told_from_ext4() {
    let dir = tempdir();
    let image = dir.path().join("volume");
    File::create(&image).and_then(|file| file.set_len(8 << 20)).expect("space for a sparse file");
    run_ok("mke2fs", ["-q".as_ref(), "-F".as_ref(), "-t".as_ref(), "ext4".as_ref(), image.as_os_str()]);
    run_ok("tune2fs", ["-E".as_ref(), "test_fs".as_ref(), image.as_os_str()]);
    let ours = ours(&image);
    assert_eq!(ours.get("TYPE").map(String::as_str), Some("ext4dev"));
    assert_eq!(ours, theirs(&image));
}

#[test] // Two file systems at once are none, as the guest's own udev would have it.
fn contradicting_signatures_are_none() {
    let dir = tempdir();
    let image = dir.path().join("volume");
    File::create(&image).and_then(|file| file.set_len(300 << 20)).expect("space for a sparse file");
    run_ok("mkfs.btrfs", ["-q".as_ref(), image.as_os_str()]);
    run_ok("mkswap", ["--lock=no".as_ref(), image.as_os_str()]);
    let swap = std::fs::read(&image).expect("there")[..4096].to_vec();
    run_ok("mkfs.btrfs", ["-q".as_ref(), "-f".as_ref(), image.as_os_str()]);
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(&image).expect("there");
    file.write_all_at(&swap, 0).expect("it can be written");
    assert_eq!(theirs(&image), BTreeMap::new());
    assert_eq!(ours(&image), BTreeMap::new());
}

#[test] // An old array's superblock is at the end, where that of the last partition can be too.
fn md_superblock_in_the_last_partition_is_not_the_disks() {
    let dir = tempdir();
    let image = dir.path().join("volume");
    let mut bytes = vec![0; 16 << 20];
    let superblock = bytes.len() - (64 << 10);
    bytes[superblock..superblock + 4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    bytes[superblock + 8..superblock + 12].copy_from_slice(&90_u32.to_le_bytes());
    bytes[superblock + 20..superblock + 24].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
    bytes[superblock + 32..superblock + 36].copy_from_slice(&8192_u32.to_le_bytes());
    std::fs::write(&image, &bytes).expect("space for the image");
    assert_eq!(ours(&image).get("TYPE").map(String::as_str), Some("linux_raid_member"));
    assert_eq!(ours(&image), theirs(&image));
    let entry = [0x80, 0, 0, 0, 0xfd, 0, 0, 0, 1, 0, 0, 0, 0xff, 0x7f, 0, 0];
    bytes[0x1be..0x1ce].copy_from_slice(&entry);
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&image, &bytes).expect("space for the image");
    assert_eq!(theirs(&image).get("TYPE"), None);
    assert_eq!(ours(&image).get("TYPE"), None);
}

/// Erases the signatures of a copy with wipefs and of the image with our own, and compares them.
fn compare_erased(image: &Path, what: &str) {
    let theirs = image.with_extension("theirs");
    run_ok("cp", ["--sparse=always".as_ref(), image.as_os_str(), theirs.as_os_str()]);
    let before = image.with_extension("before");
    run_ok("cp", ["--sparse=always".as_ref(), image.as_os_str(), before.as_os_str()]);
    run_ok("wipefs", ["-q".as_ref(), "-a".as_ref(), "-f".as_ref(), theirs.as_os_str()]);
    let file = File::options().read(true).write(true).open(image).expect("the image is there");
    let device = RawFile::new(file, false).expect("it can be written");
    let kinds = signature::erase(&device).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(!kinds.is_empty(), "{what}");
    assert_eq!(signature::erase(&device).expect("it can be read"), Vec::<&str>::new(), "{what}");
    drop(device);
    assert_eq!(run_ok("wipefs", ["-n".as_ref(), image.as_os_str()]), "", "{what}");
    assert_eq!(probe(image), None, "{what}");
    // Which bytes changed: nothing that wipefs leaves. It erases more magics where there are several.
    let differing = |other: &Path| {
        let compared = run("cmp", ["-l".as_ref(), before.as_os_str(), other.as_os_str()]);
        let lines = String::from_utf8(compared.stdout).expect("numbers");
        lines.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (ours, theirs) = (differing(image), differing(&theirs));
    assert!(
        !ours.is_empty() && ours.is_subset(&theirs),
        "{what}: {kinds:?}: {ours:?}, but wipefs {theirs:?}"
    );
}

#[test] // Oracle: wipefs, on what is made by every tool that we have.
fn signatures_are_erased_as_wipefs_does() {
    let dir = tempdir();
    let image = dir.path().join("volume");
    for recipe in RECIPES {
        File::create(&image)
            .and_then(|file| file.set_len(recipe.mib << 20))
            .expect("space for a sparse file");
        let arguments = recipe.arguments.iter().map(|argument| (*argument).into());
        run_ok(recipe.program, arguments.chain([image.clone().into_os_string()]));
        compare_erased(&image, &format!("{} {:?}", recipe.program, recipe.arguments));
    }
    for label in ["gpt", "dos"] {
        File::create(&image).and_then(|file| file.set_len(8 << 20)).expect("space for a sparse file");
        let script = format!("label: {label}\n,4M\n");
        let name = image.to_str().expect("plain");
        run_ok("bash", ["-c", &format!("printf '{script}' | sfdisk -q {name}")]);
        compare_erased(&image, label);
    }
}
