//! An archive of the host that is unpacked into a guest. The input begins with how (u8).
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use vmcraft::value::FileIn;
use vmcraft_fuzz::with_guest;

fuzz_target!(|input: &[u8]| {
    let Some((&how, archive)) = input.split_first() else { return };
    let keep = Some(how & 2 == 0);
    with_guest(|guest| {
        guest.set_input(Box::new(Cursor::new(archive.to_vec())));
        let unpacked = if how & 1 == 0 {
            guest.tar_in(&FileIn::Input, "/home/user".into(), None, keep, keep, keep)
        } else {
            guest.cpio_in(&FileIn::Input, "/home/user".into())
        };
        // Nothing leads out of the directory, but for a link that was there before.
        assert_eq!(guest.ls("/home".into()).expect("it was there"), ["link", "user"]);
        assert!(guest.ls("/etc".into()).expect("it was there").len() == 3, "something is in /etc");
        if unpacked.is_err() {
            assert_eq!(guest.ls("/home/user".into()).expect("it was there"), ["file"], "unpacked in part");
        } else {
            let _ = guest.find("/home/user".into());
        }
    });
});
