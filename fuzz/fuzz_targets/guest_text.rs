//! Text files of a guest: what tells which system it is, and what is changed to customize it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmcraft::customize::{Operation, Options};
use vmcraft::{GuestPath, Mountable};
use vmcraft_fuzz::{files, with_guest};

const OPERATIONS: &[(&str, &str)] = &[
    ("hostname", "name.example.org"),
    ("timezone", "Europe/Berlin"),
    ("root-password", "locked"),
    ("password", "user:disabled"),
    ("ssh-inject", "user:string:ssh-ed25519 AAAA user@host"),
    ("firstboot-command", "true"),
    ("append-line", "/etc/fstab:# end"),
];

fuzz_target!(|input: &[u8]| {
    with_guest(|guest| {
        for (path, content) in files(input).into_iter().take(12) {
            if path.is_empty() {
                let acl = String::from_utf8_lossy(content);
                for kind in ["access", "default"] {
                    if guest.acl_set_file("/home/user".into(), kind, &acl).is_ok() {
                        let text = guest.acl_get_file("/home/user".into(), kind).expect("it was set");
                        guest.acl_set_file("/home/user".into(), kind, &text).expect("our own text");
                    }
                }
            } else {
                guest.write(GuestPath::new(path), content).expect("room for a short file");
            }
        }
        for root in guest.inspect_os().unwrap_or_default() {
            let root = Mountable::new(&root);
            let _ = (guest.inspect_get_mountpoints(root), guest.inspect_get_filesystems(root));
            let _ = (guest.inspect_list_applications2(root), guest.inspect_get_hostname(root));
            let _ = (guest.inspect_get_osinfo(root), guest.inspect_get_arch(root));
            let _ = (guest.inspect_get_product_name(root), guest.inspect_get_major_version(root));
            let _ = guest.inspect_get_icon(root, None, None);
        }
        let contexts = "/etc/selinux/targeted/contexts/files/file_contexts";
        let _ = guest.selinux_relabel(contexts.into(), "/".into(), Some(true));
        for (name, value) in OPERATIONS {
            let operations = Operation::parse(name, (*value).into()).expect("an operation");
            let _ = guest.customize(&operations, &Options::default(), &mut |_| {});
        }
    });
});
