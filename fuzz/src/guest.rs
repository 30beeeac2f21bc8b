//! A guest that every input finds as it was.

use std::cell::RefCell;

use vmcraft::{DeviceName, Guest, GuestPath, Mountable};

/// The directories of the guest.
const DIRECTORIES: &[&str] = &[
    "/etc/selinux/targeted/contexts/files",
    "/etc/sysconfig",
    "/etc/ssh",
    "/boot/grub2",
    "/boot/loader/entries",
    "/var/lib/dpkg",
    "/lib/apk/db",
    "/usr/lib",
    "/usr/bin",
    "/bin",
    "/root",
    "/home/user",
];

fn new() -> vmcraft::Result<Guest> {
    let mut guest = Guest::new();
    guest.add_drive_scratch(8 << 20, None, None, None)?;
    guest.launch()?;
    let device = DeviceName::new("/dev/sda");
    guest.mkfs("ext4", device, Some(1024), Some("^has_journal"), None, None, None)?;
    guest.mount(Mountable::new("/dev/sda"), "/".into())?;
    for directory in DIRECTORIES {
        guest.mkdir_p(GuestPath::new(directory))?;
    }
    guest.write("/home/user/file".into(), b"content")?;
    guest.ln_s("../etc".into(), "/home/link".into())?;
    guest.sync()?;
    Ok(guest)
}

thread_local! {
    static GUEST: RefCell<Option<Guest>> = const { RefCell::new(None) };
}

/// Lets `change` change the guest, and takes it back.
pub fn with_guest(change: impl FnOnce(&mut Guest)) {
    GUEST.with_borrow_mut(|guest| {
        let guest = guest.get_or_insert_with(|| new().expect("a guest can be made"));
        change(guest);
        let _ = guest.take_warnings();
        guest.rollback().expect("what was changed is taken back");
    });
}
