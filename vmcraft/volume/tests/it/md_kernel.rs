//! What we made and wrote, taken by the kernel's md: it starts it, finds no mismatch, and reads the same.

use std::fmt::Write as _;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use testkit::appliance::{self, Disk};
use vmcraft_block::MemoryDevice;
use vmcraft_volume::Member;
use vmcraft_volume::md::Level;

use crate::md::{fixture, only, sha256};
use crate::md_write::{create, new_array, scribble};

/// Arrays whose members lie one after the other in one image.
struct Image {
    file: std::fs::File,
    end: u64,
    script: String,
    expect: Vec<(String, String)>,
}

impl Image {
    fn add(&mut self, name: &str, members: &[Member], content: &[u8], stale: Option<usize>) {
        let number = self.expect.len() + 1;
        let mut devices = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let bytes = crate::md::content(&*member.device);
            self.file.write_all_at(&bytes, self.end).expect("written");
            let (start, len) = (self.end / 512, bytes.len() / 512);
            let device = format!("m{number}-{index}");
            let _ =
                writeln!(self.script, "dmsetup create {device} --table '0 {len} linear /dev/vda {start}'");
            devices.push(format!("/dev/mapper/{device}"));
            self.end += (bytes.len() as u64).next_multiple_of(1 << 20);
        }
        let all = devices.join(" ");
        let _ = writeln!(
            self.script,
            "mdadm --assemble --run /dev/md{number} {all} >&2; s=/sys/block/md{number}/md; mdadm --readwrite /dev/md{number} >&2 || true; idle"
        );
        let _ = writeln!(
            self.script,
            "echo {name} started $(cat $s/degraded) $(blockdev --getsize64 /dev/md{number})"
        );
        if let Some(stale) = stale {
            let stale = &devices[stale];
            // Where there is a bitmap, only what it has marked is copied.
            let _ = writeln!(
                self.script,
                "mdadm /dev/md{number} --re-add {stale} >&2 || mdadm /dev/md{number} --add {stale} >&2"
            );
            let _ = writeln!(self.script, "sleep 1; mdadm --wait /dev/md{number} >&2 || true; idle");
        }
        let _ = writeln!(self.script, "echo check > $s/sync_action; idle");
        let _ = writeln!(
            self.script,
            "echo {name} $(cat $s/degraded) $(cat $s/mismatch_cnt) $(sha256sum < /dev/md{number} | cut -d' ' -f1)"
        );
        let _ = writeln!(self.script, "mdadm --stop /dev/md{number} >&2");
        self.expect.push((
            format!("{name} started {} {}", usize::from(stale.is_some()), content.len()),
            format!("{name} 0 0 {}", sha256(content)),
        ));
    }
}

#[test]
fn the_kernel_finds_no_mismatch_in_what_we_wrote() {
    if !testkit::long_suites("md arrays in the kernel after we wrote them") {
        return;
    }
    let dir = testkit::tempdir();
    let path = dir.path().join("members.img");
    let file = std::fs::File::create(&path).expect("created");
    let script = "modprobe -a raid0 raid1 raid10 raid456 >&2\n\
                  idle() { until [ \"$(cat $s/sync_action)\" = idle ] && [ \"$(cat $s/resync_start)\" = none ]; do sleep 0.2; done; }\n";
    let mut image = Image { file, end: 0, script: script.into(), expect: Vec::new() };
    for name in [
        "raid1-1.2",
        "raid1-0.90",
        "raid4",
        "raid5-1.0",
        "raid5-0.90",
        "raid5-ppl",
        "raid5-left-symmetric",
        "raid5-right-asymmetric",
        "raid5-unsynced",
        "raid6-left-symmetric",
        "raid6-ddf-N-continue",
        "raid6-ddf-zero-restart",
        "raid6-left-asymmetric-6",
        "raid10-n2-3",
        "raid10-f2-5",
        "raid10-o2-3",
    ] {
        let members = fixture(name).devices(&[]);
        let written = scribble(&*only(&members).open().expect("open"));
        image.add(name, &members, &written, None);
    }
    for (name, missing) in [
        ("raid1-bitmap", 0),
        ("raid5-bitmap", 1),
        ("raid5-1.0", 2),
        ("raid5-0.90", 0),
        ("raid6-left-symmetric", 3),
        ("raid10-f2-5", 4),
    ] {
        let fixture = fixture(name);
        let all = fixture.devices(&[]);
        let mut kept = all.clone();
        kept.remove(missing);
        let written = scribble(&*only(&kept).open().expect("open"));
        image.add(&format!("{name}-degraded"), &all, &written, Some(missing));
    }
    for level in [Level::Raid1, Level::Raid5, Level::Raid6, Level::Raid10] {
        let mut new = new_array(level);
        new.has_bitmap = level != Level::Raid6;
        if matches!(level, Level::Raid1 | Level::Raid10) {
            // Of copies that differ, Linux takes any; so these hold the same.
            for member in new.members.iter_mut().flatten() {
                member.device = Arc::new(MemoryDevice::new(vec![0x5a; 8 << 20]));
            }
        }
        create(&new).expect("made");
        let members: Vec<Member> = new.members.into_iter().flatten().collect();
        // Of what was never written, copies and parity fit when Linux has made them so.
        let device = only(&members).open().expect("open");
        let written = scribble(&*device);
        image.add(&format!("new-{}", level.name()), &members, &written, None);
    }
    image.file.set_len(image.end).expect("long enough");
    let output = appliance::run_ok(&[Disk::raw(&path)], &image.script);
    let lines: Vec<&str> = output.lines().collect();
    for (started, checked) in &image.expect {
        assert!(lines.contains(&started.as_str()), "no {started:?} in:\n{output}");
        assert!(lines.contains(&checked.as_str()), "no {checked:?} in:\n{output}");
    }
}
