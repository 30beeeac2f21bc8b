//! LUKS: decryption against OpenSSL's, and unlocking against cryptsetup's.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::luks::{FormatOptions, Kdf, Luks, Version, format};
use vmcraft_volume::{Key, Member};

use crate::measure::{Row, middle};

/// The content that is decrypted: much more than the processor's caches hold.
const CONTENT_BYTES: u64 = 256 << 20;

/// What is read at once.
const READ_BYTES: usize = 1 << 20;

pub(crate) fn measure(rows: &mut Vec<Row>, dir: &Path) -> Result<()> {
    for sector_size in [512, 4096] {
        rows.push(read(sector_size)?);
    }
    rows.push(unlock(dir)?);
    Ok(())
}

/// A GiB of a volume in memory, read from beginning to end; `openssl speed` decrypts one small buffer over and over.
fn read(sector_size: u32) -> Result<Row> {
    let data_offset = 1 << 20;
    let bytes = vec![0; usize::try_from(data_offset + CONTENT_BYTES)?];
    let member = Member { name: "memory".into(), device: Arc::new(MemoryDevice::new(bytes)) };
    let key = Key::new(b"benchmark".to_vec());
    let options = FormatOptions {
        kdf: Kdf::Pbkdf2 { hash: "sha256".into(), iterations: 1000 },
        sector_size: Some(sector_size),
        data_offset: Some(data_offset),
        ..FormatOptions::new(Version::Luks2)
    };
    let mut next = 0_u8;
    let mut random = |bytes: &mut [u8]| {
        bytes.iter_mut().for_each(|byte| {
            next = next.wrapping_mul(5).wrapping_add(89);
            *byte = next;
        });
    };
    let device = format(&member, None, &key, &options, &mut random)?.unlock(&key, None)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut read_all = || -> Result<f64> {
        let started = Instant::now();
        for offset in (0..CONTENT_BYTES).step_by(READ_BYTES) {
            device.read_at(offset, &mut buffer)?;
        }
        Ok(started.elapsed().as_secs_f64() * (1_u64 << 30) as f64 / CONTENT_BYTES as f64)
    };
    read_all()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        for _ in 0..4 {
            ours.push(read_all()?);
        }
        theirs.push((1_u64 << 30) as f64 / openssl_bytes_per_second(sector_size)?);
    }
    let what = format!("LUKS2 aes-xts-plain64, sectors of {sector_size}: a GiB, against `openssl speed`");
    Ok(Row::times(&what, middle(ours), middle(theirs), "at least 0.6"))
}

fn openssl_bytes_per_second(buffer: u32) -> Result<f64> {
    let buffer = buffer.to_string();
    let arguments =
        ["speed", "-mr", "-elapsed", "-decrypt", "-seconds", "1", "-bytes", &buffer, "-evp", "aes-256-xts"];
    let text = testkit::run_ok("openssl", arguments);
    // The last line is `+F:NUMBER:NAME:BYTES PER SECOND`.
    let last = text.lines().rev().find(|line| line.starts_with("+F:")).context("openssl printed no speed")?;
    let speed = last.rsplit(':').next().unwrap_or_default();
    speed.parse().with_context(|| format!("openssl printed {last}"))
}

/// A header with cryptsetup's default costs, opened in a process of ours and in one of cryptsetup.
fn unlock(dir: &Path) -> Result<Row> {
    let image = dir.join("luks2.raw");
    std::fs::File::create(&image)?.set_len(32 << 20)?;
    let key_file = dir.join("key");
    std::fs::write(&key_file, "benchmark")?;
    let (image_text, key_text) = (image.display().to_string(), key_file.display().to_string());
    let costs = ["--pbkdf-memory=1048576", "--pbkdf-parallel=4", "--pbkdf-force-iterations=4"];
    let common = ["-q", "--key-file", &key_text];
    testkit::run_ok(
        "cryptsetup",
        common.iter().chain(&["luksFormat", "--type=luks2"]).chain(&costs).chain(&[&*image_text]),
    );
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let started = Instant::now();
        let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::read_only(std::fs::read(&image)?));
        let luks = Luks::read(&Member { name: image_text.clone(), device }, None)?.context("no LUKS")?;
        luks.unlock(&Key::new(b"benchmark".to_vec()), None)?;
        ours.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        testkit::run_ok("cryptsetup", common.iter().chain(&["open", "--test-passphrase", &*image_text]));
        theirs.push(started.elapsed().as_secs_f64());
    }
    std::fs::remove_file(&image)?;
    Ok(Row::times(
        "unlock of LUKS2, argon2id with 1 GiB, 4 passes and 4 lanes, against `cryptsetup`",
        middle(ours),
        middle(theirs),
        "-",
    ))
}
