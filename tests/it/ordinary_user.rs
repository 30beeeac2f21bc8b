//! Everything works without root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{as_nobody, output, small_guest};

/// The small guest's image, which nobody may write, and the program as nobody.
fn guest_and_program(dir: &Path) -> (PathBuf, impl Fn() -> Command) {
    let image = small_guest(dir);
    let program = as_nobody(dir);
    fs::set_permissions(&image, fs::Permissions::from_mode(0o444)).expect("own file");
    (image, program)
}

#[test]
fn nobody_reads_a_guest() {
    let dir = testkit::tempdir();
    let (image, command) = guest_and_program(dir.path());
    let done = output(command().arg("-a").arg(&image).args(["-i", "--run", "cat /etc/hostname"]));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "small-guest.example.com\n\n");
}

#[test] // An image that one may not write can still be looked at; a change is refused with the reason.
fn an_image_that_may_not_be_written_is_opened_read_only() {
    let dir = testkit::tempdir();
    let (image, command) = guest_and_program(dir.path());
    for (call, what) in [("write /etc/hostname x", "/etc/hostname"), ("part-init /dev/sda mbr", "/dev/sda")] {
        let mut command = command();
        command.arg("-a").arg(&image).args(["run", ":"]);
        if call.starts_with("write") {
            command.args(["mount", "/dev/sda1", "/", ":"]);
        }
        let done = output(command.args(call.split(' ')));
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains("warning: ") && said.contains("opened read-only: Permission denied"), "{said}");
        assert!(said.contains(&format!("{what}: cannot be changed: {}", image.display())), "{said}");
    }
}
