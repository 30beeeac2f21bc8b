//! The anti-forensic splitter: a key spread over so many stripes that losing any of them loses the key.
//!
//! Spec: LUKS On-Disk Format 1.2.3, chapter 2.4 (AFsplitter).

use zeroize::Zeroizing;

use crate::crypt::hash::Hash;

/// The stripes that cryptsetup makes, and the only number that LUKS1 has.
pub(super) const STRIPES: u32 = 4000;

/// The key that the stripes hold; `material` is as many stripes of `key_len` bytes as fit.
pub(super) fn merge(material: &[u8], key_len: usize, hash: Hash) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(vec![0; key_len]);
    let mut stripes = material.chunks_exact(key_len).peekable();
    while let Some(stripe) = stripes.next() {
        xor(&mut key, stripe);
        if stripes.peek().is_some() {
            key = diffuse(&key, hash);
        }
    }
    key
}

/// Spreads a key over stripes, all but the last of which are random.
pub(super) fn split(
    key: &[u8],
    stripes: u32,
    hash: Hash,
    random: &mut dyn FnMut(&mut [u8]),
) -> Zeroizing<Vec<u8>> {
    let stripes = stripes as usize;
    let mut material = Zeroizing::new(vec![0; key.len() * stripes]);
    let last = key.len() * (stripes - 1);
    random(&mut material[..last]);
    let mut sum = Zeroizing::new(vec![0; key.len()]);
    for stripe in material[..last].chunks_exact(key.len()) {
        xor(&mut sum, stripe);
        sum = diffuse(&sum, hash);
    }
    xor(&mut sum, key);
    material[last..].copy_from_slice(&sum);
    material
}

fn xor(into: &mut [u8], other: &[u8]) {
    into.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

/// Replaces each piece of a digest's length by the digest of its number and itself.
fn diffuse(bytes: &[u8], hash: Hash) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
    for (number, piece) in (0_u32..).zip(bytes.chunks(hash.len())) {
        out.extend_from_slice(&hash.digest(&[&number.to_be_bytes(), piece])[..piece.len()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Lengths that are not a multiple of the digest's are cut as the format says.
    fn merging_undoes_splitting() {
        for (hash, len) in [(Hash::Sha256, 32), (Hash::Sha256, 64), (Hash::Sha1, 32), (Hash::Whirlpool, 16)] {
            let key: Vec<u8> = (1..=len).collect();
            let mut next = 0_u8;
            let mut random = |bytes: &mut [u8]| {
                bytes.iter_mut().for_each(|byte| {
                    next = next.wrapping_mul(5).wrapping_add(89);
                    *byte = next;
                });
            };
            let material = split(&key, 50, hash, &mut random);
            assert_eq!(*merge(&material, key.len(), hash), key);
            let mut damaged = material.clone();
            damaged[0] ^= 1;
            assert_ne!(*merge(&damaged, key.len(), hash), key);
        }
    }
}
