//! The NBD client against servers that others wrote.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};
use vmcraft_block::image::{self, OpenOptions};
use vmcraft_block::nbd::{Address, ConnectOptions, NbdDevice};
use vmcraft_block::{BlockDevice, Extent};

use crate::nbd_servers::Server;
use crate::support::{Noise, assert_same, mixed_disk, read_all, text, write_file};

fn qemu_nbd(file: &Path, more: &[&str]) -> Server {
    Server::start("qemu-nbd", more.iter().copied().chain(["-f", "raw", text(file)]))
}

fn refusal(server: &Server, options: &ConnectOptions) -> std::io::Error {
    match NbdDevice::connect(&server.address, options) {
        Ok(_) => panic!("the server lent its export"),
        Err(e) => e,
    }
}

fn named(export: &str) -> ConnectOptions {
    ConnectOptions { export: export.into(), ..ConnectOptions::default() }
}

#[test] // In pieces of all sizes, and in one that is longer than servers take at once.
fn reads_what_the_server_has() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(1, 70 << 20);
    let file = write_file(dir.path(), "disk", &bytes);
    for server in [
        qemu_nbd(&file, &["--read-only"]),
        Server::start("nbdkit", ["-f", "--no-sr", "file", text(&file)]),
        Server::start("nbdkit", ["-f", "file", text(&file)]),
        Server::start_tcp("nbdkit", ["-f", "-r", "file", text(&file)]),
        // Not fixed newstyle: only NBD_OPT_EXPORT_NAME.
        Server::start("nbdkit", ["-f", "--mask-handshake=0", "file", text(&file)]),
    ] {
        let disk = server.open(true);
        assert_eq!(disk.size(), bytes.len() as u64);
        assert_same(&read_all(&disk), &bytes, "in pieces");
        let mut whole = vec![0xee; bytes.len()];
        disk.read_at(0, &mut whole).unwrap();
        assert_same(&whole, &bytes, "at once");
        let error = disk.read_at(disk.size() - 1, &mut [0; 2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(disk.write_at(0, &[1]).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert!(disk.discard().is_none());
    }
}

#[test] // The answer to a mistyped name is the list of names.
fn wrong_export_name_lists_the_exports() {
    let dir = testkit::tempdir();
    let file = write_file(dir.path(), "disk", &[7; 4096]);
    let server = qemu_nbd(&file, &["-x", "disk0", "-r", "-t"]);
    let error = refusal(&server, &named("disk1"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "no export \"disk1\"; the server has \"disk0\"");
    let disk = NbdDevice::connect(&server.address, &named("disk0")).unwrap();
    assert_eq!(read_all(&disk), [7; 4096]);
}

#[test]
fn export_that_may_not_be_written_is_refused_for_writing() {
    let dir = testkit::tempdir();
    let file = write_file(dir.path(), "disk", &[7; 4096]);
    let server = qemu_nbd(&file, &["--read-only"]);
    let error = refusal(&server, &ConnectOptions { read_only: false, ..ConnectOptions::default() });
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test] // With and without a handshake in which TLS can be asked for.
fn tls_is_refused_by_name() {
    let dir = testkit::tempdir();
    let psk = write_file(dir.path(), "psk", b"alice:00112233445566778899aabbccddeeff\n");
    let tls = format!("--tls-psk={}", text(&psk));
    let server = Server::start("nbdkit", ["-f", "--tls=require", &tls, "null", "1M"]);
    let error = refusal(&server, &ConnectOptions::default());
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("TLS"), "{error}");
}

#[test]
fn oldstyle_is_refused_by_name() {
    let server = Server::start("nbdkit", ["-f", "-o", "null", "1M"]);
    let error = refusal(&server, &ConnectOptions::default());
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("oldstyle"), "{error}");
}

#[test] // Each thread must get its own answer, although the server mixes them.
fn many_threads_get_their_own_answers() {
    let server = Server::start(
        "nbdkit",
        ["-f", "-t", "32", "--filter=delay", "--filter=noextents", "pattern", "1G", "delay-read=2ms"],
    );
    let disk = Arc::new(server.open(true));
    let threads: Vec<_> = (0..16)
        .map(|seed| {
            let disk = disk.clone();
            std::thread::spawn(move || {
                let mut noise = Noise::new(seed);
                for _ in 0..40 {
                    let len = usize::try_from(noise.below(200_000) / 8 * 8 + 8).unwrap();
                    let offset = noise.below(disk.size() - len as u64) / 8 * 8;
                    let mut buf = vec![0; len];
                    disk.read_at(offset, &mut buf).unwrap();
                    // The pattern plugin's 8 bytes at an offset are the offset.
                    for (at, word) in (offset..).step_by(8).zip(buf.chunks(8)) {
                        assert_eq!(word, at.to_be_bytes());
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test] // Reads, writes and zeros of many threads at once, on ranges of their own.
fn many_threads_write_at_once() {
    const EACH: usize = 3_000_000;
    let dir = testkit::tempdir();
    let file = write_file(dir.path(), "disk", &vec![0; 8 * EACH]);
    let mut server = qemu_nbd(&file, &[]);
    let disk = Arc::new(server.open(false));
    let threads: Vec<_> = (0..8)
        .map(|index| {
            let disk = disk.clone();
            std::thread::spawn(move || {
                let base = index * EACH;
                let expected = Noise::new(index as u64).bytes(EACH);
                for (i, piece) in expected.chunks(70_001).enumerate() {
                    disk.write_at((base + i * 70_001) as u64, piece).unwrap();
                }
                let mut back = vec![0; EACH];
                disk.read_at(base as u64, &mut back).unwrap();
                assert_same(&back, &expected, "read back");
                disk.discard().unwrap().write_zeroes(base as u64, 1000).unwrap();
                expected
            })
        })
        .collect();
    let mut expected = Vec::new();
    for thread in threads {
        let mut bytes = thread.join().unwrap();
        bytes[..1000].fill(0);
        expected.extend(bytes);
    }
    disk.flush().unwrap();
    drop(disk);
    server.wait();
    assert_same(&std::fs::read(&file).unwrap(), &expected, "the file");
}

#[test] // Requests that a server with block sizes refuses are never sent.
fn block_sizes_are_kept_to() {
    let dir = testkit::tempdir();
    // The last block is not a whole one with the larger minimum.
    const SIZE: usize = 300_000 / 4096 * 4096;
    for (minimum, preferred, maximum) in [(1, 4096, 8192), (512, 4096, 65536), (4096, 65536, 131_072)] {
        let mut expected = mixed_disk(2, SIZE);
        let file = write_file(dir.path(), "disk", &expected);
        let sizes = [("minimum", minimum), ("preferred", preferred), ("maximum", maximum)]
            .map(|(name, value)| format!("blocksize-{name}={value}"));
        let mut server = Server::start(
            "nbdkit",
            ["-f", "--filter=blocksize-policy", "file", text(&file), "blocksize-error-policy=error"]
                .into_iter()
                .chain(sizes.iter().map(String::as_str)),
        );
        let disk = server.open(false);
        assert_eq!(disk.preferred_block_size(), preferred);
        assert_same(&read_all(&disk), &expected, "before");
        let mut noise = Noise::new(3);
        for _ in 0..300 {
            let at = usize::try_from(noise.below(SIZE as u64)).unwrap();
            let most = if noise.below(2) == 0 { 300 } else { 150_000 };
            let len = usize::try_from(noise.below(most)).unwrap().min(SIZE - at);
            match noise.below(5) {
                0 => {
                    disk.discard().unwrap().write_zeroes(at as u64, len as u64).unwrap();
                    expected[at..at + len].fill(0);
                }
                1 => {
                    let bytes = noise.bytes(len);
                    disk.write_through(at as u64, &bytes).unwrap();
                    expected[at..at + len].copy_from_slice(&bytes);
                }
                2 | 3 => {
                    let bytes = noise.bytes(len);
                    disk.write_at(at as u64, &bytes).unwrap();
                    expected[at..at + len].copy_from_slice(&bytes);
                }
                _ => {
                    let mut bytes = vec![0xee; len];
                    disk.read_at(at as u64, &mut bytes).unwrap();
                    assert_same(&bytes, &expected[at..at + len], "meanwhile");
                }
            }
        }
        disk.flush().unwrap();
        drop(disk);
        server.kill();
        assert_same(&std::fs::read(&file).unwrap(), &expected, "the file");
    }
}

#[test] // An export whose size is no multiple of the minimum can be read up to its end.
fn last_block_may_be_a_part_of_one() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(4, 10_000);
    let file = write_file(dir.path(), "disk", &bytes);
    let server = Server::start(
        "nbdkit",
        ["-f", "-r", "--filter=blocksize-policy", "file", text(&file), "blocksize-minimum=4096"],
    );
    assert_same(&read_all(&server.open(true)), &bytes, "the disk");
}

#[test] // What is trimmed reads as zeros or as before; all else is untouched.
fn discard_touches_nothing_else() {
    let dir = testkit::tempdir();
    let bytes = Noise::new(5).bytes(1 << 20);
    let file = write_file(dir.path(), "disk", &bytes);
    let mut server = qemu_nbd(&file, &["--discard=unmap"]);
    let disk = server.open(false);
    disk.discard().unwrap().discard(100_001, 500_000).unwrap();
    disk.flush().unwrap();
    drop(disk);
    server.wait();
    let after = std::fs::read(&file).unwrap();
    assert_same(&after[..100_001], &bytes[..100_001], "before the range");
    assert_same(&after[600_001..], &bytes[600_001..], "after the range");
    // In the middle a host that knows holes has given the space back.
    assert_eq!(after[131_072..524_288], vec![0; 393_216]);
}

/// The extents as a map from their start, in maximal runs.
fn all_extents(disk: &dyn BlockDevice) -> BTreeMap<u64, (u64, bool)> {
    let map = disk.extents().expect("the server tells what is allocated");
    let mut runs: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    let mut offset = 0;
    while offset < disk.size() {
        let Extent { offset: start, len, is_hole } = map.extent_at(offset).unwrap();
        assert!(start == offset && len > 0 && offset + len <= disk.size());
        match runs.last_entry() {
            Some(mut last) if last.get().1 == is_hole => last.get_mut().0 += len,
            _ => _ = runs.insert(offset, (len, is_hole)),
        }
        offset += len;
    }
    assert_eq!(map.extent_at(disk.size()).unwrap_err().kind(), ErrorKind::InvalidInput);
    runs
}

/// The same map, by libnbd.
fn nbdinfo_extents(server: &Server) -> BTreeMap<u64, (u64, bool)> {
    let said = testkit::run_ok("nbdinfo", ["--map", "--json", &server.uri()]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    let mut runs: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    for row in rows {
        let number = |key: &str| row[key].as_u64().unwrap();
        let is_hole = number("type") & 3 == 3;
        match runs.last_entry() {
            Some(mut last) if last.get().1 == is_hole => last.get_mut().0 += number("length"),
            _ => _ = runs.insert(number("offset"), (number("length"), is_hole)),
        }
    }
    runs
}

#[test] // The map of a sparse file and of a qcow2 image is the one that libnbd gets.
fn extents_agree_with_nbdinfo() {
    let dir = testkit::tempdir();
    let raw = dir.path().join("disk");
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "raw", text(&raw), "8G"]);
    let write = |at: &str| format!("write -P 1 {at} 200k");
    let (a, b, c) = (write("0"), write("3G"), write("8388000k"));
    let qcow2 = dir.path().join("disk.qcow2");
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&qcow2), "8G"]);
    for (format, file) in [("raw", &raw), ("qcow2", &qcow2)] {
        testkit::run_ok("qemu-io", ["-f", format, "-c", &a, "-c", &b, "-c", &c, text(file)]);
        let server = Server::start("qemu-nbd", ["-r", "-t", "-e", "4", "-f", format, text(file)]);
        let disk = server.open(true);
        let extents = all_extents(&disk);
        assert_eq!(extents, nbdinfo_extents(&server), "{format}");
        assert!(extents.len() >= 5, "{extents:?}");
    }
    let server = Server::start("nbdkit", ["-f", "--no-sr", "memory", "1M"]);
    assert!(server.open(true).extents().is_none());
}

#[test] // A remembered hole must not outlive a write.
fn extents_follow_writes() {
    let server = Server::start("nbdkit", ["-f", "memory", "1M"]);
    let disk = server.open(false);
    let map = disk.extents().unwrap();
    let hole = Extent { offset: 0, len: 1 << 20, is_hole: true };
    assert_eq!(map.extent_at(0).unwrap(), hole);
    disk.write_at(70_000, &[1; 10]).unwrap();
    assert!(!map.extent_at(70_000).unwrap().is_hole);
    disk.discard().unwrap().discard(0, 1 << 20).unwrap();
    assert_eq!(map.extent_at(0).unwrap(), hole);
}

#[test] // The server's error reaches its request, and the connection goes on.
fn server_errors_are_errors_of_one_request() {
    let dir = testkit::tempdir();
    let trigger = dir.path().join("trigger");
    let file = format!("error-file={}", text(&trigger));
    for simple in [false, true] {
        let mut arguments =
            vec!["-f", "--filter=error", "memory", "1M", "error=ENOSPC", "error-rate=100%", &file];
        arguments.extend(simple.then_some("--no-sr"));
        let server = Server::start("nbdkit", arguments);
        let disk = server.open(false);
        disk.write_at(0, &[1; 512]).unwrap();
        std::fs::write(&trigger, "").unwrap();
        let error = disk.write_at(0, &[2; 512]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().contains("write of 512 bytes at byte 0x0: no space left"), "{error}");
        let error = disk.read_at(512, &mut [0; 512]).unwrap_err();
        assert!(error.to_string().contains("read of 512 bytes at byte 0x200"), "{error}");
        std::fs::remove_file(&trigger).unwrap();
        let mut buf = [0; 512];
        disk.read_at(0, &mut buf).unwrap();
        assert_eq!(buf, [1; 512]);
    }
}

#[test] // Nobody waits for a server that is gone.
fn killed_server_fails_all_requests() {
    let mut server =
        Server::start("nbdkit", ["-f", "-t", "16", "--filter=delay", "pattern", "1G", "delay-read=60"]);
    let disk = Arc::new(server.open(true));
    let threads: Vec<_> = (0..8u64)
        .map(|i| {
            let disk = disk.clone();
            std::thread::spawn(move || disk.read_at(i << 20, &mut [0; 4096]).unwrap_err())
        })
        .collect();
    // However far each thread has come by now, it must end.
    std::thread::sleep(Duration::from_millis(100));
    server.kill();
    for thread in threads {
        let error = thread.join().unwrap();
        assert!(error.to_string().contains("the server closed the connection"), "{error}");
    }
    assert!(disk.is_dead());
    assert!(disk.read_at(0, &mut [0; 1]).is_err());
}

#[test]
fn nobody_listening_is_an_error() {
    let dir = testkit::tempdir();
    let options = ConnectOptions::default();
    let address = Address::Unix(dir.path().join("none"));
    assert_eq!(NbdDevice::connect(&address, &options).err().unwrap().kind(), ErrorKind::NotFound);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let address = Address::Tcp { host: "127.0.0.1".into(), port };
    assert_eq!(NbdDevice::connect(&address, &options).err().unwrap().kind(), ErrorKind::ConnectionRefused);
}

#[test] // A server that takes the connection and says nothing, or accepts nobody.
fn silent_server_ends_in_a_timeout() {
    let dir = testkit::tempdir();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let handshake_timeout = Duration::from_millis(50);
    let options = ConnectOptions { handshake_timeout, ..ConnectOptions::default() };
    let error = NbdDevice::connect(&Address::Unix(path.clone()), &options).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // That connection is still in the queue; now there is room for no other.
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let error = NbdDevice::connect(&Address::Unix(path), &options).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test] // By the name that a user gives.
fn uris_open_exports() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(6, 1 << 20);
    let file = write_file(dir.path(), "disk", &bytes);
    let arguments = ["-r", "-t", "-f", "raw", "-x", "a b", text(&file)];
    let unix = Server::start("qemu-nbd", arguments);
    let tcp = Server::start_tcp("qemu-nbd", arguments);
    let socket = unix.uri().replace("///", "///a%20b");
    let alike = socket.replace("nbd+unix", "nbd");
    for uri in [socket, alike, format!("{}/a%20b", tcp.uri()), format!("file://{}", text(&file))] {
        let image = image::open(&uri, &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_same(&read_all(&*image.device), &bytes, &uri);
    }
    let refused = |uri: &str, options: &OpenOptions| image::open(uri, options).err().unwrap().to_string();
    let uri = format!("{}/c", tcp.uri());
    assert_eq!(
        refused(&uri, &OpenOptions::default()),
        format!("{uri}: cannot open the NBD export: no export \"c\"; the server has \"a b\"")
    );
    let message = refused("nbds://localhost/x", &OpenOptions::default());
    assert!(message.starts_with("nbds://localhost/x: not supported: TLS (nbds)"), "{message}");
    let message = refused("nbd://localhost:99999", &OpenOptions::default());
    assert!(message.contains("cannot understand the URI: \"99999\" is no port"), "{message}");
}
