//! What the JSON metadata says, and how it is changed.
//!
//! The metadata itself is kept as it was read, with tokens and whatever else is not ours to understand.

use base64::Engine;
use serde_json::{Map, Value, json};

use super::super::kdf::{Argon2Costs, Kdf};
use super::super::layout::{
    Digest, Keyslot, KeyslotState, Layout, MAX_KEY_BYTES, Priority, Segment, SegmentKind, Slot,
    material_sectors_bytes,
};
use super::node::{Node, Result};
use super::{BINARY_BYTES, Error};

/// The most key slots, as in cryptsetup.
pub(in super::super) const MAX_SLOTS: u32 = 32;

/// The most stripes that are believed; cryptsetup makes 4000.
const MAX_STRIPES: u32 = 16_000;

/// The largest area of key slots, in bytes.
pub(in super::super) const MAX_KEYSLOTS_BYTES: u64 = 128 << 20;

/// The alignment of a slot's area, in bytes.
const AREA_ALIGNMENT: u64 = 4096;

/// Checks the metadata of a header of `size` bytes.
pub(super) fn layout(json: &Value, size: u64) -> Result<Layout> {
    let root = Node::root(json);
    let config = root.get("config")?;
    let json_size = config.get("json_size")?.long()?;
    if json_size != size - BINARY_BYTES {
        return Err(format!(
            "config/json_size is {json_size}, and the area has {} bytes",
            size - BINARY_BYTES
        ));
    }
    let keyslots_size = config.get("keyslots_size")?.long()?;
    if keyslots_size > MAX_KEYSLOTS_BYTES || !keyslots_size.is_multiple_of(AREA_ALIGNMENT) {
        return Err(format!("config/keyslots_size is {keyslots_size}"));
    }
    let mut layout = Layout {
        slots: Vec::new(),
        listing: Vec::new(),
        digests: Vec::new(),
        segments: Vec::new(),
        refusal: requirements(&config)?,
        header_end: 2 * size + keyslots_size,
    };
    let slots = root.get("keyslots")?.numbered()?;
    check_areas(&slots, 2 * size, layout.header_end)?;
    for (number, node) in &slots {
        read_slot(*number, node, &mut layout)?;
    }
    let segments = root.get("segments")?.numbered()?;
    read_segments(&segments, &mut layout)?;
    let is_part = |number: &u32| segments.iter().any(|(other, node)| other == number && !is_backup(node));
    for (_, node) in root.get("digests")?.numbered()? {
        if node.get("type")?.text()? != "pbkdf2" {
            continue;
        }
        let digest = Digest {
            hash: node.get("hash")?.text()?.into(),
            iterations: node.get("iterations")?.int()?,
            salt: node.get("salt")?.bytes()?,
            digest: node.get("digest")?.bytes()?,
            slots: node.get("keyslots")?.numbers()?,
            is_of_volume: node.get("segments")?.numbers()?.iter().any(is_part),
        };
        // A shorter one would be proof of nothing.
        if !(20..=64).contains(&digest.digest.len()) {
            return Err(format!("{}/digest has {} bytes", node.path, digest.digest.len()));
        }
        layout.digests.push(digest);
    }
    for listed in &mut layout.listing {
        let is_volume = |digest: &Digest| digest.is_of_volume && digest.slots.contains(&listed.number);
        if listed.state == KeyslotState::Active && !layout.digests.iter().any(is_volume) {
            listed.state = KeyslotState::Unbound;
        }
    }
    Ok(layout)
}

/// What the volume requires of who opens it, all of which is refused.
fn requirements(config: &Node<'_>) -> Result<Option<String>> {
    let Some(requirements) = config.find("requirements") else { return Ok(None) };
    let Some(mandatory) = requirements.find("mandatory") else { return Ok(None) };
    let names = mandatory.texts()?;
    if names.is_empty() {
        return Ok(None);
    }
    let names = names.join(", ").escape_debug().to_string();
    Ok(Some(if names.contains("reencrypt") {
        format!(
            "a LUKS2 volume whose reencryption is not finished ({names}): finish it with `cryptsetup reencrypt`"
        )
    } else {
        format!("a LUKS2 volume with the requirement {names}")
    }))
}

/// The area of a slot, if it has one: where it is and how long, in bytes.
fn area(node: &Node<'_>) -> Result<Option<(u64, u64)>> {
    let Some(area) = node.find("area") else { return Ok(None) };
    let (offset, size) = (area.get("offset")?.long()?, area.get("size")?.long()?);
    Ok(Some((offset, size)))
}

/// Areas must lie behind the headers, within the area of all slots, and not on each other.
fn check_areas(slots: &[(u32, Node<'_>)], start: u64, end: u64) -> Result<()> {
    let mut areas = Vec::new();
    for (number, node) in slots {
        if *number >= MAX_SLOTS {
            return Err(format!("{}: there are slots 0 to 31", node.path));
        }
        let Some((offset, size)) = area(node)? else { continue };
        let area_end = offset.checked_add(size).filter(|area_end| offset >= start && *area_end <= end);
        let Some(area_end) = area_end else {
            return Err(format!("{}/area is not within the area of key slots", node.path));
        };
        areas.push((offset, area_end, *number));
    }
    areas.sort_unstable();
    for pair in areas.windows(2) {
        if let [(_, end, first), (start, _, second)] = pair
            && end > start
        {
            return Err(format!("key slots {first} and {second} overlap"));
        }
    }
    Ok(())
}

fn read_slot(number: u32, node: &Node<'_>, layout: &mut Layout) -> Result<()> {
    let priority = match node.find("priority").map(|priority| priority.int()).transpose()? {
        Some(0) => Priority::Ignore,
        Some(2) => Priority::Prefer,
        _ => Priority::Normal,
    };
    if node.get("type")?.text()? != "luks2" {
        layout.listing.push(Keyslot { number, state: KeyslotState::Other, priority, kdf: None });
        return Ok(());
    }
    let (af, area_node) = (node.get("af")?, node.get("area")?);
    let key_bytes = node.get("key_size")?.int()?;
    let area_key_bytes = area_node.get("key_size")?.int()?;
    let stripes = af.get("stripes")?.int()?;
    let is_key_size = |bytes: u32| (1..=MAX_KEY_BYTES).contains(&u64::from(bytes));
    if !is_key_size(key_bytes) || !is_key_size(area_key_bytes) {
        return Err(format!("{}: the length of a key", node.path));
    }
    if !(1..=MAX_STRIPES).contains(&stripes) {
        return Err(format!("{}: {stripes} stripes", af.path));
    }
    let (area_offset, area_size) = area(node)?.ok_or_else(|| format!("{} has no area", node.path))?;
    let needed = material_sectors_bytes(u64::from(key_bytes), stripes);
    if needed > area_size {
        return Err(format!("{} has {area_size} bytes, and its key takes {needed}", area_node.path));
    }
    if af.get("type")?.text()? != "luks1" || area_node.get("type")?.text()? != "raw" {
        layout.listing.push(Keyslot { number, state: KeyslotState::Other, priority, kdf: None });
        return Ok(());
    }
    let kdf_node = node.get("kdf")?;
    let costs = || -> Result<Argon2Costs> {
        Ok(Argon2Costs {
            time: kdf_node.get("time")?.int()?,
            memory_kib: kdf_node.get("memory")?.int()?,
            lanes: kdf_node.get("cpus")?.int()?,
        })
    };
    let kdf = match kdf_node.get("type")?.text()? {
        "pbkdf2" => Kdf::Pbkdf2 {
            hash: kdf_node.get("hash")?.text()?.into(),
            iterations: kdf_node.get("iterations")?.int()?,
        },
        "argon2i" => Kdf::Argon2i(costs()?),
        "argon2id" => Kdf::Argon2id(costs()?),
        _ => {
            layout.listing.push(Keyslot { number, state: KeyslotState::Other, priority, kdf: None });
            return Ok(());
        }
    };
    layout.listing.push(Keyslot { number, state: KeyslotState::Active, priority, kdf: Some(kdf.clone()) });
    layout.slots.push(Slot {
        number,
        priority,
        kdf,
        salt: kdf_node.get("salt")?.bytes()?,
        key_bytes: key_bytes as usize,
        stripes,
        af_hash: af.get("hash")?.text()?.into(),
        area_offset,
        area_cipher: area_node.get("encryption")?.text()?.into(),
        area_key_bytes: area_key_bytes as usize,
    });
    Ok(())
}

/// Whether a segment is what a reencryption puts aside.
fn is_backup(node: &Node<'_>) -> bool {
    let flags = node.find("flags").and_then(|flags| flags.texts().ok()).unwrap_or_default();
    flags.iter().any(|flag| flag.starts_with("backup-"))
}

fn read_segments(segments: &[(u32, Node<'_>)], layout: &mut Layout) -> Result<()> {
    let parts: Vec<_> = segments.iter().filter(|(_, node)| !is_backup(node)).collect();
    for (index, (_, node)) in parts.iter().enumerate() {
        let kind = node.get("type")?.text()?;
        let is_last = index + 1 == parts.len();
        let size = match node.get("size")?.text()? {
            "dynamic" if is_last => None,
            "dynamic" => return Err(format!("{}/size is dynamic, and another segment follows", node.path)),
            _ => Some(node.get("size")?.long()?),
        };
        if let Some(integrity) = node.find("integrity") {
            let name = integrity.find("type").and_then(|name| name.text().ok()).unwrap_or("?");
            let name = name.escape_debug();
            layout
                .refusal
                .get_or_insert(format!("a LUKS2 volume with authenticated encryption (integrity {name})"));
        }
        let kind = match kind {
            "crypt" => SegmentKind::Crypt {
                cipher: node.get("encryption")?.text()?.into(),
                iv_tweak: node.get("iv_tweak")?.long()?,
                sector_size: node.get("sector_size")?.int()?,
            },
            "linear" => SegmentKind::Linear,
            other => {
                let other = other.escape_debug();
                layout.refusal.get_or_insert(format!("a LUKS2 volume with a segment of the type {other}"));
                continue;
            }
        };
        layout.segments.push(Segment { offset: node.get("offset")?.long()?, size, kind });
    }
    if layout.segments.is_empty() && layout.refusal.is_none() {
        layout.refusal = Some("a LUKS2 header without data segments (a store of keys)".into());
    }
    Ok(())
}

/// What the metadata of a new volume says.
pub(in super::super) struct NewMetadata<'a> {
    pub(in super::super) cipher: &'a str,
    pub(in super::super) sector_size: u32,
    /// Where the data begins, in bytes.
    pub(in super::super) data_offset: u64,
    /// The bytes that all slots together have for their areas.
    pub(in super::super) keyslots_bytes: u64,
    pub(in super::super) digest: &'a Digest,
    pub(in super::super) slot: NewSlot<'a>,
}

/// What the metadata says of a new slot.
pub(in super::super) struct NewSlot<'a> {
    pub(in super::super) slot: &'a Slot,
    pub(in super::super) area_bytes: u64,
}

impl NewMetadata<'_> {
    pub(super) fn to_json(&self, size: u64) -> Value {
        let number = self.slot.slot.number.to_string();
        let mut json = json!({
            "keyslots": {},
            "tokens": {},
            "segments": { "0": {
                "type": "crypt",
                "offset": self.data_offset.to_string(),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": self.cipher,
                "sector_size": self.sector_size,
            } },
            "digests": { "0": {
                "type": "pbkdf2",
                "keyslots": [number],
                "segments": ["0"],
                "hash": self.digest.hash,
                "iterations": self.digest.iterations,
                "salt": base64(&self.digest.salt),
                "digest": base64(&self.digest.digest),
            } },
            "config": {
                "json_size": (size - BINARY_BYTES).to_string(),
                "keyslots_size": self.keyslots_bytes.to_string(),
            },
        });
        put_slot(&mut json, &self.slot, None);
        json
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Adds or replaces a slot, and adds its number to the digests that have `like`.
pub(super) fn put_slot(json: &mut Value, new: &NewSlot<'_>, like: Option<u32>) {
    let slot = new.slot;
    let argon2 = |kind: &str, costs: &Argon2Costs| {
        json!({
            "type": kind, "time": costs.time, "memory": costs.memory_kib, "cpus": costs.lanes,
            "salt": base64(&slot.salt),
        })
    };
    let kdf = match &slot.kdf {
        Kdf::Pbkdf2 { hash, iterations } => {
            json!({ "type": "pbkdf2", "hash": hash, "iterations": iterations, "salt": base64(&slot.salt) })
        }
        Kdf::Argon2i(costs) => argon2("argon2i", costs),
        Kdf::Argon2id(costs) => argon2("argon2id", costs),
    };
    let mut value = json!({
        "type": "luks2",
        "key_size": slot.key_bytes,
        "af": { "type": "luks1", "stripes": slot.stripes, "hash": slot.af_hash },
        "area": {
            "type": "raw",
            "offset": slot.area_offset.to_string(),
            "size": new.area_bytes.to_string(),
            "encryption": slot.area_cipher,
            "key_size": slot.area_key_bytes,
        },
        "kdf": kdf,
    });
    match slot.priority {
        Priority::Normal => {}
        Priority::Ignore => value["priority"] = 0.into(),
        Priority::Prefer => value["priority"] = 2.into(),
    }
    let number = slot.number.to_string();
    if let Some(slots) = json["keyslots"].as_object_mut() {
        slots.insert(number.clone(), value);
        sort_by_number(slots);
    }
    let Some(like) = like else { return };
    let like = like.to_string();
    each_digest(json, |slots| {
        if slots.iter().any(|slot| slot.as_str() == Some(&like)) {
            slots.push(number.clone().into());
        }
    });
}

/// Removes a slot, and its number from digests and tokens.
pub(super) fn remove_slot(json: &mut Value, number: u32) {
    let number = number.to_string();
    if let Some(slots) = json["keyslots"].as_object_mut() {
        slots.shift_remove(&number);
    }
    let not_it = |slot: &Value| slot.as_str() != Some(&number);
    each_digest(json, |slots| slots.retain(not_it));
    for token in json.get_mut("tokens").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Some(slots) = token.get_mut("keyslots").and_then(Value::as_array_mut) {
            slots.retain(not_it);
        }
    }
}

fn each_digest(json: &mut Value, mut each: impl FnMut(&mut Vec<Value>)) {
    for digest in json.get_mut("digests").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
    {
        if let Some(slots) = digest.get_mut("keyslots").and_then(Value::as_array_mut) {
            each(slots);
        }
    }
}

fn sort_by_number(members: &mut Map<String, Value>) {
    let mut all: Vec<_> = std::mem::take(members).into_iter().collect();
    all.sort_by_key(|(name, _)| name.parse::<u32>().unwrap_or(u32::MAX));
    members.extend(all);
}

/// The bytes that the stripes of a key take, rounded up to where another area may begin.
pub(in super::super) fn area_bytes(key_bytes: u64, stripes: u32) -> u64 {
    material_sectors_bytes(key_bytes, stripes).next_multiple_of(AREA_ALIGNMENT)
}

/// The area of a slot of any type.
pub(super) fn area_of(json: &Value, number: u32) -> Option<(u64, u64)> {
    let slot = Node::root(json).find("keyslots")?.find(&number.to_string())?;
    area(&slot).ok().flatten()
}

/// The first gap between areas that has `len` bytes.
pub(super) fn free_area(json: &Value, size: u64, len: u64) -> crate::Result<u64> {
    let slots =
        Node::root(json).get("keyslots").and_then(|slots| slots.numbered()).map_err(Error::Refused)?;
    let mut areas: Vec<_> = slots.iter().filter_map(|(_, node)| area(node).ok().flatten()).collect();
    areas.sort_unstable();
    let mut start = 2 * size;
    let config = Node::root(json).get("config").and_then(|config| config.get("keyslots_size")?.long());
    let end = 2 * size + config.map_err(Error::Refused)?;
    for (offset, area_len) in areas.into_iter().chain([(end, 0)]) {
        if offset >= start && offset - start >= len {
            return Ok(start);
        }
        start = start.max((offset + area_len).next_multiple_of(AREA_ALIGNMENT));
    }
    Err(Error::Refused(format!("there is no space of {len} bytes left for a key slot in the LUKS2 header")))
}
