//! Using what an NBD server lends.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmcraft_block::BlockDevice;
use vmcraft_block::nbd::{ConnectOptions, NbdDevice};

use crate::ask_extents;

/// Connects, reads, writes, and asks what is allocated. The server may be silent for so long.
pub fn nbd(socket: UnixStream, patience: Duration) {
    let options = ConnectOptions {
        export: "export".into(),
        read_only: false,
        handshake_timeout: patience,
        reply_timeout: Some(patience),
    };
    let Ok(device) = NbdDevice::from_socket(socket, "server".into(), &options) else { return };
    let size = device.size();
    // Not much at once: all answers are in the input.
    for at in [0, 3, 65_536 - 7, size / 2, size.saturating_sub(3000)] {
        let _ = device.read_at(at, &mut [0; 3000]);
    }
    ask_extents(&device);
    for (at, len) in [(0, 512), (4097, 5000), (size / 2, 20_000), (size.saturating_sub(700), 700)] {
        // A server need not keep what it gets.
        let _ = device.write_at(at, &vec![0x5a; len]);
    }
    let _ = device.write_through(8192, &[1; 512]);
    if let Some(discard) = device.discard() {
        let _ = discard.discard(4096, 200_000);
        let _ = discard.write_zeroes(1000, 70_000);
    }
    let _ = device.flush();
    ask_extents(&device);
}
