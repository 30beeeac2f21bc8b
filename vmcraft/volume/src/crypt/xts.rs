//! XTS, many blocks at a time.
//!
//! The tweaks of a piece of data are computed first, so that the cipher sees as many independent blocks as its
//! backend takes at once: block by block it is several times slower.
//!
//! Spec: IEEE 1619-2018. Sectors are whole blocks here, so that there is no ciphertext stealing.

use cipher::array::{Array, ArraySize};
use cipher::consts::U16;
use cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
};
use zeroize::Zeroize;

use super::iv::Iv;
use super::{SectorCipher, Sectors};

type Block = Array<u8, U16>;

/// The blocks whose tweaks are in memory at once: 4 KiB of data, which is the largest sector.
const LOT: usize = 256;

/// The sectors whose first tweaks are made at once: as many as the widest backend takes.
const STARTS: usize = 64;

/// XTS with a 128-bit block cipher.
pub(crate) struct Xts<C> {
    data: C,
    tweak: C,
    iv: Iv,
}

impl<C> Xts<C> {
    /// XTS with the cipher for data, the cipher for tweaks, and what a sector's number becomes.
    pub(crate) fn new(data: C, tweak: C, iv: Iv) -> Self {
        Self { data, tweak, iv }
    }
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Xts<C> {
    /// Splits the data into runs of sectors, and gives each with the first tweak of each of its sectors.
    fn runs(&self, sectors: Sectors, data: &mut [u8], mut each: impl FnMut(Run<'_>)) {
        for (index, data) in data.chunks_mut(STARTS * sectors.size).enumerate() {
            let mut starts = [Block::default(); STARTS];
            let count = data.len() / sectors.size;
            for (i, start) in starts[..count].iter_mut().enumerate() {
                self.iv.fill(sectors, index * STARTS + i, start);
            }
            // A full lot goes through the wide backend at once, which a few single blocks do not.
            let made = if count < STARTS / 4 { count } else { STARTS };
            self.tweak.encrypt_blocks(&mut starts[..made]);
            let (blocks, _) = Array::slice_as_chunks_mut(data);
            each(Run { blocks, starts: &starts[..count], blocks_per_sector: sectors.size / 16 });
            starts.as_mut_slice().iter_mut().for_each(|start| start.0.zeroize());
        }
    }
}

impl<C> SectorCipher for Xts<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn decrypt(&self, sectors: Sectors, data: &mut [u8]) {
        self.runs(sectors, data, |run| self.data.decrypt_with_backend(run));
    }

    fn encrypt(&self, sectors: Sectors, data: &mut [u8]) {
        self.runs(sectors, data, |run| self.data.encrypt_with_backend(run));
    }
}

/// A run of sectors whose first tweaks are known.
struct Run<'a> {
    blocks: &'a mut [Block],
    starts: &'a [Block],
    blocks_per_sector: usize,
}

impl BlockSizeUser for Run<'_> {
    type BlockSize = U16;
}

// The functions below are inlined into the backend's own, which is compiled for the processor's wide instructions.
impl BlockCipherDecClosure for Run<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        self.process::<B::ParBlocksSize>(
            |blocks| backend.decrypt_par_blocks_inplace(blocks),
            |blocks| backend.decrypt_tail_blocks_inplace(blocks),
        );
    }
}

impl BlockCipherEncClosure for Run<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        self.process::<B::ParBlocksSize>(
            |blocks| backend.encrypt_par_blocks_inplace(blocks),
            |blocks| backend.encrypt_tail_blocks_inplace(blocks),
        );
    }
}

impl Run<'_> {
    #[inline(always)]
    fn process<N: ArraySize>(self, wide: impl Fn(&mut Array<Block, N>), rest: impl Fn(&mut [Block])) {
        let per_sector = self.blocks_per_sector;
        let mut tweaks = [0; LOT];
        for (lot, starts) in self.blocks.chunks_mut(LOT).zip(self.starts.chunks(LOT / per_sector)) {
            for (tweaks, start) in tweaks[..lot.len()].chunks_mut(per_sector).zip(starts) {
                expand(tweaks, u128::from_le_bytes(start.0));
            }
            let (chunks, tail) = Array::<Block, N>::slice_as_chunks_mut(lot);
            let (wide_tweaks, tail_tweaks) = tweaks.split_at(chunks.len() * N::USIZE);
            for (chunk, tweaks) in chunks.iter_mut().zip(wide_tweaks.chunks(N::USIZE)) {
                xor(chunk, tweaks);
                wide(chunk);
                xor(chunk, tweaks);
            }
            xor(tail, tail_tweaks);
            // A backend of single blocks has no tail, and may refuse even an empty one.
            if !tail.is_empty() {
                rest(tail);
            }
            xor(tail, tail_tweaks);
        }
        tweaks.zeroize();
    }
}

#[inline(always)]
fn xor(blocks: &mut [Block], tweaks: &[u128]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        block.0 = (u128::from_le_bytes(block.0) ^ tweak).to_le_bytes();
    }
}

/// The tweaks of a sector: each is the one before times x in GF(2^128), modulo x^128 + x^7 + x^2 + x + 1.
///
/// Eight are made at once, each from the one that is eight before it, in steps that a compiler makes vectors of.
#[inline(always)]
fn expand(tweaks: &mut [u128], start: u128) {
    let (mut low, mut high) = ([0_u64; 8], [0_u64; 8]);
    #[allow(clippy::cast_possible_truncation)] // The two halves of the number.
    let (start_low, start_high) = (start as u64, (start >> 64) as u64);
    for i in 0..8 {
        // Shifting in two steps makes a shift by 64 give 0.
        low[i] = (start_low << i) ^ reduced(start_high >> 1 >> (63 - i));
        high[i] = (start_high << i) | (start_low >> 1 >> (63 - i));
    }
    for eight in tweaks.as_chunks_mut::<8>().0 {
        for i in 0..8 {
            eight[i] = u128::from(low[i]) | u128::from(high[i]) << 64;
            let carry = high[i] >> 56;
            high[i] = (high[i] << 8) | (low[i] >> 56);
            low[i] = (low[i] << 8) ^ reduced(carry);
        }
    }
}

/// What the bits that were shifted out at the top, at most 8, add at the bottom.
#[inline(always)]
fn reduced(carry: u64) -> u64 {
    carry ^ (carry << 1) ^ (carry << 2) ^ (carry << 7)
}
