//! Segments: what a run of extents of a logical volume is made of.
//!
//! Spec: the `lvm2` tools print every field with `vgcfgbackup`; names here are those of the fields.

use super::text::{Section, Value};

/// How many areas a segment may have: LVM allows 128 stripes and 64 RAID images.
const MAX_AREAS: usize = 4096;

/// A run of extents of a logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its first extent in the logical volume.
    pub start_extent: u64,
    /// How many extents it has; never 0.
    pub extent_count: u64,
    /// What it is made of.
    pub kind: SegmentKind,
    /// The name of its type, as the metadata has it, such as `striped` or `thin-pool`.
    pub type_name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A part of what a segment is made of, as long as the segment needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// What it is on.
    pub on: AreaOn,
    /// Its first extent there.
    pub start_extent: u64,
}

/// What an [`Area`] is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AreaOn {
    /// A physical volume, by its name inside the metadata, such as `pv0`.
    Pv(String),
    /// Another logical volume of the group.
    Lv(String),
}

/// One image of a RAID segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaidImage {
    /// The logical volume with its superblock and bitmap; `raid0` has none.
    pub metadata: Option<String>,
    /// The logical volume with its data.
    pub data: String,
}

/// What a segment is made of. Sizes are in bytes unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentKind {
    /// `striped`: linear where it has one area.
    Striped {
        /// The size of a stripe; 0 where there is one area.
        stripe_size: u64,
        /// The areas, all of the same length.
        areas: Vec<Area>,
    },
    /// `mirror`: copies kept alike by the `mirror` target.
    Mirror {
        /// The size of a region that the log knows as clean or not.
        region_size: u64,
        /// The copies.
        images: Vec<Area>,
        /// The logical volume with the log; without one, it is in memory.
        log: Option<String>,
        /// `pvmove`: how many extents have been moved.
        extents_moved: Option<u64>,
    },
    /// `raid0`, `raid1`, `raid4`, `raid5_ls`, … by `type_name`.
    Raid {
        /// The size of a stripe; 0 for `raid1`.
        stripe_size: u64,
        /// The size of a region of the bitmap.
        region_size: u64,
        /// The images in their order.
        images: Vec<RaidImage>,
        /// `raid10`: how many copies there are.
        data_copies: u64,
        /// It is being reshaped to another layout or number of images.
        is_reshaping: bool,
    },
    /// `thin-pool`.
    ThinPool {
        /// The logical volume with the pool's metadata.
        metadata: String,
        /// The logical volume with the data.
        data: String,
        /// The size of a chunk.
        chunk_size: u64,
        /// The transaction that LVM expects in the pool's metadata.
        transaction_id: u64,
        /// Whether new chunks are zeroed.
        zero_new_blocks: bool,
        /// What is done with discards: `ignore`, `nopassdown` or `passdown`.
        discards: Option<String>,
        /// Messages that the pool has not been told yet, such as to make a volume.
        has_pending_messages: bool,
    },
    /// `thin`: a volume of a thin pool.
    Thin {
        /// The pool.
        pool: String,
        /// The number of the volume in the pool.
        device_id: u64,
        /// The volume of the pool that it is a snapshot of.
        origin: Option<String>,
        /// The logical volume outside the pool that unprovisioned chunks are read from.
        external_origin: Option<String>,
    },
    /// `snapshot`: ties a store of changes to its origin. It is the segment of a hidden volume.
    Snapshot {
        /// The logical volume that the snapshot is of.
        origin: String,
        /// The logical volume with the changes. A snapshot that is being merged has `is_merging`.
        cow: String,
        /// The size of a chunk.
        chunk_size: u64,
        /// Whether it is being merged into its origin.
        is_merging: bool,
    },
    /// `cache`.
    Cache {
        /// The cache pool, or the logical volume that is a cache by itself (`cachevol`).
        pool: String,
        /// The logical volume that is cached.
        origin: String,
        /// `writethrough`, `writeback`, `passthrough`; without one, the pool has it.
        mode: Option<String>,
        /// Metadata of the kernel's version 2.
        metadata_format: Option<u64>,
        /// With a logical volume that is a cache by itself: where its parts are.
        cache_volume: Option<CacheVolume>,
        /// With a logical volume that is a cache by itself: the size of a chunk.
        chunk_size: Option<u64>,
        /// The name of the policy.
        policy: Option<String>,
    },
    /// `cache-pool`.
    CachePool {
        /// The logical volume with the cached data.
        data: String,
        /// The logical volume with the metadata.
        metadata: String,
        /// The size of a chunk.
        chunk_size: u64,
        /// `writethrough`, `writeback`, `passthrough`.
        mode: Option<String>,
        /// Metadata of the kernel's version 2.
        metadata_format: Option<u64>,
        /// The name of the policy.
        policy: Option<String>,
    },
    /// `writecache`.
    WriteCache {
        /// The logical volume that is cached.
        origin: String,
        /// The logical volume that is the cache.
        cache: String,
    },
    /// `vdo`: a volume of a deduplicating pool.
    Vdo {
        /// The pool.
        pool: String,
    },
    /// `vdo-pool`.
    VdoPool {
        /// The logical volume with its data.
        data: String,
    },
    /// `integrity`: checksums of each sector, below a RAID image.
    Integrity {
        /// The logical volume with the data.
        origin: String,
    },
    /// `error`: reads and writes fail.
    Error,
    /// `zero`: reads as zeros.
    Zero,
    /// A type that is not known here.
    Unknown,
}

/// The parts of a logical volume that is a cache by itself, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheVolume {
    /// Where the metadata begins.
    pub metadata_start: u64,
    /// How long it is.
    pub metadata_len: u64,
    /// Where the data begins.
    pub data_start: u64,
    /// How long it is.
    pub data_len: u64,
}

impl Segment {
    /// Decodes a section `segmentN`. `is_pv` tells whether a name is that of a physical volume.
    pub(crate) fn decode(section: &Section, is_pv: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let fields = Fields { section, is_pv };
        let full_type = fields.text("type")?;
        let (type_name, flags) = full_type.split_once('+').unwrap_or((&full_type, ""));
        let is_known = |flag: &str| KNOWN_FLAGS.contains(&flag);
        let kind = match flags.split('+').find(|flag| !flag.is_empty() && !is_known(flag)) {
            Some(_) => SegmentKind::Unknown,
            None => fields.kind(type_name, flags)?,
        };
        let extent_count = fields.number("extent_count")?;
        if extent_count == 0 {
            return Err("a segment without extents".into());
        }
        // An unknown flag stays in the name, which is what the refusal names.
        let type_name = if kind == SegmentKind::Unknown { &full_type } else { type_name };
        Ok(Self {
            start_extent: fields.number("start_extent")?,
            extent_count,
            kind,
            type_name: type_name.to_string(),
            tags: section.texts("tags"),
        })
    }

    /// The logical volumes that the segment is made of, in the metadata's order.
    pub fn volumes(&self) -> Vec<&str> {
        fn on(areas: &[Area]) -> impl Iterator<Item = &str> {
            areas.iter().filter_map(|area| match &area.on {
                AreaOn::Lv(name) => Some(name.as_str()),
                AreaOn::Pv(_) => None,
            })
        }
        match &self.kind {
            SegmentKind::Striped { areas, .. } => on(areas).collect(),
            SegmentKind::Mirror { images, log, .. } => on(images).chain(log.as_deref()).collect(),
            SegmentKind::Raid { images, .. } => images
                .iter()
                .flat_map(|image| image.metadata.as_deref().into_iter().chain([&*image.data]))
                .collect(),
            SegmentKind::ThinPool { metadata, data, .. } | SegmentKind::CachePool { metadata, data, .. } => {
                vec![metadata, data]
            }
            SegmentKind::Thin { pool, external_origin, .. } => {
                [pool.as_str()].into_iter().chain(external_origin.as_deref()).collect()
            }
            SegmentKind::Snapshot { origin, cow, .. } => vec![origin, cow],
            SegmentKind::Cache { pool, origin, .. } => vec![pool, origin],
            SegmentKind::WriteCache { origin, cache } => vec![origin, cache],
            SegmentKind::Vdo { pool } => vec![pool],
            SegmentKind::VdoPool { data } => vec![data],
            SegmentKind::Integrity { origin } => vec![origin],
            SegmentKind::Error | SegmentKind::Zero | SegmentKind::Unknown => Vec::new(),
        }
    }

    /// The areas on physical volumes, with how many extents each has there.
    pub fn physical_areas(&self) -> Vec<(&str, u64, u64)> {
        let (areas, each) = match &self.kind {
            SegmentKind::Striped { areas, .. } => (areas, self.extent_count / (areas.len() as u64).max(1)),
            SegmentKind::Mirror { images, .. } => (images, self.extent_count),
            _ => return Vec::new(),
        };
        let on_pv = areas.iter().filter_map(|area| match &area.on {
            AreaOn::Pv(name) => Some((name.as_str(), area.start_extent, each)),
            AreaOn::Lv(_) => None,
        });
        on_pv.collect()
    }
}

/// Flags behind a type's name that do not change what is read here, or that are looked at.
const KNOWN_FLAGS: [&str; 8] = [
    "METADATA_FORMAT",
    "CACHE_USES_CACHEVOL",
    "CROP_METADATA",
    "RESHAPE",
    "RESHAPE_DELTA_DISKS_PLUS",
    "RESHAPE_DELTA_DISKS_MINUS",
    "RESHAPE_DATA_OFFSET",
    "REBUILD",
];

struct Fields<'a> {
    section: &'a Section,
    is_pv: &'a dyn Fn(&str) -> bool,
}

impl Fields<'_> {
    fn number(&self, key: &str) -> Result<u64, String> {
        self.section.number(key).ok_or_else(|| format!("a segment without {key}"))
    }

    fn text(&self, key: &str) -> Result<String, String> {
        self.optional_text(key).ok_or_else(|| format!("a segment without {key}"))
    }

    fn optional_text(&self, key: &str) -> Option<String> {
        self.section.text(key).map(str::to_string)
    }

    /// A number of sectors, in bytes.
    fn optional_bytes(&self, key: &str) -> Result<Option<u64>, String> {
        let bytes =
            |sectors: u64| sectors.checked_mul(512).ok_or_else(|| format!("a segment's {key} overflows"));
        self.section.number(key).map(bytes).transpose()
    }

    fn bytes(&self, key: &str) -> Result<u64, String> {
        self.optional_bytes(key)?.ok_or_else(|| format!("a segment without {key}"))
    }

    fn area(&self, name: &str, start_extent: i64) -> Result<Area, String> {
        let start_extent = u64::try_from(start_extent).map_err(|_| "an area before the first extent")?;
        let on = if (self.is_pv)(name) { AreaOn::Pv(name.into()) } else { AreaOn::Lv(name.into()) };
        Ok(Area { on, start_extent })
    }

    /// A list of names, each with an extent behind it.
    fn areas(&self, key: &str) -> Result<Vec<Area>, String> {
        let Some(Value::List(list)) = self.section.value(key) else {
            return Err(format!("a segment without {key}"));
        };
        let (pairs, rest) = list.as_chunks::<2>();
        if pairs.is_empty() || !rest.is_empty() || pairs.len() > MAX_AREAS {
            return Err(format!("a segment's {key} are not names and extents"));
        }
        pairs
            .iter()
            .map(|pair| match pair {
                [Value::Text(name), Value::Integer(start)] => self.area(&name.to_string(), *start),
                _ => Err(format!("a segment's {key} are not names and extents")),
            })
            .collect()
    }

    fn kind(&self, type_name: &str, flags: &str) -> Result<SegmentKind, String> {
        Ok(match type_name {
            "striped" | "linear" => {
                let areas = self.areas("stripes")?;
                let stripe_size = match areas.len() {
                    1 => 0,
                    _ => self.bytes("stripe_size")?,
                };
                SegmentKind::Striped { stripe_size, areas }
            }
            "mirror" => SegmentKind::Mirror {
                region_size: self.optional_bytes("region_size")?.unwrap_or(0),
                images: self.areas("mirrors")?,
                log: self.optional_text("mirror_log"),
                extents_moved: self.section.number("extents_moved"),
            },
            raid if raid.starts_with("raid") => SegmentKind::Raid {
                stripe_size: self.optional_bytes("stripe_size")?.unwrap_or(0),
                region_size: self.optional_bytes("region_size")?.unwrap_or(0),
                images: self.raid_images()?,
                data_copies: self.section.number("data_copies").unwrap_or(2),
                is_reshaping: flags.contains("RESHAPE")
                    || ["reshape_count", "delta_disks", "data_offset"]
                        .iter()
                        .any(|k| self.section.value(k).is_some()),
            },
            "thin-pool" => SegmentKind::ThinPool {
                metadata: self.text("metadata")?,
                data: self.text("pool")?,
                chunk_size: self.bytes("chunk_size")?,
                transaction_id: self.number("transaction_id")?,
                zero_new_blocks: self.section.number("zero_new_blocks").unwrap_or(0) != 0,
                discards: self.optional_text("discards"),
                has_pending_messages: self.section.sections().any(|(name, _)| name.starts_with("message")),
            },
            "thin" => SegmentKind::Thin {
                pool: self.text("thin_pool")?,
                device_id: self.number("device_id")?,
                origin: self.optional_text("origin"),
                external_origin: self.optional_text("external_origin"),
            },
            "snapshot" => {
                let merging = self.optional_text("merging_store");
                SegmentKind::Snapshot {
                    origin: self.text("origin")?,
                    is_merging: merging.is_some(),
                    cow: merging.map_or_else(|| self.text("cow_store"), Ok)?,
                    chunk_size: self.bytes("chunk_size")?,
                }
            }
            "cache" => SegmentKind::Cache {
                pool: self.text("cache_pool")?,
                origin: self.text("origin")?,
                mode: self.optional_text("cache_mode"),
                metadata_format: self.section.number("metadata_format"),
                cache_volume: self.cache_volume()?,
                chunk_size: self.optional_bytes("chunk_size")?,
                policy: self.optional_text("policy"),
            },
            "cache-pool" => SegmentKind::CachePool {
                data: self.text("data")?,
                metadata: self.text("metadata")?,
                chunk_size: self.bytes("chunk_size")?,
                mode: self.optional_text("cache_mode"),
                metadata_format: self.section.number("metadata_format"),
                policy: self.optional_text("policy"),
            },
            "writecache" => {
                SegmentKind::WriteCache { origin: self.text("origin")?, cache: self.text("writecache")? }
            }
            "vdo" => SegmentKind::Vdo { pool: self.text("vdo_pool")? },
            "vdo-pool" => SegmentKind::VdoPool { data: self.text("data")? },
            "integrity" => SegmentKind::Integrity { origin: self.text("origin")? },
            "error" => SegmentKind::Error,
            "zero" => SegmentKind::Zero,
            _ => SegmentKind::Unknown,
        })
    }

    /// Pairs of a metadata and a data volume, or data volumes alone.
    fn raid_images(&self) -> Result<Vec<RaidImage>, String> {
        let names = |key: &str| match self.section.value(key) {
            Some(_) => {
                Some(self.section.texts(key)).filter(|names| !names.is_empty() && names.len() <= MAX_AREAS)
            }
            None => None,
        };
        if let Some(data) = names("raid0_lvs") {
            return Ok(data.into_iter().map(|data| RaidImage { metadata: None, data }).collect());
        }
        let names = names("raids").ok_or("a segment without raids")?;
        match names.as_chunks::<2>() {
            (pairs, []) => Ok(pairs
                .iter()
                .map(|[metadata, data]| RaidImage { metadata: Some(metadata.clone()), data: data.clone() })
                .collect()),
            _ => Err("a segment's raids are not pairs".into()),
        }
    }

    fn cache_volume(&self) -> Result<Option<CacheVolume>, String> {
        Ok(match self.optional_bytes("metadata_start")? {
            None => None,
            Some(metadata_start) => Some(CacheVolume {
                metadata_start,
                metadata_len: self.bytes("metadata_len")?,
                data_start: self.bytes("data_start")?,
                data_len: self.bytes("data_len")?,
            }),
        })
    }
}
