//! A guest that boots in QEMU, at its serial console.

use std::path::Path;
use std::process::Command;

use rexpect::session::{PtySession, spawn_command};

/// How long the guest may take to boot, emulated on a busy machine: only a failure takes it.
const PATIENCE_MS: u64 = 400_000;

/// The guest at its serial console.
pub(crate) struct Console(PtySession);

impl Console {
    /// Starts what the boot loader on a raw disk starts.
    pub(crate) fn boot(disk: &Path) -> Self {
        Self::start(disk, "raw", |_| ())
    }

    /// Starts a kernel with an initramfs. The guest's disk is a qcow2 image.
    pub(crate) fn boot_kernel(disk: &Path, kernel: &Path, initramfs: &Path, command_line: &str) -> Self {
        Self::start(disk, "qcow2", |command| {
            command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).arg("-append").arg(command_line);
        })
    }

    fn start(disk: &Path, format: &str, add_options: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(testkit::require("qemu-system-x86_64"));
        // More processors gain little when they are emulated, and now and then make QEMU abort.
        command
            .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "1", "-m", "768", "-nic", "none"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"])
            .arg("-drive")
            .arg(format!("file={},if=virtio,format={format}", disk.display()));
        add_options(&mut command);
        Self(spawn_command(command, Some(PATIENCE_MS)).expect("QEMU starts"))
    }

    /// Waits until the console shows a text.
    pub(crate) fn sees(&mut self, shown: &str) -> &mut Self {
        if let Err(e) = self.0.exp_string(shown) {
            panic!("the console does not show {shown:?}: {e}");
        }
        self
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) -> &mut Self {
        self.0.send_line(line).expect("the console takes keys");
        self
    }

    /// Waits until the machine is off, and all that it wrote is in the image.
    pub(crate) fn ends(mut self) {
        self.0.exp_eof().expect("the machine ends");
    }
}
