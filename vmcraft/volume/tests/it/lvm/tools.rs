//! LVM's own tools over image files: on loop devices, without the device mapper.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use vmcraft_block::RawFile;
use vmcraft_volume::Member;
use vmcraft_volume::lvm::Author;

/// A loop device, detached when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the next test takes another device.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// Image files under LVM's tools.
pub(super) struct Tools {
    loops: Vec<Loop>,
}

impl Tools {
    /// Attaches the images. They must not be written by others meanwhile.
    pub(super) fn attach(images: &[&Path]) -> Self {
        testkit::require("lvm");
        let attach = |image: &&Path| {
            let image = image.to_str().expect("a name in UTF-8");
            Loop(testkit::run_ok("losetup", ["-f", "--show", image]).trim().to_string())
        };
        Self { loops: images.iter().map(attach).collect() }
    }

    /// The device of an image.
    pub(super) fn device(&self, index: usize) -> &str {
        &self.loops[index].0
    }

    /// Runs one of LVM's commands, which sees these images and nothing else.
    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        let accept: Vec<String> = self.loops.iter().map(|l| format!("\"a|^{}$|\"", l.0)).collect();
        let config = format!(
            "devices {{ use_devicesfile=0 hints=\"none\" scan_lvs=0 obtain_device_list_from_udev=0 \
             filter=[{},\"r|.*|\"] }} activation {{ udev_sync=0 udev_rules=0 }} global {{ use_lvmpolld=0 }} backup {{ backup=0 archive=0 }}",
            accept.join(",")
        );
        let mut command = Command::new(testkit::require("lvm"));
        command.args(&arguments[..1]);
        if arguments[0] != "pvck" {
            command.args(["--driverloaded", "n"]); // there is no device mapper to talk to
        }
        command.args(["--config", &config]).args(&arguments[1..]);
        command.env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
        // No directory at all: one that is not there would be made.
        command.env("LVM_SYSTEM_DIR", "");
        command.output().expect("lvm runs")
    }

    /// Runs a command that must succeed without a warning. Returns its lines, without blanks around.
    pub(super) fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_about_driver = |line: &str| line.contains("Activation disabled") || line.contains("backed up");
        let complaint = errors.lines().find(|line| !is_about_driver(line) && !line.contains("not zeroed"));
        assert!(output.status.success() && complaint.is_none(), "lvm {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_string()).collect()
    }
}

/// Why LVM's tools cannot be tried here, said once for each test.
pub(super) fn can_attach(what: &str) -> bool {
    let can = testkit::have_root();
    if !can {
        testkit::skip(&format!("{what}: loop devices need root"));
    }
    can
}

/// An image file as a device.
pub(super) fn member(image: &Path) -> Member {
    let file = std::fs::File::options().read(true).write(true).open(image).expect("the image is there");
    let device = RawFile::new(file, false).expect("a raw image");
    Member { name: image.to_str().expect("a name in UTF-8").into(), device: Arc::new(device) }
}

/// A sparse image file of so many MiB.
pub(super) fn image(path: &Path, mebibytes: u64) {
    let file = std::fs::File::create(path).expect("a temporary file");
    file.set_len(mebibytes << 20).expect("a sparse file");
}

/// Calls `body` with an author that makes the same identifiers every time.
pub(super) fn with_author<T>(body: impl FnOnce(&mut Author<'_>) -> T) -> T {
    with_seed(1, body)
}

/// Calls `body` with an author of a seed.
pub(super) fn with_seed<T>(seed: u64, body: impl FnOnce(&mut Author<'_>) -> T) -> T {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0];
        }
    };
    body(&mut Author { random: &mut random, now: 1_700_000_000, host: "host.example" })
}
