//! Disks that QEMU reads from elsewhere, and images of other formats within exports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmcraft_block::image::{self, Format, Image, OpenOptions};

use crate::nbd_servers::Server;
use crate::support::{assert_same, mixed_disk, options, read_all, refusal_of, text, write_file};

const MIB: usize = 1 << 20;
/// `me:p@ss` as HTTP's basic authentication has it.
const LOGIN: &str = "Basic bWU6cEBzcw==";

/// A web server that knows ranges, for the files of a directory. With `login` it wants a password.
/// Its threads end with the test's process.
fn web_server(dir: &Path, login: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir: Arc<Path> = dir.into();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, dir) = (stream.unwrap(), dir.clone());
            std::thread::spawn(move || serve(stream, &dir, login));
        }
    });
    address.to_string()
}

/// Answers requests until the client closes the connection.
fn serve(stream: TcpStream, dir: &Path, login: bool) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let head: Vec<String> =
            reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let mut words = head.first()?.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let header = |name: &str| {
            let field = |line: &&String| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
            Some(head.iter().find(field)?.split_once(':')?.1.trim())
        };
        if login && header("authorization") != Some(LOGIN) {
            let end = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(end.as_bytes()).ok()?;
            continue;
        }
        let Ok(bytes) = std::fs::read(dir.join(path.trim_start_matches('/'))) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        };
        let range = header("range").and_then(|range| {
            let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
            let end = end.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
            Some(start.parse::<usize>().ok()?..end)
        });
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let body = &bytes[range.clone().unwrap_or(0..bytes.len())];
        let place = range.map_or(String::new(), |range| {
            format!("Content-Range: bytes {}-{}/{}\r\n", range.start, range.end - 1, bytes.len())
        });
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Length: {length}\r\n{place}\r\n");
        stream.write_all(answer.as_bytes()).ok()?;
        if method == "GET" {
            stream.write_all(body).ok()?;
        }
    }
}

/// Opens over HTTP; `None` if this machine's QEMU has no driver for it, which the error must then
/// say. (The driver's package must match QEMU's version, which not every machine's sources offer.)
fn open_url(uri: &str) -> Option<Image> {
    match image::open(uri, &options()) {
        Ok(image) => Some(image),
        Err(e) if e.to_string().contains("are in the package qemu-block-extra") => {
            eprintln!("skipped: reading over HTTP: QEMU's curl driver is missing (package qemu-block-extra)");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn convert(dir: &Path, bytes: &[u8], format: &str) -> PathBuf {
    let raw = write_file(dir, "disk", bytes);
    let path = dir.join(format!("disk.{format}"));
    testkit::run_ok("qemu-img", ["convert", "-f", "raw", "-O", format, text(&raw), text(&path)]);
    path
}

#[test] // Raw, our own qcow2 over it, and a format that a second child opens.
fn web_disks_are_read_in_every_format() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(40, 3 * MIB);
    let address = web_server(dir.path(), false);
    for format in ["raw", "qcow2", "vmdk", "vhdx"] {
        convert(dir.path(), &bytes, format);
        let Some(image) = open_url(&format!("http://{address}/disk.{format}")) else { return };
        assert_eq!(image.format.to_string(), format);
        assert!(image.device.is_read_only());
        assert_same(&read_all(&*image.device)[..bytes.len()], &bytes, format);
    }
    let message = refusal_of(&format!("http://{address}/none"), &options());
    assert!(message.starts_with(&format!("http://{address}/none: qemu-nbd cannot open it: ")), "{message}");
    assert!(message.contains("404"), "{message}");
}

#[test] // It reaches the server, and neither the process list nor a message shows it.
fn password_is_given_in_secret() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(41, MIB);
    write_file(dir.path(), "disk", &bytes);
    let address = web_server(dir.path(), true);
    let Some(image) = open_url(&format!("http://me:p%40ss@{address}/disk")) else { return };
    assert_same(&read_all(&*image.device), &bytes, "the disk");
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        if arguments.starts_with("qemu-nbd") && arguments.contains(&address) {
            assert!(!arguments.contains("p@ss") && !arguments.contains("p%40ss"), "{arguments}");
            seen += 1;
        }
    }
    assert_eq!(seen, 1);
    let message = refusal_of(&format!("http://me:wrong@{address}/disk"), &options());
    assert!(message.starts_with(&format!("http://me:***@{address}/disk: ")), "{message}");
    assert!(message.contains("401") && !message.contains("wrong"), "{message}");
}

#[test]
fn images_within_exports_are_opened() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(42, 3 * MIB);
    for format in ["qcow2", "vdi"] {
        let path = convert(dir.path(), &bytes, format);
        let server = Server::start("qemu-nbd", ["-r", "-t", "-e", "4", "-f", "raw", text(&path)]);
        let image = image::open(&server.uri(), &options()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(image.format.to_string(), format);
        assert_same(&read_all(&*image.device), &bytes, format);
        let raw = OpenOptions { format: Some(Format::Raw), ..options() };
        let image = image::open(&server.uri(), &raw).unwrap_or_else(|e| panic!("{e}"));
        // The export ends with a whole sector.
        let file = std::fs::read(&path).unwrap();
        assert_same(&read_all(&*image.device)[..file.len()], &file, format);
        let other = OpenOptions { format: Some(Format::ViaQemu("vmdk".into())), ..options() };
        let message = refusal_of(&server.uri(), &other);
        assert!(message.contains("not in format vmdk"), "{message}");
    }
}

#[test] // What an image elsewhere names would be looked for on this host.
fn files_named_by_images_elsewhere_are_not_followed() {
    let dir = testkit::tempdir();
    let base = write_file(dir.path(), "base", &[1; MIB]);
    let top = dir.path().join("top.qcow2");
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-b", text(&base), "-F", "raw", text(&top)]);
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
                      createType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/passwd\" 0\n";
    let vmdk = write_file(dir.path(), "d.vmdk", descriptor.as_bytes());
    for (path, named) in [(&top, text(&base)), (&vmdk, "/etc/passwd")] {
        let server = Server::start("qemu-nbd", ["-r", "-t", "-f", "raw", text(path)]);
        let message = refusal_of(&server.uri(), &options());
        assert!(message.contains(&format!("refers to {named:?}, which was not opened")), "{message}");
    }
}

#[test]
fn only_raw_disks_elsewhere_are_written() {
    let dir = testkit::tempdir();
    let path = convert(dir.path(), &mixed_disk(43, MIB), "qcow2");
    let server = Server::start("qemu-nbd", ["-t", "-f", "raw", text(&path)]);
    let message = refusal_of(&server.uri(), &OpenOptions { read_only: false, ..options() });
    assert!(
        message.contains("not supported: writing to a qcow2 image that is not on this host"),
        "{message}"
    );
    drop(server);
    let raw = write_file(dir.path(), "raw", &[0; MIB]);
    let server = Server::start("qemu-nbd", ["-f", "raw", text(&raw)]);
    let options = OpenOptions { read_only: false, format: Some(Format::Raw), ..options() };
    let image = image::open(&server.uri(), &options).unwrap_or_else(|e| panic!("{e}"));
    image.device.write_at(4096, &[9; 4096]).unwrap();
    image.device.flush().unwrap();
    assert_eq!(std::fs::read(&raw).unwrap()[4000..9000].iter().filter(|byte| **byte == 9).count(), 4096);
}
