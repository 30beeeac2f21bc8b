//! The NBD client against servers that break the protocol.

use std::io::ErrorKind;
use std::time::Duration;

use vmcraft_block::BlockDevice;
use vmcraft_block::nbd::{Address, ConnectOptions, NbdDevice};

use crate::nbd_servers::{CONTEXT, Puppet};

const SIZE: u64 = 1 << 20;
/// The chunk is the last of its reply.
const DONE: u16 = 1;
const OFFSET_DATA: u16 = 1;
const OFFSET_HOLE: u16 = 2;
const BLOCK_STATUS: u16 = 5;
const ERROR: u16 = 1 << 15 | 1;
const ERROR_OFFSET: u16 = 1 << 15 | 2;

/// Connects to a play, does something with the disk, and ends both.
fn with_server<T>(
    play: impl FnOnce(&mut Puppet) + Send + 'static,
    client: impl FnOnce(&NbdDevice) -> T,
) -> T {
    with_server_within(Duration::from_secs(60), play, client)
}

/// As [`with_server`], with a client that waits so long for a reply.
fn with_server_within<T>(
    patience: Duration,
    play: impl FnOnce(&mut Puppet) + Send + 'static,
    client: impl FnOnce(&NbdDevice) -> T,
) -> T {
    let (_dir, path, thread) = Puppet::serve(SIZE, play);
    let options =
        ConnectOptions { read_only: false, reply_timeout: Some(patience), ..ConnectOptions::default() };
    let disk = NbdDevice::connect(&Address::Unix(path), &options).expect("the handshake is right");
    let result = client(&disk);
    drop(disk);
    thread.join().expect("the play went as planned");
    result
}

/// The error of a read of 64 bytes at byte 4096.
fn read_error(play: impl FnOnce(&mut Puppet, u64) + Send + 'static) -> std::io::Error {
    with_server(
        |puppet| {
            let (_, cookie, ..) = puppet.request().expect("a request");
            play(puppet, cookie);
        },
        |disk| {
            let error = disk.read_at(4096, &mut [0; 64]).expect_err("the reply is wrong");
            assert!(disk.is_dead(), "{error}");
            let again = disk.read_at(0, &mut [0; 64]).expect_err("the connection is over");
            assert_eq!(again.kind(), error.kind());
            error
        },
    )
}

/// An offset, then data.
fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&offset.to_be_bytes()[..], bytes].concat()
}

#[test] // Each is a reply that some request could have, but not this one.
fn replies_that_do_not_fit_are_errors() {
    type Play = fn(&mut Puppet, u64);
    let plays: &[(&str, Play)] = &[
        ("which is not open", |p, cookie| p.chunk(DONE, OFFSET_DATA, cookie + 1, &data(4096, &[1; 64]))),
        ("from before the request", |p, cookie| p.chunk(DONE, OFFSET_DATA, cookie, &data(4095, &[1; 64]))),
        ("from past the request", |p, cookie| p.chunk(DONE, OFFSET_DATA, cookie, &data(4097, &[1; 64]))),
        ("from past the request", |p, cookie| p.chunk(DONE, OFFSET_DATA, cookie, &data(u64::MAX, &[1; 64]))),
        ("from past the request", |p, cookie| {
            p.chunk_head(DONE, OFFSET_DATA, cookie, u32::MAX);
            p.send(&[&4096u64.to_be_bytes()]);
        }),
        ("from past the request", |p, cookie| {
            p.chunk(DONE, OFFSET_HOLE, cookie, &data(4096, &u32::MAX.to_be_bytes()));
        }),
        ("from past the request", |p, cookie| p.chunk(DONE, OFFSET_HOLE, cookie, &data(4096, &[0; 4]))),
        ("a chunk OffsetHole of 8 bytes", |p, cookie| p.chunk(DONE, OFFSET_HOLE, cookie, &data(4096, &[]))),
        ("a chunk OffsetData of 8 bytes", |p, cookie| p.chunk(DONE, OFFSET_DATA, cookie, &data(4096, &[]))),
        ("the same bytes twice", |p, cookie| {
            p.chunk(0, OFFSET_DATA, cookie, &data(4096, &[1; 32]));
            p.chunk(DONE, OFFSET_DATA, cookie, &data(4100, &[1; 32]));
        }),
        ("an incomplete answer to a read", |p, cookie| {
            p.chunk(DONE, OFFSET_DATA, cookie, &data(4097, &[1; 63]));
        }),
        ("an incomplete answer to a read", |p, cookie| p.chunk(DONE, 0, cookie, &[])),
        ("a chunk None of 0 bytes", |p, cookie| p.chunk(0, 0, cookie, &[])),
        ("a chunk BlockStatus of 12 bytes", |p, cookie| p.chunk(DONE, BLOCK_STATUS, cookie, &[0; 12])),
        ("a chunk Error of 4294967295 bytes", |p, cookie| p.chunk_head(DONE, ERROR, cookie, u32::MAX)),
        ("an error chunk that is cut off", |p, cookie| p.chunk(DONE, ERROR, cookie, &[0, 0, 0, 5, 0, 9])),
        ("a chunk Other(77) of 0 bytes", |p, cookie| p.chunk(DONE, 77, cookie, &[])),
        ("a simple reply to a read", |p, cookie| {
            p.send(&[&0x6744_6698_u32.to_be_bytes(), &[0; 4], &cookie.to_be_bytes(), &[1; 64]]);
        }),
        ("a reply that starts with 0x48545450", |p, _| p.send(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"])),
        ("the server closed the connection", |p, cookie| {
            p.chunk_head(DONE, OFFSET_DATA, cookie, 72);
            p.send(&[&data(4096, &[1; 30])]);
        }),
    ];
    for (says, play) in plays {
        let error = read_error(play);
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn silence_is_an_error_in_the_end() {
    let error = with_server_within(
        Duration::from_millis(500),
        |puppet| {
            puppet.request().expect("a request");
            // Until the client gives up.
            assert!(puppet.request().is_none());
        },
        |disk| disk.read_at(4096, &mut [0; 64]).expect_err("there is no reply"),
    );
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("did not answer in time"), "{error}");
}

#[test] // Pieces in any order, holes and data: the spec allows it.
fn reply_in_pieces_is_put_together() {
    let bytes = with_server(
        |puppet| {
            let (_, cookie, ..) = puppet.request().expect("a request");
            puppet.chunk(0, OFFSET_DATA, cookie, &data(4128, &[2; 16]));
            puppet.chunk(0, OFFSET_HOLE, cookie, &data(4144, &16u32.to_be_bytes()));
            puppet.chunk(0, OFFSET_DATA, cookie, &data(4096, &[1; 32]));
            puppet.chunk(DONE, 0, cookie, &[]);
            puppet.request();
        },
        |disk| {
            let mut buf = [0xee; 64];
            disk.read_at(4096, &mut buf).unwrap();
            buf
        },
    );
    assert_eq!(bytes[..32], [1; 32]);
    assert_eq!(bytes[32..48], [2; 16]);
    assert_eq!(bytes[48..], [0; 16]);
}

#[test] // The server's words are shown, without what a terminal would obey.
fn errors_carry_the_servers_words() {
    let error = with_server(
        |puppet| {
            let (_, cookie, ..) = puppet.request().expect("a request");
            puppet.chunk(0, OFFSET_DATA, cookie, &data(4096, &[1; 8]));
            let text = b"bad \x1b]0;sector\x07";
            let head = [&5u32.to_be_bytes()[..], &u16::try_from(text.len()).unwrap().to_be_bytes()];
            let error = [head.concat().as_slice(), text, &4104u64.to_be_bytes()].concat();
            puppet.chunk(DONE, ERROR_OFFSET, cookie, &error);
            puppet.request();
        },
        |disk| {
            let error = disk.read_at(4096, &mut [0; 64]).unwrap_err();
            assert!(!disk.is_dead());
            error
        },
    );
    assert!(
        error.to_string().ends_with(
            "read of 64 bytes at byte 0x1000: input/output error (it says: bad \\u{1b}]0;sector\\u{7})"
        ),
        "{error}"
    );
}

#[test]
fn block_status_that_was_not_asked_for_is_an_error() {
    let status = |context: u32, descriptors: &[u32]| {
        let words: Vec<_> = [context].iter().chain(descriptors).flat_map(|word| word.to_be_bytes()).collect();
        with_server(
            move |puppet| {
                let (command, cookie, ..) = puppet.request().expect("a request");
                assert_eq!(command, 7);
                puppet.chunk(DONE, BLOCK_STATUS, cookie, &words);
                puppet.request();
            },
            |disk| disk.extents().unwrap().extent_at(512),
        )
    };
    assert!(status(CONTEXT, &[4096, 3]).unwrap().is_hole);
    assert_eq!(status(CONTEXT, &[u32::MAX, 0]).unwrap().len, SIZE - 512);
    for (context, descriptors) in
        [(CONTEXT + 1, &[4096, 3][..]), (CONTEXT, &[]), (CONTEXT, &[4096]), (CONTEXT, &[0, 3, 4096, 3])]
    {
        assert!(status(context, descriptors).is_err(), "{context} {descriptors:?}");
    }
}

#[test] // A thread that reads hands on the answers of others, even if they come in many chunks.
fn answers_are_handed_on_between_threads() {
    with_server(
        |puppet| {
            let first = puppet.request().expect("a request");
            let second = puppet.request().expect("a request");
            // In turns, and the one whose thread surely reads comes last.
            for i in 0..64u64 {
                for (_, cookie, offset, _) in [second, first] {
                    let flags = if i == 63 { DONE } else { 0 };
                    let byte = [u8::try_from(offset >> 12).unwrap()];
                    puppet.chunk(flags, OFFSET_DATA, cookie, &data(offset + i, &byte));
                }
            }
            puppet.request();
        },
        |disk| {
            std::thread::scope(|scope| {
                for page in 1..=2u8 {
                    scope.spawn(move || {
                        let mut buf = [0xee; 64];
                        disk.read_at(u64::from(page) << 12, &mut buf).unwrap();
                        assert_eq!(buf, [page; 64]);
                    });
                }
            });
        },
    );
}
