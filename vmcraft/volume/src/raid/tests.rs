//! Reading and writing against a model that lays out the whole content by the definitions, byte by byte.

use std::sync::Arc;

use proptest::prelude::*;
use testkit::device::{Hooked, Request, Sparse};
use vmcraft_block::{BlockDevice, MemoryDevice};

use super::geometry::Map;
use super::placement::Row;
use super::*;

const CHUNK: usize = 1024;

/// All layouts that can have as many members.
fn layouts(members: usize) -> Vec<Layout> {
    let mut layouts = vec![Layout::Concatenated, Layout::Mirrored];
    layouts.extend([ZoneOrder::Array, ZoneOrder::Zone].map(Layout::Striped));
    let raid10 = [0x102, 0x103, 0x201, 0x301, 0x10201, 0x10301, 0x40201];
    layouts.extend(
        raid10.iter().filter_map(|&layout| Raid10::from_md(layout, members).ok()).map(Layout::Raid10),
    );
    for number in 0..=20 {
        if members >= 2 {
            layouts.extend(ParityLayout::from_md(number, 1).map(Layout::SingleParity));
        }
        if members >= 4 {
            layouts.extend(ParityLayout::from_md(number, 2).map(Layout::DoubleParity));
        }
    }
    layouts
}

/// Multiplication in the field by doubling, as the definition of RAID-6 has it.
fn times_power_of_two(mut value: u8, exponent: usize) -> u8 {
    for _ in 0..exponent {
        value = (value << 1) ^ if value & 0x80 != 0 { 0x1d } else { 0 };
    }
    value
}

/// What each member must have for this content.
fn model(geometry: &Geometry, content: &[u8]) -> Vec<Vec<u8>> {
    let mut members: Vec<Vec<u8>> =
        geometry.member_bytes.iter().map(|len| vec![0; usize::try_from(*len).unwrap()]).collect();
    let (map, size) = geometry.map().unwrap();
    assert_eq!(size, content.len() as u64);
    let at = |place: u64| usize::try_from(place).unwrap();
    for (offset, &byte) in (0u64..).zip(content) {
        match &map {
            Map::Zones(zones) => {
                let (member, place, _) = zones.locate(offset);
                members[member][at(place)] = byte;
            }
            Map::Mirror { .. } => members.iter_mut().for_each(|member| member[at(offset)] = byte),
            Map::Raid10 { raid10, members: count, stride, chunk } => {
                raid10.places(offset / chunk, *count, *stride, |member, row| {
                    members[member][at(row * chunk + offset % chunk)] = byte;
                });
            }
            Map::Parity { placement, chunk } => {
                let width = placement.data_members() as u64;
                let (stripe, index) = (offset / chunk / width, at(offset / chunk % width));
                let place = at(stripe * chunk + offset % chunk);
                let mut row = Row::default();
                placement.fill(stripe, &mut row);
                members[row.data[index]][place] = byte;
                members[row.p][place] ^= byte;
                if let Some(q) = row.q {
                    members[q][place] ^= times_power_of_two(byte, row.exponents[index]);
                }
            }
        }
    }
    members
}

fn pattern(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

struct Setup {
    geometry: Geometry,
    devices: Vec<Arc<Sparse>>,
    missing: Vec<bool>,
    bad: Vec<Vec<std::ops::Range<u64>>>,
    raid: RaidDevice,
}

/// An array of zeros, with as many of the `wanted` members missing as it can do without.
fn setup(
    layout: Layout,
    sizes: Vec<u64>,
    wanted: &[usize],
    bad: Option<(usize, u64)>,
    is_trusted: bool,
) -> Setup {
    let geometry = Geometry { layout, chunk_bytes: CHUNK as u64, member_bytes: sizes };
    let count = geometry.member_bytes.len();
    let mut present = vec![true; count];
    for &member in wanted {
        present[member % count] = false;
        if !geometry.is_complete_with(&present) {
            present[member % count] = true;
        }
    }
    let mut bad_of = vec![Vec::new(); count];
    if let Some((member, place)) = bad {
        // As if the whole member were missing: then no byte is without a copy.
        let member = member % count;
        let was = std::mem::replace(&mut present[member], false);
        if was && geometry.is_complete_with(&present) {
            bad_of[member].push(place..place + 700);
        }
        present[member] = was;
    }
    let devices: Vec<_> = geometry.member_bytes.iter().map(|len| Arc::new(Sparse::new(*len))).collect();
    let members = (0..count)
        .map(|i| present[i].then(|| RaidMember { device: devices[i].clone(), bad: bad_of[i].clone() }))
        .collect();
    let raid = RaidDevice::new(&geometry, members).unwrap();
    let raid = if is_trusted { raid } else { raid.with_untrusted_parity() };
    Setup { geometry, devices, missing: present.iter().map(|present| !present).collect(), bad: bad_of, raid }
}

impl Setup {
    /// Content and members are what they must be.
    fn check(&self, content: &[u8]) {
        let mut read = vec![0; content.len()];
        self.raid.read_at(0, &mut read).unwrap();
        assert!(read == content, "{:?}: the content is wrong", self.geometry);
        for (index, mut expect) in model(&self.geometry, content).into_iter().enumerate() {
            if self.missing[index] {
                continue;
            }
            let mut bytes = vec![0; expect.len()];
            self.devices[index].read_at(0, &mut bytes).unwrap();
            for bad in &self.bad[index] {
                let bad =
                    usize::try_from(bad.start).unwrap()..usize::try_from(bad.end).unwrap().min(bytes.len());
                bytes[bad.clone()].fill(0);
                expect[bad].fill(0);
            }
            assert!(bytes == expect, "{:?}: member {index} is wrong", self.geometry);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test] // After any writes, with members missing or bad in places, copies and parity are what the model has.
    fn writes_leave_all_members_right(
        count in 2usize..9,
        choice in 0usize..1000,
        wanted in prop::collection::vec(0usize..9, 0..3),
        bad in prop::option::of((0usize..9, 0u64..7 * CHUNK as u64)),
        is_trusted in any::<bool>(),
        writes in prop::collection::vec((any::<u32>(), 1usize..12 * CHUNK, any::<u8>(), 0u8..6), 1..12),
        reads in prop::collection::vec((any::<u32>(), 1usize..4 * CHUNK), 1..4),
    ) {
        let layouts = layouts(count);
        let layout = layouts[choice % layouts.len()];
        let sizes = (0..count as u64).map(|i| match layout {
            Layout::Striped(_) | Layout::Concatenated => (4 + i % 3 * 2) * CHUNK as u64,
            _ => 8 * CHUNK as u64,
        });
        let is_degraded = !wanted.is_empty() || bad.is_some();
        let setup = setup(layout, sizes.collect(), &wanted, bad, is_trusted || is_degraded);
        let size = usize::try_from(setup.raid.size()).unwrap();
        let mut content = vec![0; size];
        for (offset, len, seed, kind) in writes {
            let offset = offset as usize % size;
            let len = len.min(size - offset);
            if let 0 | 1 = kind {
                let discard = BlockDevice::discard(&setup.raid).unwrap();
                if kind == 0 {
                    discard.discard(offset as u64, len as u64).unwrap();
                    // Zeros or what was there, which is checked as what it is then.
                    let mut read = vec![0; len];
                    setup.raid.read_at(offset as u64, &mut read).unwrap();
                    let old = &mut content[offset..offset + len];
                    prop_assert!(read.iter().zip(&*old).all(|(new, old)| *new == 0 || new == old));
                    old.copy_from_slice(&read);
                } else {
                    discard.write_zeroes(offset as u64, len as u64).unwrap();
                    content[offset..offset + len].fill(0);
                }
                continue;
            }
            let bytes: Vec<u8> = (0..len).map(|i| pattern(i * 7 + i / 256) ^ seed).collect();
            setup.raid.write_at(offset as u64, &bytes).unwrap();
            content[offset..offset + len].copy_from_slice(&bytes);
        }
        setup.check(&content);
        for (offset, len) in reads {
            let offset = offset as usize % size;
            let mut bytes = vec![0; len.min(size - offset)];
            setup.raid.read_at(offset as u64, &mut bytes).unwrap();
            prop_assert!(bytes == content[offset..offset + bytes.len()]);
        }
    }
}

#[test] // Writers of the same stripes at the same time leave one of their contents, with its parity and copies.
fn parallel_writers_leave_stripes_consistent() {
    for layout in [
        Layout::Mirrored,
        Layout::Raid10(Raid10::near(2, 5)),
        Layout::SingleParity(ParityLayout::LeftSymmetric),
        Layout::DoubleParity(ParityLayout::LeftSymmetric),
    ] {
        for wanted in [&[][..], &[1]] {
            let setup = setup(layout, vec![64 * CHUNK as u64; 5], wanted, None, true);
            let size = usize::try_from(setup.raid.size()).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4usize {
                    let raid = &setup.raid;
                    scope.spawn(move || {
                        for round in 0..60usize {
                            let offset = (round * 1777 + thread * 300) % (size - 5000);
                            let byte = u8::try_from(thread * 60 + round).unwrap();
                            raid.write_at(offset as u64, &vec![byte; 700 + round * 60]).unwrap();
                            let mut back = vec![0; 3000];
                            raid.read_at(offset as u64, &mut back).unwrap();
                        }
                    });
                }
            });
            let mut content = vec![0; size];
            setup.raid.read_at(0, &mut content).unwrap();
            setup.check(&content);
        }
    }
}

/// A member of which this range cannot be read.
fn failing(bytes: Vec<u8>, range: std::ops::Range<u64>) -> RaidMember {
    let hook = move |request| match request {
        Request::Read(offset, len) if offset < range.end && offset + len > range.start => {
            Err(std::io::Error::other("a bad sector"))
        }
        _ => Ok(()),
    };
    RaidMember::new(Arc::new(Hooked { inner: MemoryDevice::new(bytes), hook }))
}

#[test] // What cannot be read from one member comes from the others; without redundancy the failure is told.
fn failures_of_members_are_made_up_for() {
    let number = 5;
    let layouts = [
        Layout::Mirrored,
        Layout::Raid10(Raid10::near(2, number)),
        Layout::SingleParity(ParityLayout::LeftSymmetric),
        Layout::DoubleParity(ParityLayout::RotatingNContinue),
        Layout::Concatenated,
    ];
    for layout in layouts {
        let member_len = 8 * CHUNK as u64;
        let geometry = Geometry { layout, chunk_bytes: CHUNK as u64, member_bytes: vec![member_len; number] };
        let content: Vec<u8> = (0..usize::try_from(geometry.array_bytes().unwrap()).unwrap())
            .map(|i| pattern(i % 251))
            .collect();
        let members = model(&geometry, &content).into_iter().enumerate().map(|(index, bytes)| {
            let fails = if index == 0 { 1500..1600 } else { 0..0 };
            Some(failing(bytes, fails))
        });
        let raid = RaidDevice::new(&geometry, members.collect()).unwrap();
        let mut read = vec![0; content.len()];
        let result = raid.read_at(0, &mut read);
        if layout == Layout::Concatenated {
            assert!(result.unwrap_err().to_string().contains("a bad sector"));
            continue;
        }
        result.unwrap();
        assert!(read == content, "{layout:?}");
        // A write of a part of such a stripe needs its old content.
        raid.write_at(10, &[1; 50]).unwrap();
        raid.read_at(0, &mut read).unwrap();
        assert!(read[10..60] == [1; 50] && read[60..] == content[60..], "{layout:?}");
    }
}

#[test]
fn too_few_members_are_refused() {
    for (layout, count, missing) in [
        (Layout::Concatenated, 2, 1),
        (Layout::Striped(ZoneOrder::Zone), 2, 1),
        (Layout::Mirrored, 2, 2),
        (Layout::Raid10(Raid10::near(2, 4)), 4, 2),
        (Layout::SingleParity(ParityLayout::ParityFirst), 3, 2),
        (Layout::DoubleParity(ParityLayout::ParityLast), 4, 3),
    ] {
        let geometry = Geometry { layout, chunk_bytes: CHUNK as u64, member_bytes: vec![8192; count] };
        let device = || Some(RaidMember::new(Arc::new(MemoryDevice::new(vec![0; 8192]))));
        let members = (0..count).map(|i| if i < missing { None } else { device() }).collect();
        let error = RaidDevice::new(&geometry, members).err().unwrap();
        assert!(error.to_string().contains("too many members are missing"), "{error}");
        // One that is shorter than the metadata say.
        let short = Some(RaidMember::new(Arc::new(MemoryDevice::new(vec![0; 8191]))));
        let members = (0..count).map(|i| if i == 0 { short.clone() } else { device() }).collect();
        let error = RaidDevice::new(&geometry, members).err().unwrap();
        assert!(error.to_string().contains("has 8191 bytes"), "{error}");
    }
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let refused = |layout, chunk_bytes, member_bytes| {
        Geometry { layout, chunk_bytes, member_bytes }.array_bytes().unwrap_err().to_string()
    };
    let raid6 = Layout::DoubleParity(ParityLayout::LeftSymmetric);
    assert!(refused(raid6, 512, vec![512; 3]).contains("3 members"));
    assert!(refused(raid6, 512, vec![512; 256]).contains("256 members"));
    assert!(refused(raid6, 0, vec![512; 4]).contains("chunk size of 0"));
    assert!(refused(raid6, 512, vec![u64::MAX; 8]).contains("overflow"));
    assert!(refused(Layout::Raid10(Raid10::near(2, 4)), 512, vec![u64::MAX; 4000]).contains("4000 members"));
    assert!(refused(Layout::Raid10(Raid10::near(1, 1900)), 1, vec![u64::MAX; 1900]).contains("overflow"));
    assert!(refused(Layout::Mirrored, 0, vec![]).contains("0 members"));
}

#[test] // Metadata of LVM can ask for no copies at all.
fn raid10_without_copies_is_refused() {
    for raid10 in [Raid10::near(0, 4), Raid10 { far: 0, ..Raid10::near(2, 4) }] {
        let geometry =
            Geometry { layout: Layout::Raid10(raid10), chunk_bytes: 4096, member_bytes: vec![1 << 20; 4] };
        assert!(geometry.array_bytes().unwrap_err().to_string().contains("no copies"));
    }
}

#[test] // All space comes back, also that of parity; a part of a stripe is left as it is.
fn discards_give_space_back() {
    for layout in layouts(5) {
        let setup = setup(layout, vec![8 * CHUNK as u64; 5], &[], None, true);
        let size = setup.raid.size();
        let content: Vec<u8> = (0..usize::try_from(size).unwrap()).map(|i| pattern(i % 251) | 1).collect();
        setup.raid.write_at(0, &content).unwrap();
        let used = || setup.devices.iter().map(|device| device.used()).sum::<usize>();
        assert!(used() as u64 * 512 >= size);
        let discard = BlockDevice::discard(&setup.raid).unwrap();
        if matches!(layout, Layout::SingleParity(_) | Layout::DoubleParity(_)) {
            discard.discard(1, size - 2).unwrap();
            let kept = |at: u64| {
                let mut byte = [0];
                setup.raid.read_at(at, &mut byte).unwrap();
                byte[0] != 0
            };
            assert!(kept(0) && kept(1) && kept(size - 1), "{layout:?}");
            assert!(!kept(size / 2), "{layout:?}");
        }
        discard.discard(0, size).unwrap();
        assert_eq!(used(), 0, "{layout:?}");
        assert!(discard.discard(1, size).is_err());
    }
}

#[test] // A stripe without a member: each block that is there is read once, and parity once.
fn missing_blocks_cost_no_second_reading() {
    for (layout, missing, reads) in [
        (Layout::SingleParity(ParityLayout::ParityLast), &[1][..], 4),
        (Layout::DoubleParity(ParityLayout::ParityLast), &[1], 4),
        (Layout::DoubleParity(ParityLayout::ParityLast), &[0, 2], 4),
    ] {
        let count = if matches!(layout, Layout::SingleParity(_)) { 5 } else { 6 };
        let geometry =
            Geometry { layout, chunk_bytes: CHUNK as u64, member_bytes: vec![8 * CHUNK as u64; count] };
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let members = (0..count).map(|member| {
            let seen = seen.clone();
            let hook = move |request| {
                seen.lock().unwrap().push((member, request));
                Ok(())
            };
            let inner = Sparse::new(8 * CHUNK as u64);
            (!missing.contains(&member)).then(|| RaidMember::new(Arc::new(Hooked { inner, hook })))
        });
        let raid = RaidDevice::new(&geometry, members.collect()).unwrap();
        raid.read_at(4 * CHUNK as u64, &mut [0; 4 * CHUNK]).unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), reads, "{layout:?}: {seen:?}");
        let row = Request::Read(CHUNK as u64, CHUNK as u64);
        assert!(seen.iter().all(|(_, request)| *request == row), "{layout:?}: {seen:?}");
    }
}
