//! The hashes of names by which htrees are ordered.
//!
//! Spec: Linux `Documentation/filesystems/ext4/directory.rst` names them; half MD4 is the first three
//! rounds of RFC 1320's function on 8 words, TEA the Tiny Encryption Algorithm of Wheeler and Needham.

/// A hash function, as the root of an htree names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Legacy,
    HalfMd4,
    Tea,
}

/// How a directory's names are hashed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hasher {
    pub(crate) algorithm: Algorithm,
    /// Whether bytes count as unsigned.
    pub(crate) unsigned: bool,
    pub(crate) seed: [u32; 4],
}

/// What the functions start from when the superblock has no seed: RFC 1320's initial value.
const DEFAULT_SEED: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// The largest hash, less one: the largest stands for the end of the directory.
const LARGEST: u32 = 0xffff_fffc;

impl Hasher {
    /// The hash of a name. Its lowest bit is clear: in an htree it marks a collision.
    pub(crate) fn hash(&self, name: &[u8]) -> u32 {
        let mut state = if self.seed == [0; 4] { DEFAULT_SEED } else { self.seed };
        let hash = match self.algorithm {
            Algorithm::Legacy => self.legacy(name),
            Algorithm::HalfMd4 => {
                for start in (0..name.len()).step_by(32) {
                    half_md4(&mut state, &self.words(&name[start..]));
                }
                state[1]
            }
            Algorithm::Tea => {
                for start in (0..name.len()).step_by(16) {
                    tea(&mut state, &self.words(&name[start..]));
                }
                state[0]
            }
        };
        (hash & !1).min(LARGEST)
    }

    fn character(&self, byte: u8) -> u32 {
        if self.unsigned { byte.into() } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }

    /// The first `N` words of what is left of a name. Where it is shorter, its length fills up.
    fn words<const N: usize>(&self, name: &[u8]) -> [u32; N] {
        // A name has at most 255 bytes.
        let padding = u32::from_le_bytes([name.len().to_le_bytes()[0]; 4]);
        let mut words = [padding; N];
        for (word, bytes) in words.iter_mut().zip(name.chunks(4)) {
            *word = bytes.iter().fold(padding, |word, &b| (word << 8).wrapping_add(self.character(b)));
        }
        words
    }

    fn legacy(&self, name: &[u8]) -> u32 {
        let (mut last, mut before) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
        for &byte in name {
            let mut hash = before.wrapping_add(last ^ self.character(byte).wrapping_mul(7_152_373));
            if hash >> 31 == 1 {
                hash = hash.wrapping_sub(0x7fff_ffff);
            }
            (before, last) = (last, hash);
        }
        last << 1
    }
}

/// Three rounds of eight steps.
fn half_md4(state: &mut [u32; 4], words: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ x & (y ^ z), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in ROUNDS {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(words[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (total, add) in state.iter_mut().zip([a, b, c, d]) {
        *total = total.wrapping_add(add);
    }
}

/// Sixteen rounds on the first two words of the state.
fn tea(state: &mut [u32; 4], key: &[u32; 4]) {
    let [mut x, mut y, ..] = *state;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        let mix = |v: u32, k0: u32, k1: u32| {
            (v << 4).wrapping_add(k0) ^ v.wrapping_add(sum) ^ (v >> 5).wrapping_add(k1)
        };
        x = x.wrapping_add(mix(y, key[0], key[1]));
        y = y.wrapping_add(mix(x, key[2], key[3]));
    }
    state[0] = state[0].wrapping_add(x);
    state[1] = state[1].wrapping_add(y);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // What debugfs's dx_hash prints.
    fn hashes_as_debugfs_prints_them() {
        let long = b"a-name-of-more-than-sixteen-bytes-and-of-thirty-two";
        let hash = |algorithm, seed, name: &[u8]| Hasher { algorithm, unsigned: false, seed }.hash(name);
        let none = [0; 4];
        let unsigned = Hasher { algorithm: Algorithm::HalfMd4, unsigned: true, seed: none };
        assert_eq!(unsigned.hash(b"caf\xc3\xa9-\xff"), 0xabfb_feb0);
        assert_eq!(hash(Algorithm::Legacy, none, b"hello"), 0x3225_2546);
        assert_eq!(hash(Algorithm::Legacy, none, long), 0xd585_b062);
        assert_eq!(hash(Algorithm::Legacy, none, b"caf\xc3\xa9-\xff"), 0x65a7_ebe0);
        assert_eq!(hash(Algorithm::HalfMd4, none, b"a"), 0xd5fa_7d7a);
        assert_eq!(hash(Algorithm::HalfMd4, none, long), 0x9ecf_5cd4);
        assert_eq!(hash(Algorithm::HalfMd4, none, b"caf\xc3\xa9-\xff"), 0x3835_8b86);
        assert_eq!(hash(Algorithm::Tea, none, b"hello"), 0x6f5b_b1a8);
        assert_eq!(hash(Algorithm::Tea, none, long), 0x4474_9a44);
        assert_eq!(hash(Algorithm::Tea, none, b"caf\xc3\xa9-\xff"), 0x2ca5_61bc);
        // The UUID 01020304-0506-0708-090a-0b0c0d0e0f10, as little-endian words.
        let seed = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
        assert_eq!(hash(Algorithm::HalfMd4, seed, long), 0xa8a5_ea1e);
        assert_eq!(hash(Algorithm::Tea, seed, b"a"), 0xf535_28f0);
    }
}
