//! Metadata of a thin pool: opened, its volumes read and written, and one removed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmcraft_fuzz::{decode, disk, read_around, write_around};
use vmcraft_volume::dm::thin::{Options, Pool};

fuzz_target!(|input: &[u8]| {
    let Some(metadata) = decode(input).into_iter().next() else { return };
    let Ok(pool) = Pool::open("vg/pool", metadata, disk(64 << 20), Options::default()) else { return };
    let _ = (pool.data_usage(), pool.metadata_usage(), pool.read_only_reason());
    let ids: Vec<u32> = pool.volumes().into_iter().flatten().map(|volume| volume.id).take(8).collect();
    for id in &ids {
        if let Ok(volume) = pool.volume(*id, 40 << 20, None) {
            read_around(&*volume);
            write_around(&*volume);
        }
    }
    let _ = pool.remove_volumes(&ids[..ids.len().min(1)], pool.transaction_id() + 1);
});
