//! The Elephant diffuser, which spreads a change of one bit over the whole sector.
//!
//! Spec: Niels Ferguson, "AES-CBC + Elephant diffuser: A Disk Encryption Algorithm for Windows Vista", 2006. A sector
//! is a ring of little-endian 32-bit words, and each word takes in two others: in A the 2nd and the 5th before it, in
//! B those after it.

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::U32;

/// One of the two diffusers.
struct Diffuser {
    /// Where the two words stand, from the one that takes them in: going backwards wraps around.
    near: usize,
    far: usize,
    /// By how many bits the further one is rotated, by the number of the word modulo 4.
    rotations: [u32; 4],
    cycles: usize,
}

const A: Diffuser = Diffuser {
    near: 2_usize.wrapping_neg(),
    far: 5_usize.wrapping_neg(),
    rotations: [9, 0, 13, 0],
    cycles: 5,
};
const B: Diffuser = Diffuser { near: 2, far: 5, rotations: [0, 10, 0, 25], cycles: 3 };

/// Spreads a sector, whose words are a power of two. [`gather`] undoes it.
pub(super) fn spread(sector: &mut [u8]) {
    let Ok(words) = <[U32]>::mut_from_bytes(sector) else { return };
    for diffuser in [A, B] {
        for _ in 0..diffuser.cycles {
            for at in (0..words.len()).rev() {
                words[at] = words[at].get().wrapping_sub(diffuser.taken_in(words, at)).into();
            }
        }
    }
}

/// Undoes [`spread`].
pub(super) fn gather(sector: &mut [u8]) {
    let Ok(words) = <[U32]>::mut_from_bytes(sector) else { return };
    for diffuser in [B, A] {
        for _ in 0..diffuser.cycles {
            for at in 0..words.len() {
                words[at] = words[at].get().wrapping_add(diffuser.taken_in(words, at)).into();
            }
        }
    }
}

impl Diffuser {
    fn taken_in(&self, words: &[U32], at: usize) -> u32 {
        let ring = words.len() - 1; // a mask, since the length is a power of two
        let word = |by: usize| words[at.wrapping_add(by) & ring].get();
        word(self.near) ^ word(self.far).rotate_left(self.rotations[at % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // What it spreads is proven by images that Windows made; here, that the ways back and forth agree.
    fn spreading_is_undone() {
        for size in [512, 4096] {
            let plain: Vec<u8> =
                (0..size).map(|at: u32| at.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]).collect();
            let mut sector = plain.clone();
            spread(&mut sector);
            assert!(sector.iter().zip(&plain).filter(|(a, b)| a == b).count() < sector.len() / 50);
            gather(&mut sector);
            assert_eq!(sector, plain);
        }
    }
}
