//! A hostile NBD server. All that it ever says is in the input: answers that fit come from the seeds, as the
//! client numbers its requests from 1.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok((client, mut server)) = UnixStream::pair() else { return };
    // As much as a socket holds.
    if server.set_nonblocking(true).is_ok() && server.write_all(input).is_ok() {
        let _ = server.shutdown(Shutdown::Write);
        vmcraft_fuzz::nbd(client, Duration::from_millis(200));
    }
});
