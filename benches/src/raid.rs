//! RAID: an array read from beginning to end, against its members read so.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::Member;
use vmcraft_volume::md::{Level, Metadata, NewArray};

use crate::measure::{Row, middle};

/// Each of four members: together much more than the processor's caches hold.
const MEMBER_BYTES: u64 = 66 << 20;

/// What is read at once: whole stripes of both levels with parity.
const READ_BYTES: u64 = 3 << 20;

pub(crate) fn measure(rows: &mut Vec<Row>) -> Result<()> {
    rows.push(read("raid0", Level::Raid0, false)?);
    rows.push(read("raid5", Level::Raid5, false)?);
    rows.push(read("raid5 without a member", Level::Raid5, true)?);
    rows.push(read("raid6 without two members", Level::Raid6, true)?);
    Ok(())
}

fn read(name: &str, level: Level, is_degraded: bool) -> Result<Row> {
    let mut members: Vec<Option<Member>> = (0..4)
        .map(|index| {
            let bytes = (0..MEMBER_BYTES).map(|i| (i * 31 + index).to_le_bytes()[0]).collect();
            Some(Member { name: format!("member {index}"), device: Arc::new(MemoryDevice::new(bytes)) })
        })
        .collect();
    let devices: Vec<Arc<dyn BlockDevice>> = members.iter().flatten().map(|m| m.device.clone()).collect();
    if is_degraded {
        members[1] = None;
        if level == Level::Raid6 {
            members[3] = None;
        }
    }
    let new = NewArray {
        name: "benchmark".into(),
        level,
        layout: None,
        chunk_bytes: None,
        metadata: Metadata::V1_2,
        members,
        spares: Vec::new(),
        has_bitmap: false,
    };
    let array = new.create(0, &mut |bytes| bytes.fill(7))?.open()?;
    let len = array.size() / READ_BYTES * READ_BYTES;
    let mut buffer = vec![0; usize::try_from(READ_BYTES)?];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        let started = Instant::now();
        for offset in (0..len).step_by(usize::try_from(READ_BYTES)?) {
            array.read_at(offset, &mut buffer)?;
        }
        ours.push(started.elapsed().as_secs_f64());
        // As many bytes, from the members that have data.
        let started = Instant::now();
        let mut left = len;
        for device in &devices {
            for offset in (0..MEMBER_BYTES).step_by(usize::try_from(READ_BYTES)?) {
                if left > 0 {
                    device.read_at(offset, &mut buffer)?;
                    left -= READ_BYTES;
                }
            }
        }
        theirs.push(started.elapsed().as_secs_f64());
    }
    let what = format!("{name}, four members: sequential read, against the same of the members");
    Ok(Row::times(&what, middle(ours), middle(theirs), "-"))
}
