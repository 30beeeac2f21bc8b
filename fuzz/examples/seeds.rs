//! Writes the inputs that fuzzing starts from, made of the images in `fixtures/` and by the formats' own tools, into
//! `corpus/TARGET/` of the directory given.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::device::{Hooked, Request};
use testkit::{corpus, require, run_ok, tempdir};
use vmcraft_block::{Access, BlockDevice, MemoryDevice, Transaction, TransactionOptions};
use vmcraft_fuzz::section::{CONTENT, HEADERS, IMAGE, Image, cut_off, session_disk, session_options};
use vmcraft_fuzz::{disk, encode, encode_files, members, thin_kind, volumes};

fn main() {
    let corpus = std::env::args_os().nth(1).expect("the directory of the corpus");
    let corpus = Path::new(&corpus);
    let save = |target: &str, name: &str, bytes: &[u8]| {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(dir.join(name), bytes))
            .expect("a place for the seeds");
    };
    for name in testkit::volumes::names("") {
        let case = testkit::volumes::case(&name);
        let disks: Vec<Vec<u8>> = case.disks.iter().map(|disk| fs::read(disk).expect("a disk")).collect();
        save("volumes", &name, &what_is_read(&disks));
        if name.starts_with("lvm-") || name == "stack-thin-on-raid" {
            save("lvm_text", &name, &lvm_text(&disks[0]));
        }
        if let Some(json) = luks2_json(&disks) {
            save("luks2_json", &name, json);
        }
    }
    let dir = tempdir();
    let metadata = testkit::workspace().join("fixtures/images/volumes/dm-thin/metadata.img.zst");
    let image = dir.path().join("metadata.img");
    run_ok("zstd", ["-dqf".as_ref(), metadata.as_os_str(), "-o".as_ref(), image.as_os_str()]);
    save("thin", "metadata", &encode(&[fs::read(&image).expect("the metadata")], thin_kind, all));

    for (index, options) in
        ["-text2", "-text3", "-text4", "-text4 -O inline_data,^has_journal -I 256"].iter().enumerate()
    {
        let image = dir.path().join("ext4.img");
        let _ = fs::remove_file(&image);
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("dir")).expect("a directory");
        fs::write(tree.join("hello"), "hello\n").expect("a file");
        fs::write(tree.join("dir/1"), vec![1; 9000]).expect("a file");
        let mut words = vec!["-q", "-F", "-b", "1024"];
        let options = options.replace("-text", "-t ext");
        words.extend(options.split(' '));
        // Checksums of metadata would keep the fuzzer from what is behind them.
        words.extend(["-O", "^metadata_csum,^uninit_bg", "-N", "32", "-d"]);
        run_ok(
            "mke2fs",
            words.into_iter().map(OsString::from).chain([tree.into(), image.clone().into(), "512".into()]),
        );
        save("ext4", &index.to_string(), &encode(&[fs::read(&image).expect("the image")], |_| 0, all));
    }
    for (name, options) in [
        ("v2", "compat=0.10,cluster_size=512"),
        ("v3", "compat=1.1,cluster_size=512"),
        ("extended", "extended_l2=on,cluster_size=16384"),
        ("wide", "refcount_bits=64,cluster_size=4096"),
    ] {
        let image = dir.path().join("image.qcow2");
        let words = ["create", "-q", "-f", "qcow2", "-o", options];
        run_ok(
            "qemu-img",
            words.map(OsString::from).into_iter().chain([image.clone().into(), "256K".into()]),
        );
        let write = ["-f", "qcow2", "-c", "write -P 7 0 3k", "-c", "write -P 8 100k 2k"];
        run_ok("qemu-io", write.map(OsString::from).into_iter().chain([image.clone().into()]));
        save("qcow2", name, &fs::read(&image).expect("the image"));
    }
    partitions(dir.path(), &save);
    bitlocker(dir.path(), &save);
    ext4_journal(dir.path(), &save);
    nbd(&save);
    journals(&save);
    undo_files(&save);
    archives(dir.path(), &save);
    texts(&save);
}

/// What wants all blocks.
fn all(_: usize, _: u64) -> bool {
    true
}

/// Disks, of which what is read is kept when the volumes on them are found and opened. What else is there is content,
/// which has no structure.
fn what_is_read(disks: &[Vec<u8>]) -> Vec<u8> {
    let sectors: Arc<Mutex<HashSet<(usize, u64)>>> = Arc::default();
    let watch = |(number, disk): (usize, &Vec<u8>)| -> Arc<dyn BlockDevice> {
        let seen = sectors.clone();
        let hook = move |request| {
            if let Request::Read(at, len) = request {
                let range = at / 512..at.saturating_add(len).div_ceil(512);
                seen.lock().expect("no panic").extend(range.map(|sector| (number, sector)));
            }
            Ok(())
        };
        Arc::new(Hooked { inner: MemoryDevice::new(disk.clone()), hook })
    };
    let mut devices = disks.iter().enumerate().map(watch).collect();
    for _ in 0..3 {
        devices = volumes(&members(devices));
    }
    let sectors = sectors.lock().expect("no panic");
    let is_free = |disk: usize, sector: u64| {
        let at = usize::try_from(sector * 512).expect("a small disk");
        // Blocks of an LDM database that hold no record: there are thousands.
        disks[disk][at..at + 512]
            .chunks(128)
            .all(|block| block.starts_with(b"VBLK") && block[14..16] == [0; 2])
    };
    encode(disks, |_| 0, |disk, sector| sectors.contains(&(disk, sector)) && !is_free(disk, sector))
}

/// Writes an input of a target.
type Save<'a> = dyn Fn(&str, &str, &[u8]) + 'a;

fn shell(dir: &Path, script: &str) {
    run_ok("bash", ["-euc".as_ref(), format!("cd \"$0\"\n{script}").as_ref(), dir.as_os_str()]);
}

fn partitions(dir: &Path, save: &Save<'_>) {
    for (name, script) in [
        (
            "gpt",
            "printf 'label: gpt\\nsize=1000, name=one, attrs=LegacyBIOSBootable\\nsize=3000, type=U\\n,\\n' | sfdisk -q disk",
        ),
        ("gpt-4096", "printf 'g\\nn\\n\\n\\n+300\\nw\\n' | fdisk --sector-size 4096 disk > /dev/null"),
        ("hybrid", "sgdisk -n 1:2048:4000 -n 2:5000:6000 -h 1:2 disk > /dev/null"),
        ("mbr", "printf 'label: dos\\nsize=1000, type=7, bootable\\nsize=2000\\n' | sfdisk -q disk"),
        (
            "logical",
            "printf 'label: dos\\nsize=100\\ntype=5\\nsize=1000\\nsize=1000\\nsize=1000, type=82\\n' | sfdisk -q disk",
        ),
    ] {
        shell(dir, &format!("rm -f disk; truncate -s 8M disk; {script}"));
        let disk = fs::read(dir.join("disk")).expect("the disk");
        save("partitions", name, &encode(&[disk], |_| 0, all));
    }
}

fn bitlocker(dir: &Path, save: &Save<'_>) {
    let Some(corpus) = corpus::dir() else { return };
    for row in ["dissect-bde-aes", "dissect-bde-decrypted"]
        .iter()
        .flat_map(|name| corpus::rows(&corpus, &format!("bitlocker/{name}")))
    {
        let image = corpus::unpack(&corpus, &row, dir);
        let volume = fs::read(&image).expect("unpacked");
        fs::remove_file(image).expect("it is ours");
        save("volumes", &row.path.replace('/', "-"), &what_is_read(&[volume]));
    }
}

/// Volumes with a journal that debugfs wrote: a directory's block, a revoked block, two commits.
fn ext4_journal(dir: &Path, save: &Save<'_>) {
    for (name, features, options) in
        [("plain", "^metadata_csum,^uninit_bg", ""), ("v3", "metadata_csum", "-c -v 3")]
    {
        shell(
            dir,
            &format!(
                "rm -rf image root; mkdir -p root/dir; echo hello > root/hello
                mke2fs -q -F -t ext4 -b 1024 -J size=1 -O {features},^resize_inode -N 32 -d root image 4M
                block=$(debugfs -R 'blocks /' image 2> /dev/null | tr -d ' ')
                dd if=image of=copy bs=1024 skip=$block count=1 status=none
                sed -i s/hello/howdy/ copy; cat copy copy > twice
                printf '\\300\\073\\071\\230 escaped' | dd of=twice bs=1024 seek=1 conv=notrunc status=none
                printf 'jo {options}\\njw -b %s,3000 twice\\njc\\njo {options}\\njw -r 3000 /dev/null\\njc\\n' $block |
                    debugfs -w -f - image > /dev/null 2>&1",
            ),
        );
        let image = fs::read(dir.join("image")).expect("the image");
        save("ext4_journal", name, &encode(&[image], |_| 0, all));
    }
}

/// What servers say to who uses them.
fn nbd(save: &Save<'_>) {
    for (name, arguments) in [
        ("structured", &["memory", "1M"][..]),
        ("simple", &["--no-sr", "memory", "1M"]),
        ("old", &["--mask-handshake=0", "memory", "1M"]),
        (
            "blocks",
            &[
                "--filter=blocksize-policy",
                "memory",
                "1M",
                "blocksize-minimum=4096",
                "blocksize-error-policy=error",
            ],
        ),
        ("errors", &["--filter=error", "memory", "1M", "error=ENOSPC", "error-rate=30%"]),
        ("export", &["--filter=exportname", "memory", "1M", "exportname=other", "exportname-strict=true"]),
    ] {
        let (client, theirs) = UnixStream::pair().expect("sockets");
        let (ours, server) = UnixStream::pair().expect("sockets");
        let server = OwnedFd::from(server);
        let mut process = Command::new(require("nbdkit"))
            .args(["-s", "-f"])
            .args(arguments)
            .stdin(server.try_clone().expect("a descriptor"))
            .stdout(server)
            .spawn()
            .expect("nbdkit runs");
        let mut said = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| vmcraft_fuzz::nbd(client, Duration::from_secs(30)));
            scope.spawn(|| {
                let _ = io::copy(&mut &theirs, &mut &ours);
                let _ = ours.shutdown(Shutdown::Write);
            });
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = (&ours).read(&mut bytes) {
                said.extend(&bytes[..len]);
                let _ = (&theirs).write_all(&bytes[..len]);
            }
            let _ = theirs.shutdown(Shutdown::Both);
        });
        process.wait().expect("it ends");
        assert!(said.len() > 100, "{name}: the server said {said:?}");
        save("nbd", name, &said);
    }
}

/// Images with something in them, and a change to both.
fn images() -> [Image; 2] {
    [1, 2].map(|seed| {
        let device = disk(8 << 20);
        for at in [0, 70_000, 4 << 20] {
            device.write_at(at, &[seed; 700]).expect("in range");
        }
        Image::new(device)
    })
}

fn change(transaction: &Transaction, seed: u8) {
    for number in 0..2 {
        let Some(device) = transaction.device(number) else { return };
        device.write_at(300, &[seed; 1000]).expect("in range");
        device.write_at((4 << 20) + 100, &[0; 2000]).expect("in range");
        device.write_at(6 << 20, &[seed + 1; 512]).expect("in range");
        let discard = device.discard().expect("it can be discarded");
        discard.discard(65_536, 65_536).expect("in range");
        discard.write_zeroes(4 << 20, 1 << 20).expect("in range");
    }
}

/// All of a device.
fn content(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.size()).expect("a small disk")];
    device.read_at(0, &mut bytes).expect("in range");
    bytes
}

/// Which checksums are made to fit, the images, and a file.
fn session(how: u8, images: &[Image; 2], path: &Path) -> Vec<u8> {
    let mut file = fs::read(path).expect("the file");
    file.resize(file.len().next_multiple_of(512), 0);
    let [first, second] = images.each_ref().map(|image| content(&*image.device));
    [&[how][..], &encode(&[first, second, file], |_| 0, all)].concat()
}

fn journals(save: &Save<'_>) {
    for (name, count, how) in
        [("one", 1, 0), ("two", 2, 0), ("alone", 2, 8 | 16), ("sealed", 2, HEADERS | CONTENT | IMAGE)]
    {
        let (dir, images) = (tempdir(), images());
        let disks = images.iter().take(count).enumerate();
        let disks = disks.map(|(number, image)| session_disk(number, image, Access::Commit)).collect();
        let path = cut_off(dir.path(), disks, |transaction| change(transaction, 10));
        save("journal", name, &session(how, &images, &path));
    }
}

fn undo_files(save: &Save<'_>) {
    for (name, commits, how) in [("one", 1, 0), ("two", 2, 0), ("sealed", 1, HEADERS | CONTENT | IMAGE)] {
        let (dir, images) = (tempdir(), images());
        let path = dir.path().join("undo");
        let options = TransactionOptions { undo: Some(path.clone()), ..session_options(dir.path()) };
        let disks =
            images.iter().enumerate().map(|(number, image)| session_disk(number, image, Access::Commit));
        let transaction = Transaction::new(disks.collect(), options);
        for commit in 0..commits {
            change(&transaction, 20 + commit);
            transaction.commit().expect("a commit");
        }
        save("undo", name, &session(how, &images, &path));
    }
}

/// Archives in each format, of a tree with files of each kind.
fn archives(dir: &Path, save: &Save<'_>) {
    shell(
        dir,
        "rm -rf tree; mkdir -p tree/a/b; cd tree; echo content > a/file; ln a/file hard; ln -s ../a/file a/b/up
        ln -s /etc absolute; mkfifo pipe; mkdir \"$(printf 'd%.0s' $(seq 120))\"; truncate -s 300K holes
        printf x | dd of=holes bs=1 seek=200000 conv=notrunc status=none; ln -s \"$(printf 't%.0s' $(seq 200))\" long",
    );
    for (name, command) in [
        ("ustar", "tar -C tree --format=ustar -cf archive a hard absolute pipe"),
        ("gnu", "tar -C tree --format=gnu -Scf archive ."),
        ("pax", "tar -C tree --format=pax -Scf archive ."),
        ("v7", "tar -C tree --format=v7 -cf archive a hard"),
        ("gzip", "tar -C tree -czf archive ."),
        ("bzip2", "tar -C tree -cjf archive ."),
        ("xz", "tar -C tree -cJf archive ."),
        ("zstd", "tar -C tree --zstd -cf archive ."),
        ("newc", "cd tree; find a hard absolute pipe | cpio --quiet -o -H newc > ../archive"),
        ("crc", "cd tree; find a hard absolute pipe | cpio --quiet -o -H crc > ../archive"),
        ("odc", "cd tree; find a hard absolute pipe | cpio --quiet -o -H odc > ../archive"),
        ("bin", "cd tree; find a hard absolute pipe | cpio --quiet -o -H bin > ../archive"),
    ] {
        shell(dir, command);
        let is_cpio = command.contains("cpio");
        let archive = fs::read(dir.join("archive")).expect("the archive");
        save("unpack", name, &[&[u8::from(is_cpio)][..], &archive].concat());
    }
}

fn texts(save: &Save<'_>) {
    let debian: &[(&str, &[u8])] = &[
        ("/etc/os-release", b"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"),
        ("/etc/debian_version", b"12.5\n"),
        ("/etc/fstab", b"# static\nUUID=1b6b / ext4 errors=remount-ro 0 1\n/dev/sda1 /boot\\040x ext2 defaults\n/dev/mapper/root /srv auto\n"),
        ("/etc/crypttab", b"root UUID=1234 none luks,discard\nswap /dev/sda2 /dev/urandom swap\n"),
        ("/etc/hostname", b"host\n"),
        ("/etc/hosts", b"127.0.0.1 localhost\n127.0.1.1 host.example.org host\n"),
        ("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:User,,,:/home/user:/bin/sh\n"),
        ("/etc/shadow", b"root:*:19000:0:99999:7:::\nuser:$6$a$b:19000:0:99999:7:::\n"),
        ("/var/lib/dpkg/status", b"Package: bash\nStatus: install ok installed\nVersion: 1:5.2-1+b1\nArchitecture: amd64\nDescription: shell\n It is\n .\n long\n\n"),
    ];
    let fedora: &[(&str, &[u8])] = &[
        ("/etc/redhat-release", b"Fedora release 39 (Thirty Nine)\n"),
        ("/etc/fstab", b"LABEL=root / btrfs subvol=root,compress=zstd:1 0 0\n/dev/vda2 /boot ext4 defaults 1 2\n"),
        ("/etc/selinux/config", b"SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
        (
            "/etc/selinux/targeted/contexts/files/file_contexts",
            b"/.* system_u:object_r:default_t:s0\n/etc(/.*)? system_u:object_r:etc_t:s0\n/home/[^/]+/.+ -- system_u:object_r:user_home_t:s0\n/bin/(ba|z)?sh\t--\tsystem_u:object_r:shell_exec_t:s0\n/root/a{1,3}\\.b -d <<none>>\n",
        ),
        ("/etc/selinux/targeted/contexts/files/file_contexts.subs", b"/srv /var\n/usr/bin /bin\n"),
        ("/boot/grub2/grub.cfg", b"set default=0\nmenuentry 'Fedora' --class fedora {\n linux /vmlinuz-6.5 root=LABEL=root ro\n initrd /initramfs\n}\n"),
        ("/boot/grub2/grubenv", b"# GRUB Environment Block\nsaved_entry=entry\nkernelopts=root=LABEL=root\n"),
        ("/boot/loader/entries/entry.conf", b"title Fedora\nversion 6.5\nlinux /vmlinuz-6.5\ninitrd /initramfs-6.5\noptions root=LABEL=root $tuned\n"),
    ];
    let alpine: &[(&str, &[u8])] = &[
        ("/usr/lib/os-release", b"ID=alpine\nVERSION_ID=3.19.0\nNAME='Alpine Linux'\n"),
        ("/lib/apk/db/installed", b"C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nT:the c library\n\n"),
        ("/etc/lsb-release", b"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\nDISTRIB_DESCRIPTION=\"Ubuntu\"\n"),
        ("/etc/sysconfig/clock", b"ZONE=\"Europe/Berlin\"\nUTC=true\n"),
        ("/etc/sysconfig/network", b"NETWORKING=yes\nHOSTNAME=host.example.org\n"),
        ("", b"u::rwx,u:1000:rw-,g::r-x,g:user:r,m::rwx,o::---\n"),
        ("", b"user::rwx # comment\ndefault:group:1:rx\nmask::7\nother::0"),
    ];
    for (name, files) in [("debian", debian), ("fedora", fedora), ("alpine", alpine)] {
        save("guest_text", name, &encode_files(files));
    }
}

/// The label's sector and the newest text of a physical volume.
fn lvm_text(disk: &[u8]) -> Vec<u8> {
    let le64 = |at: usize| u64::from_le_bytes(disk[at..at + 8].try_into().expect("8 bytes")) as usize;
    let (offset, size) = (le64(4096 + 40), le64(4096 + 48));
    let text = disk.get(4096 + offset..4096 + offset + size).unwrap_or_default();
    [&disk[512..1024], text].concat()
}

/// The text of the first LUKS2 header there is.
fn luks2_json(disks: &[Vec<u8>]) -> Option<&[u8]> {
    disks.iter().find_map(|disk| {
        let at = disk.chunks(512).position(|sector| sector.starts_with(b"LUKS\xba\xbe\0\x02"))? * 512;
        disk.get(at + 4096..at + 16384)?.split(|byte| *byte == 0).next()
    })
}
