//! Everything works without root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{binary, output, small_guest};

#[test]
fn nobody_reads_a_guest() {
    let dir = testkit::tempdir();
    let image = small_guest(dir.path());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    fs::set_permissions(&image, fs::Permissions::from_mode(0o444)).expect("own file");
    let mut command = match testkit::have_root() {
        // The binary may stand where nobody may go, so it is copied.
        true => {
            let copy = dir.path().join("vmcraft");
            fs::copy(binary(), &copy).expect("space for the binary");
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
            command
        }
        false => Command::new(binary()),
    };
    let done = output(command.arg("-a").arg(&image).args(["-i", "--run", "cat /etc/hostname"]));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "small-guest.example.com\n\n");
}
