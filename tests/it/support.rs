//! The binary under test and the images it is run on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The `vmcraft` binary, which stands above this test's in the target directory.
pub(crate) fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let built = own.ancestors().nth(2).expect("target/PROFILE/deps/it").join("vmcraft");
    assert!(built.exists(), "{}: build it first: cargo build -p vmcraft-cli", built.display());
    built
}

/// The binary, which hears ^C also where whoever started the tests had it ignored.
pub(crate) fn interruptible() -> Command {
    let mut command = Command::new(testkit::require("env"));
    command.arg("--default-signal=INT").arg(binary());
    command
}

/// The binary under another name, as a symbolic link in `dir`.
pub(crate) fn named(name: &str, dir: &Path) -> PathBuf {
    let link = dir.join(name);
    std::os::unix::fs::symlink(binary(), &link).expect("the link can be made");
    link
}

/// The committed small guest, unpacked into `dir`.
pub(crate) fn small_guest(dir: &Path) -> PathBuf {
    let packed = testkit::workspace().join("fixtures/images/small-guest.img.zst");
    let image = dir.join("small-guest.img");
    testkit::run_ok(
        "zstd",
        ["-q".as_ref(), "-d".as_ref(), packed.as_os_str(), "-o".as_ref(), image.as_os_str()],
    );
    image
}

/// The small guest's image in a directory of its own, which has room for what else a test needs.
pub(crate) struct Guest {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) image: PathBuf,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let dir = testkit::tempdir();
        let image = small_guest(dir.path());
        Self { dir, image }
    }

    /// The binary with the image, mounted.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.dir.path()).arg("-a").arg(&self.image).arg("-i");
        command
    }
}

/// Runs a command with an empty standard input.
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// The program as an ordinary user, who may look into `dir`: nobody, if the test runs as root.
pub(crate) fn as_nobody(dir: &Path) -> impl Fn() -> Command + use<> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("own directory");
    let is_root = testkit::have_root();
    let copy = dir.join("vmcraft");
    if is_root {
        // The binary may stand where nobody may go, so it is copied.
        std::fs::copy(binary(), &copy).expect("space for the binary");
    }
    move || match is_root {
        true => {
            let mut command = Command::new(testkit::require("setpriv"));
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
            command
        }
        false => Command::new(binary()),
    }
}
