use std::sync::{Arc, Mutex};

use cipher::KeyInit;
use proptest::prelude::*;
use testkit::device::{Hooked, Request, Sparse};
use vmcraft_block::{BlockDevice, MemoryDevice};
use xts_mode::{Xts128, get_tweak_default};

use super::*;

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| byte()).collect()
}

#[test] // Batches of all lengths give what the block-by-block implementation gives.
fn xts_is_that_of_another_implementation() {
    fn check<C>(name: &str, key_len: usize)
    where
        C: KeyInit
            + cipher::BlockCipherEncrypt
            + cipher::BlockCipherDecrypt
            + cipher::BlockSizeUser<BlockSize = cipher::consts::U16>,
    {
        let key = noise(2 * key_len);
        let single = |key| C::new_from_slice(key).expect("a key of the cipher");
        let other = Xts128::new(single(&key[..key_len]), single(&key[key_len..]));
        let ours = CipherSpec::parse(name).and_then(|spec| spec.with_key(&key)).expect("a cipher");
        for (size, count) in [
            (512, 1),
            (512, 7),
            (512, 8),
            (512, 64),
            (512, 65),
            (512, 131),
            (1024, 3),
            (2048, 17),
            (4096, 1),
            (4096, 66),
        ] {
            let first = 0xffff_ffff_u64 - 3;
            let plain = noise(size * count);
            let mut data = plain.clone();
            ours.encrypt(Sectors { size, first, step: 1 }, &mut data);
            let mut expected = plain.clone();
            other.encrypt_area(&mut expected, size, u128::from(first), get_tweak_default);
            assert!(data == expected, "{name}: {count} sectors of {size}");
            ours.decrypt(Sectors { size, first, step: 1 }, &mut data);
            assert!(data == plain, "{name}: {count} sectors of {size}, back");
        }
    }
    check::<aes::Aes128>("aes-xts-plain64", 16);
    check::<aes::Aes256>("aes-xts-plain64", 32);
    check::<serpent::Serpent>("serpent-xts-plain64", 32);
    check::<twofish::Twofish>("twofish-xts-plain64", 32);
    check::<camellia::Camellia256>("camellia-xts-plain64", 32);
}

fn device(
    cipher: &str,
    key_len: usize,
    layout: CryptLayout,
    below: Vec<u8>,
) -> (CryptDevice, Arc<MemoryDevice>) {
    let below = Arc::new(MemoryDevice::new(below));
    let cipher = CipherSpec::parse(cipher).and_then(|spec| spec.with_key(&noise(key_len))).expect("a cipher");
    (CryptDevice::new(below.clone(), cipher, layout).expect("the area is on the device"), below)
}

#[test] // dm-crypt counts 512 bytes for the IV of a large sector unless iv_large_sectors is given.
fn large_sectors_are_numbered_both_ways() {
    let at = |iv_large_sectors| {
        let layout =
            CryptLayout { offset: 0, size: 16384, sector_size: 4096, iv_offset: 5, iv_large_sectors };
        let (device, below) = device("aes-cbc-plain64", 32, layout, vec![0; 16384]);
        device.write_at(4096, &[0; 4096]).expect("in range");
        let mut encrypted = [0; 4096];
        below.read_at(4096, &mut encrypted).expect("in range");
        encrypted
    };
    let cipher =
        CipherSpec::parse("aes-cbc-plain64").and_then(|spec| spec.with_key(&noise(32))).expect("a cipher");
    for (large, number) in [(false, 5 + 8), (true, 5 + 1)] {
        let mut expected = [0; 4096];
        cipher.encrypt(Sectors { size: 4096, first: number, step: 1 }, &mut expected);
        assert!(at(large) == expected, "iv_large_sectors {large}");
    }
}

#[test] // What is not ours on the device below stays as it is, and so does a last piece of a sector.
fn an_area_keeps_to_its_range() {
    let layout =
        CryptLayout { offset: 1024, size: 10_000, sector_size: 4096, iv_offset: 0, iv_large_sectors: false };
    let (device, below) = device("aes-xts-plain64", 64, layout, vec![7; 20_000]);
    assert_eq!(device.size(), 8192);
    device.write_at(0, &[1; 8192]).expect("in range");
    assert!(device.write_at(8191, &[1; 2]).is_err());
    assert!(
        CryptDevice::new(
            Arc::new(MemoryDevice::new(vec![0; 512])),
            CipherSpec::parse("cipher_null-ecb").and_then(|spec| spec.with_key(&[])).expect("a cipher"),
            CryptLayout { size: 513, offset: u64::MAX - 512, ..layout },
        )
        .is_err()
    );
    let mut bytes = vec![0; 20_000];
    below.read_at(0, &mut bytes).expect("in range");
    assert!(bytes[..1024].iter().chain(&bytes[1024 + 8192..]).all(|byte| *byte == 7));
}

#[test] // Zeros are written as ciphertext: a hole below would read as noise.
fn zeros_read_as_zeros() {
    let layout =
        CryptLayout { offset: 0, size: 1 << 20, sector_size: 512, iv_offset: 0, iv_large_sectors: false };
    let (device, _) = device("serpent-cbc-essiv:sha256", 32, layout, vec![0; 1 << 20]);
    let noise = noise(1 << 20);
    device.write_at(0, &noise).expect("in range");
    BlockDevice::discard(&device).expect("an ability").write_zeroes(777, 600_000).expect("in range");
    let mut read = vec![1; 1 << 20];
    device.read_at(0, &mut read).expect("in range");
    assert!(read[777..600_777].iter().all(|byte| *byte == 0));
    assert!(read[..777] == noise[..777] && read[600_777..] == noise[600_777..]);
}

#[test] // A sector that is discarded in part still holds the rest.
fn discards_are_of_whole_sectors() {
    let discarded = Arc::new(Mutex::new(Vec::new()));
    let noted = discarded.clone();
    let hook = move |request| {
        match request {
            Request::Discard(offset, len) => {
                noted.lock().expect("no test panics in here").push((offset, len))
            }
            Request::WriteZeroes(..) => panic!("zeros below are noise above"),
            _ => {}
        }
        Ok(())
    };
    let below = Arc::new(Hooked { inner: Sparse::new(1 << 20), hook });
    let cipher =
        CipherSpec::parse("aes-xts-plain64").and_then(|spec| spec.with_key(&noise(64))).expect("a cipher");
    let layout =
        CryptLayout { offset: 8192, size: 65536, sector_size: 4096, iv_offset: 0, iv_large_sectors: false };
    let device = CryptDevice::new(below, cipher, layout).expect("the area is on the device");
    let discard = BlockDevice::discard(&device).expect("an ability");
    for (offset, len) in [(0, 4096), (1, 8190), (4095, 4098), (4000, 4000), (0, 65536), (65536, 0)] {
        discard.discard(offset, len).expect("in range");
    }
    assert!(discard.discard(4096, u64::MAX).is_err());
    discard.write_zeroes(0, 10_000).expect("in range");
    let seen = discarded.lock().expect("no test panics in here").clone();
    assert_eq!(seen, [(8192, 4096), (8192 + 4096, 4096), (8192, 65536)]);
}

#[test] // Two threads that change parts of the same sectors do not undo each other's work.
fn parts_of_sectors_are_changed_one_after_the_other() {
    let layout =
        CryptLayout { offset: 0, size: 65536, sector_size: 4096, iv_offset: 0, iv_large_sectors: false };
    let (device, _) = device("aes-xts-plain64", 64, layout, vec![0; 65536]);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let device = &device;
            scope.spawn(move || {
                for at in (u64::from(thread) * 64..65536).step_by(256) {
                    device.write_at(at, &[thread + 1; 64]).expect("in range");
                }
            });
        }
    });
    let mut bytes = vec![0; 65536];
    device.read_at(0, &mut bytes).expect("in range");
    assert!(bytes.chunks(64).zip([1, 2, 3, 4].iter().cycle()).all(|(piece, byte)| piece == [*byte; 64]));
}

#[test]
fn ciphers_that_are_not_there_are_named() {
    for (name, what) in [
        ("capi:xts(ecb(aes-generic))-plain64", "crypto API"),
        ("xchacha12,aes-adiantum-plain64", "block cipher xchacha12,aes"),
        ("aes-lrw-benbi", "mode lrw"),
        ("aes-cbc-lmk", "initialisation vector lmk"),
        ("aes-cbc-essiv:md4", "initialisation vector essiv:md4"),
        ("cast5-xts-plain64", "mode xts"),
        ("", "block cipher"),
    ] {
        let error = CipherSpec::parse(name).expect_err(name).to_string();
        assert!(error.contains(what), "{error}");
    }
    let error = CipherSpec::parse("aes-xts-plain64").and_then(|spec| spec.with_key(&[0; 33]));
    let error = error.err().expect("no such key").to_string();
    assert_eq!(error, "not supported: cipher aes-xts-plain64 with a key of 264 bits");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test] // Reads and writes of any place and length are those of plain memory.
    fn requests_of_any_alignment_are_exact(
        cipher in 0..4_usize,
        log in 9..13_u32,
        writes in prop::collection::vec((0..60_000_usize, 0..9000_usize), 1..12),
    ) {
        let (name, key) = [("aes-xts-plain64", 64), ("aes-cbc-essiv:sha256", 32), ("cast5-cbc-benbi", 16), ("camellia-ecb", 32)][cipher];
        let layout = CryptLayout { offset: 512, size: 65536, sector_size: 1 << log, iv_offset: 3, iv_large_sectors: false };
        let (device, _) = device(name, key, layout, noise(70_000));
        let mut model = vec![0; 65536];
        device.read_at(0, &mut model).expect("in range");
        for (i, (at, len)) in (0_u8..).zip(&writes) {
            let len = (*len).min(65536 - at);
            let data: Vec<u8> = noise(len).iter().map(|byte| byte.wrapping_add(i)).collect();
            device.write_at(*at as u64, &data).expect("in range");
            model[*at..at + len].copy_from_slice(&data);
            let from = at.saturating_sub(700);
            let mut read = vec![0; (len + 1400).min(65536 - from)];
            device.read_at(from as u64, &mut read).expect("in range");
            prop_assert!(read == model[from..from + read.len()]);
        }
    }
}
