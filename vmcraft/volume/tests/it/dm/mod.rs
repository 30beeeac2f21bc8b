//! Targets of the device mapper, measured against Linux and the tools for their metadata.

mod cache;
mod degraded;
mod failing;
mod hostile;
mod lvm;
mod snapshot;
mod thin;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use testkit::{run_ok, workspace};
use vmcraft_block::{BlockDevice, MemoryDevice};

/// Where the images of one kind are that `fixtures/dm-targets.sh` made.
fn images(kind: &str) -> PathBuf {
    workspace().join("fixtures/images/volumes").join(kind)
}

/// An image, unpacked into memory.
fn unpack(kind: &str, image: &str, dir: &Path) -> Vec<u8> {
    let target = dir.join(image);
    let packed = images(kind).join(format!("{image}.zst"));
    run_ok("zstd", ["-dqf".as_ref(), packed.as_os_str(), "-o".as_ref(), target.as_os_str()]);
    let bytes = fs::read(&target).expect("the image was unpacked");
    fs::remove_file(&target).expect("the image can be removed");
    bytes
}

/// What Linux read from a device: its size and SHA-256 sum.
fn facts(kind: &str, name: &str) -> (u64, String) {
    let text = fs::read_to_string(images(kind).join("facts.json")).expect("there are facts");
    let rows =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("facts are JSON"));
    let row =
        rows.into_iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no facts of {name}"));
    let sum = row["sha256"].as_str().expect("a sum").to_owned();
    (row["size"].as_u64().expect("a size"), sum)
}

fn memory(bytes: Vec<u8>) -> Arc<dyn BlockDevice> {
    Arc::new(MemoryDevice::new(bytes))
}

fn content(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.size()).expect("it fits into memory")];
    device.read_at(0, &mut bytes).expect("the device can be read");
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The pieces that are said to be holes must read as zeros, and all pieces together are the device.
fn check_extents(device: &dyn BlockDevice) -> u64 {
    let map = device.extents().expect("it has a map");
    let (mut at, mut holes) = (0, 0);
    while at < device.size() {
        let extent = map.extent_at(at).expect("the map can be read");
        assert_eq!(extent.offset, at);
        assert!(extent.len > 0 && extent.len <= device.size() - at, "{extent:?}");
        if extent.is_hole {
            let mut bytes = vec![0; usize::try_from(extent.len).expect("it fits into memory")];
            device.read_at(at, &mut bytes).expect("the device can be read");
            assert!(bytes.iter().all(|byte| *byte == 0), "{extent:?} is no hole");
            holes += extent.len;
        }
        at += extent.len;
    }
    holes
}
