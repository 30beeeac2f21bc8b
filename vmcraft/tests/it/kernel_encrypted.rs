//! Encrypted stacks that were made and written here are opened by the kernel with cryptsetup, LVM and mdadm,
//! which find in them what was written; and what they write is found here.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::appliance::{Disk, run_ok};
use vmcraft::value::Value;
use vmcraft::{DeviceName, Guest, GuestPath, Key, Mountable};

use crate::drives::{call, disk, open, text};

const PASSPHRASE: &str = "correct horse";

/// A stack with a file system on top.
struct Stack {
    name: &'static str,
    /// The size of each disk in MiB, and what cryptsetup makes of it; nothing if it is empty.
    disks: &'static [(u64, &'static [&'static str])],
    /// How it is opened and made here, in the words of the shell. `open DEVICE NAME [header:DEVICE]` is
    /// `cryptsetup-open` with the key.
    made_by: &'static [&'static str],
    /// How it is opened again, where that is not done by opening all that is encrypted.
    opened_by: &'static [&'static str],
    /// The device on top.
    top: &'static str,
    /// How the kernel opens it. `$1`, `$2` … are the disks, and `open DEVICE NAME [OPTION…]` is `cryptsetup open`.
    kernel: &'static str,
    /// The kernel's name of the device on top.
    kernel_top: &'static str,
}

const LUKS1: &[&str] = &["--type", "luks1"];
const LUKS2: &[&str] = &["--type", "luks2", "--sector-size", "512"];
const LUKS2_LARGE: &[&str] = &["--type", "luks2", "--sector-size", "4096"];
const GROUP_ON_TWO: &[&str] = &[
    "open /dev/sda one",
    "open /dev/sdb two",
    "vgcreate onluks \"/dev/mapper/one /dev/mapper/two\"",
    "lvcreate-free root onluks 100 stripes:2",
];

const STACKS: &[Stack] = &[
    Stack {
        name: "LUKS1",
        disks: &[(16, LUKS1)],
        made_by: &["open /dev/sda plain"],
        opened_by: &["open /dev/sda plain"],
        top: "/dev/mapper/plain",
        kernel: "open $1 luks1",
        kernel_top: "/dev/mapper/luks1",
    },
    Stack {
        name: "LUKS2 with sectors of 512 bytes",
        disks: &[(32, LUKS2)],
        made_by: &["open /dev/sda plain"],
        opened_by: &["open /dev/sda plain"],
        top: "/dev/mapper/plain",
        kernel: "open $1 luks2",
        kernel_top: "/dev/mapper/luks2",
    },
    Stack {
        name: "LUKS2 with sectors of 4096 bytes",
        disks: &[(32, LUKS2_LARGE)],
        made_by: &["open /dev/sda plain"],
        opened_by: &["open /dev/sda plain"],
        top: "/dev/mapper/plain",
        kernel: "open $1 large",
        kernel_top: "/dev/mapper/large",
    },
    Stack {
        name: "LVM on LUKS",
        disks: &[(40, LUKS2), (40, LUKS2_LARGE)],
        made_by: GROUP_ON_TWO,
        opened_by: &[],
        top: "/dev/onluks/root",
        kernel: "open $1 pv1; open $2 pv2; vgck onluks; vgchange -q -ay onluks >&2",
        kernel_top: "/dev/onluks/root",
    },
    Stack {
        name: "LUKS in LVM",
        disks: &[(40, &[])],
        made_by: &[
            "vgcreate holds /dev/sda",
            "lvcreate-free secret holds 100",
            "luks-format /dev/holds/secret",
            "open /dev/holds/secret plain",
        ],
        opened_by: &["open /dev/holds/secret plain"],
        top: "/dev/mapper/plain",
        kernel: "vgck holds; vgchange -q -ay holds >&2; open /dev/holds/secret inlvm",
        kernel_top: "/dev/mapper/inlvm",
    },
    Stack {
        name: "LUKS in LVM on md",
        disks: &[(24, &[]), (24, &[]), (24, &[])],
        made_by: &[
            "md-create deep \"/dev/sda /dev/sdb /dev/sdc\" level:raid5 chunk:65536",
            "vgcreate deep /dev/md127",
            "lvcreate-free secret deep 100",
            "luks-format /dev/deep/secret",
            "open /dev/deep/secret plain",
        ],
        opened_by: &["open /dev/deep/secret plain"],
        top: "/dev/mapper/plain",
        kernel: "array 126 $1 $2 $3; vgck deep; vgchange -q -ay deep >&2; open /dev/deep/secret inmd",
        kernel_top: "/dev/mapper/inmd",
    },
    Stack {
        name: "md on LUKS",
        disks: &[(32, LUKS2), (32, LUKS2_LARGE)],
        made_by: &[
            "open /dev/sda one",
            "open /dev/sdb two",
            "md-create mirror \"/dev/mapper/one /dev/mapper/two\" level:raid1",
        ],
        opened_by: &[],
        top: "/dev/md127",
        kernel: "open $1 half1; open $2 half2; array 125 /dev/mapper/half1 /dev/mapper/half2",
        kernel_top: "/dev/md125",
    },
    Stack {
        name: "LUKS2 with its header elsewhere",
        disks: &[(16, &[]), (17, &["--type", "luks2", "--header"])],
        made_by: &["open /dev/sda plain header:/dev/sdb"],
        opened_by: &["open /dev/sda plain header:/dev/sdb"],
        top: "/dev/mapper/plain",
        kernel: "open $1 away --header $2",
        kernel_top: "/dev/mapper/away",
    },
];

/// The functions of the script, before what opens the stacks.
const FUNCTIONS: &str = r#"
printf "correct horse" > /tmp/key
open() { what=$1 as=$2; shift 2; cryptsetup open --key-file /tmp/key "$@" "$what" "$as"; }
# array NUMBER MEMBER...: an array whose copies and parity are right.
array() {
    number=$1; shift
    mdadm --assemble /dev/md$number --run "$@" >&2
    mdadm --readwrite /dev/md$number >&2 || true
    # A new array is synchronised first.
    settle
    md=/sys/block/md$number/md
    [ "$(cat $md/degraded)" = 0 ]
    echo check > $md/sync_action
    settle
    [ "$(cat $md/mismatch_cnt)" = 0 ]
}
# look DEVICE: the sums of all of it, and of the file on it; and a file of its own.
look() {
    blockdev --getsize64 "$1"
    sha256sum < "$1" | cut -d' ' -f1
    e2fsck -fn "$1" >&2
    debugfs -R "cat /dir/content" "$1" 2>/dev/null | sha256sum | cut -d' ' -f1
    echo "by Linux" > /tmp/text
    debugfs -w -R "write /tmp/text by-linux" "$1" >&2
    e2fsck -fn "$1" >&2
}
"#;

/// The stack's disks, as far as cryptsetup has to make them.
fn disks(stack: &Stack, number: usize, dir: &Path) -> Vec<PathBuf> {
    let key = dir.join("key");
    fs::write(&key, PASSPHRASE).expect("space for a key file");
    let images: Vec<PathBuf> = (0..stack.disks.len())
        .map(|at| disk(dir, &format!("{number}.{at}.img"), stack.disks[at].0))
        .collect();
    for (image, (_, made)) in images.iter().zip(stack.disks).filter(|(_, (_, made))| !made.is_empty()) {
        let quick = ["-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let mut arguments: Vec<&str> = quick.iter().chain(*made).copied().collect();
        arguments.extend([text(image), "--key-file", text(&key)]);
        if made.contains(&"--header") {
            // What the header is followed by on the command line is the device of the data.
            arguments.push(text(&images[0]));
        }
        testkit::run_ok("cryptsetup", arguments);
    }
    images
}

fn key() -> Key {
    Key::new(PASSPHRASE.into())
}

/// Does what a line of a stack says.
fn perform(guest: &mut Guest, line: &str) {
    let quoted: Vec<&str> = line.split('"').collect();
    let mut words: Vec<&str> = quoted[0].split_whitespace().collect();
    if let [_, members, rest] = quoted[..] {
        words.push(members);
        words.extend(rest.split_whitespace());
    }
    let device = DeviceName::new(words[1]);
    let done = match words[0] {
        "open" => {
            let header = words.get(3).and_then(|option| option.strip_prefix("header:")).map(DeviceName::new);
            guest.cryptsetup_open(device, &key(), words[2], None, None, header)
        }
        "luks-format" => guest.luks_format(device, &key(), 0, None),
        _ => call(guest, &words).map(drop),
    };
    done.unwrap_or_else(|e| panic!("{line}: {e}"));
}

/// Opens what is encrypted, and mounts what is on top.
fn mount(guest: &mut Guest, stack: &Stack) {
    for line in stack.opened_by {
        perform(guest, line);
    }
    if stack.opened_by.is_empty() {
        guest.add_key("all", key());
        guest.open_encrypted().unwrap_or_else(|e| panic!("{}: {e}", stack.name));
    }
    guest
        .mount(Mountable::new(stack.top), GuestPath::new("/"))
        .unwrap_or_else(|e| panic!("{}: {e}", stack.name));
}

fn sum(guest: &mut Guest, words: &[&str]) -> String {
    match call(guest, words) {
        Ok(Value::String(sum)) => sum.to_string(),
        other => panic!("{words:?}: {other:?}"),
    }
}

/// Makes a stack and writes to it, in two sessions. Gives what the kernel has to say of it.
fn make(stack: &Stack, images: &[PathBuf], content: &Path) -> String {
    let mut guest = open(images);
    for line in stack.made_by {
        perform(&mut guest, line);
    }
    call(&mut guest, &["mkfs", "ext4", stack.top]).unwrap_or_else(|e| panic!("{}: {e}", stack.name));
    guest.shutdown().unwrap_or_else(|e| panic!("{}: {e}", stack.name));

    let mut guest = open(images);
    mount(&mut guest, stack);
    guest.mkdir(GuestPath::new("/dir")).expect("a directory");
    call(&mut guest, &["upload", text(content), "/dir/content"]).expect("a file");
    let of_file = sum(&mut guest, &["checksum", "sha256", "/dir/content"]);
    guest.umount_all().expect("it unmounts");
    let of_all = sum(&mut guest, &["checksum-device", "sha256", stack.top]);
    let size = guest.blockdev_getsize64(DeviceName::new(stack.top)).expect("a size");
    guest.shutdown().unwrap_or_else(|e| panic!("{}: {e}", stack.name));
    format!("{}\n{size}\n{of_all}\n{of_file}\n", stack.name)
}

#[test]
fn the_kernel_opens_encrypted_stacks_that_were_made_here() {
    if !testkit::long_suites("making stacks and starting a kernel takes minutes") {
        return;
    }
    let dir = testkit::tempdir();
    let content = dir.path().join("content");
    let lines: String = (0..100_000).map(|line: u32| format!("{line:x} of what is to be read\n")).collect();
    fs::write(&content, lines).expect("space for a file");

    let made: Vec<_> = STACKS
        .iter()
        .enumerate()
        .map(|(number, stack)| {
            let images = disks(stack, number, dir.path());
            let expected = make(stack, &images, &content);
            (stack, images, expected)
        })
        .collect();

    let mut letters = 'a'..='z';
    let scripts: String = made
        .iter()
        .map(|(stack, images, _)| {
            let names = letters.by_ref().take(images.len()).map(|letter| format!("/dev/vd{letter}"));
            let names: Vec<_> = names.collect();
            let Stack { name, kernel, kernel_top, .. } = stack;
            format!("set -- {}; echo '{name}'; {kernel}; look {kernel_top}\n", names.join(" "))
        })
        .collect();
    let all: Vec<_> = made.iter().flat_map(|(_, images, _)| images).map(|image| Disk::raw(image)).collect();
    let said = run_ok(&all, &format!("{FUNCTIONS}{scripts}"));
    assert_eq!(said, made.iter().map(|(.., expected)| expected.as_str()).collect::<String>());

    for (stack, images, _) in &made {
        let mut guest = open(images);
        mount(&mut guest, stack);
        let text =
            guest.read_file(GuestPath::new("/by-linux")).unwrap_or_else(|e| panic!("{}: {e}", stack.name));
        assert_eq!(text, b"by Linux\n", "{}", stack.name);
        assert_eq!(guest.take_warnings(), Vec::<String>::new(), "{}", stack.name);
    }
}
