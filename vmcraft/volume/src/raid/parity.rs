//! Stripes with parity: computing it, and what is missing from it.
//!
//! Work goes in columns: the same range of bytes of every member, in one stripe. A write covers each block of
//! a column wholly or not at all, as its edges are made column edges.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use super::device::Members;
use super::galois;
use super::locks::StripeLocks;
use super::placement::{Placement, Row};

/// The most bytes of all members of a column together, unless that made columns shorter than the least.
const COLUMN_BYTES: usize = 1 << 20;
const LEAST_COLUMN: usize = 4096;

/// What computing takes, made once and used again.
#[derive(Default)]
struct Scratch {
    row: Row,
    /// A block for each member, one after the other.
    blocks: Vec<u8>,
    /// Whether each block has the member's content.
    is_known: Vec<bool>,
    /// Members that failed to be read in this column.
    has_failed: Vec<bool>,
}

/// The column of one stripe that is worked on.
#[derive(Clone, Copy)]
struct Column {
    /// Where it is on every member, in bytes.
    offset: u64,
    len: usize,
}

pub(super) struct Stripes {
    column_len: usize,
    /// Whether parity fits the data everywhere. If not, it is computed from all data on each write.
    pub(super) is_parity_trusted: bool,
    spare: Mutex<Vec<Scratch>>,
}

impl Stripes {
    pub(super) fn new(members: usize) -> Self {
        let column_len = (COLUMN_BYTES / members.max(1)).next_multiple_of(LEAST_COLUMN);
        Self { column_len, is_parity_trusted: true, spare: Mutex::default() }
    }

    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let spare = || self.spare.lock().unwrap_or_else(|e| e.into_inner());
        let mut scratch = spare().pop().unwrap_or_default();
        let result = work(&mut scratch);
        spare().push(scratch);
        result
    }

    /// Fills `buf`, which is within one block, with what its member would have, from the others.
    pub(super) fn reconstruct(
        &self,
        members: &Members,
        locks: &StripeLocks,
        placement: &Placement,
        chunk: u64,
        offset: u64,
        buf: &mut [u8],
    ) -> io::Result<()> {
        let width = placement.data_members() as u64;
        let (stripe, in_chunk) = (offset / chunk / width, offset % chunk);
        #[allow(clippy::cast_possible_truncation)] // less than the number of members
        let index = (offset / chunk % width) as usize;
        let _lock = locks.read(stripe);
        self.with_scratch(|scratch| {
            placement.fill(stripe, &mut scratch.row);
            let wanted = scratch.row.data[index];
            let mut done = 0;
            while done < buf.len() {
                let column = self.column(members, stripe * chunk + in_chunk + done as u64, buf.len() - done);
                scratch.begin(members, column);
                scratch.load_and_solve(members, column, &[wanted], false)?;
                buf[done..done + column.len].copy_from_slice(scratch.block(wanted, column.len));
                done += column.len;
            }
            Ok(())
        })
    }

    /// A column from `offset` of the members on: as long as it may be, and on each member all good or all bad.
    fn column(&self, members: &Members, offset: u64, len: usize) -> Column {
        let len = len.min(self.column_len);
        let uniform =
            (0..members.0.len()).fold(len as u64, |len, member| members.uniform(member, offset, len));
        // Not longer than it was.
        Column { offset, len: usize::try_from(uniform).unwrap_or(len) }
    }

    /// Writes `buf`, with parity.
    pub(super) fn write(
        &self,
        members: &Members,
        locks: &StripeLocks,
        placement: &Placement,
        chunk: u64,
        offset: u64,
        buf: &[u8],
    ) -> io::Result<()> {
        let stripe_len = chunk * placement.data_members() as u64; // no more than the array's size
        self.with_scratch(|scratch| {
            let mut done = 0;
            while done < buf.len() {
                let at = offset + done as u64;
                let (stripe, in_stripe) = (at / stripe_len, at % stripe_len);
                let left = (buf.len() - done) as u64;
                #[allow(clippy::cast_possible_truncation)] // no more than the buffer's length
                let len = left.min(stripe_len - in_stripe) as usize;
                let _lock = locks.write(stripe);
                placement.fill(stripe, &mut scratch.row);
                self.write_stripe(members, chunk, stripe, in_stripe, &buf[done..done + len], scratch)?;
                done += len;
            }
            Ok(())
        })
    }

    /// Calls `each` for the columns of a range of bytes of a stripe's data: with the blocks that the range covers
    /// there, and where in the blocks that is.
    fn each_column(
        &self,
        members: &Members,
        chunk: u64,
        stripe: u64,
        range: Range<u64>,
        mut each: impl FnMut(Column, Range<usize>, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let Range { start, end } = range;
        // Between these edges a block is covered wholly or not at all.
        let mut edges = [0, start % chunk, end % chunk, chunk];
        edges.sort_unstable();
        for edge in edges.windows(2) {
            let (mut at, to) = (edge[0], edge[1]);
            // The blocks that are covered here: block `i` if the range has the byte `i * chunk + at`.
            let first = start.saturating_sub(at).div_ceil(chunk);
            let behind = end.saturating_sub(at).div_ceil(chunk);
            if at == to || first == behind {
                continue;
            }
            #[allow(clippy::cast_possible_truncation)] // no more than the number of members
            let covered = first as usize..behind as usize;
            while at < to {
                let len = usize::try_from(to - at).unwrap_or(usize::MAX);
                let column = self.column(members, stripe * chunk + at, len);
                each(column, covered.clone(), at)?;
                at += column.len as u64;
            }
        }
        Ok(())
    }

    /// Fills `buf`, reading each block once, also where it takes others to compute one that is missing.
    pub(super) fn read(
        &self,
        members: &Members,
        locks: &StripeLocks,
        placement: &Placement,
        chunk: u64,
        offset: u64,
        buf: &mut [u8],
    ) -> io::Result<()> {
        let stripe_len = chunk * placement.data_members() as u64; // no more than the array's size
        self.with_scratch(|scratch| {
            let mut done = 0;
            while done < buf.len() {
                let at = offset + done as u64;
                let (stripe, start) = (at / stripe_len, at % stripe_len);
                #[allow(clippy::cast_possible_truncation)] // no more than the buffer's length
                let len = ((buf.len() - done) as u64).min(stripe_len - start) as usize;
                let piece = &mut buf[done..done + len];
                let _lock = locks.read(stripe);
                placement.fill(stripe, &mut scratch.row);
                let range = start..start + len as u64;
                self.each_column(members, chunk, stripe, range, |column, covered, at| {
                    #[allow(clippy::cast_possible_truncation)] // within the buffer
                    let in_piece = |index: usize| (index as u64 * chunk + at - start) as usize;
                    Self::read_column(members, column, covered, piece, in_piece, scratch)
                })?;
                done += len;
            }
            Ok(())
        })
    }

    /// Reads the covered blocks of a column, each to its place in `buf`.
    fn read_column(
        members: &Members,
        column: Column,
        covered: Range<usize>,
        buf: &mut [u8],
        place: impl Fn(usize) -> usize,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        scratch.begin(members, column);
        let mut wanted = Vec::new();
        for index in covered.clone() {
            let member = scratch.row.data[index];
            let target = &mut buf[place(index)..][..column.len];
            match members.at(member, column.offset).map(|there| there.device.read_at(column.offset, target)) {
                Some(Ok(())) => scratch.is_known[member] = true,
                Some(Err(error)) => {
                    tracing::warn!(member, offset = column.offset, %error, "reading a member failed");
                    wanted.push(index);
                }
                None => wanted.push(index),
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        for index in covered {
            let member = scratch.row.data[index];
            if scratch.is_known[member] {
                scratch.block_mut(member, column.len).copy_from_slice(&buf[place(index)..][..column.len]);
            }
        }
        let lost: Vec<usize> = wanted.iter().map(|&index| scratch.row.data[index]).collect();
        scratch.load_and_solve(members, column, &lost, false)?;
        for (index, member) in wanted.into_iter().zip(lost) {
            buf[place(index)..][..column.len].copy_from_slice(scratch.block(member, column.len));
        }
        Ok(())
    }

    /// Writes within one stripe: `buf` at byte `start` of its data.
    fn write_stripe(
        &self,
        members: &Members,
        chunk: u64,
        stripe: u64,
        start: u64,
        buf: &[u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let range = start..start + buf.len() as u64;
        self.each_column(members, chunk, stripe, range, |column, covered, at| {
            let new = |index: usize| {
                #[allow(clippy::cast_possible_truncation)] // within the buffer
                let from = (index as u64 * chunk + at - start) as usize;
                &buf[from..from + column.len]
            };
            self.write_column(members, column, covered, new, scratch)
        })
    }

    fn write_column<'a>(
        &self,
        members: &Members,
        column: Column,
        covered: Range<usize>,
        new: impl Fn(usize) -> &'a [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        scratch.begin(members, column);
        let is_there = |member: usize| members.at(member, column.offset).is_some();
        let parities = [Some(scratch.row.p), scratch.row.q];
        let parities = || parities.into_iter().flatten();
        if parities().any(is_there) {
            let width = scratch.row.data.len();
            let all_there =
                parities().all(is_there) && covered.clone().all(|index| is_there(scratch.row.data[index]));
            let is_cheaper = covered.len() + parities().count() < width - covered.len();
            let is_updated = all_there
                && is_cheaper
                && self.is_parity_trusted
                && scratch.update_parity(members, column, covered.clone(), &new)?;
            if !is_updated {
                scratch.load_and_compute_parity(members, column, covered.clone(), &new)?;
            }
        } else if covered.clone().any(|index| !is_there(scratch.row.data[index])) {
            return Err(io::Error::other(format!(
                "the block at byte {:#x} of the members is on none that is there, nor is its parity",
                column.offset
            )));
        }
        for index in covered {
            if let Some(member) = members.at(scratch.row.data[index], column.offset) {
                member.device.write_at(column.offset, new(index))?;
            }
        }
        for parity in parities() {
            if let Some(member) = members.at(parity, column.offset) {
                member.device.write_at(column.offset, scratch.block(parity, column.len))?;
            }
        }
        Ok(())
    }
}

impl Scratch {
    fn begin(&mut self, members: &Members, column: Column) {
        let count = members.0.len();
        if self.blocks.len() < count * column.len {
            self.blocks.resize(count * column.len, 0);
        }
        self.is_known.clear();
        self.is_known.resize(count, false);
        self.has_failed.clear();
        self.has_failed.resize(count, false);
    }

    fn block(&self, member: usize, len: usize) -> &[u8] {
        &self.blocks[member * len..][..len]
    }

    fn block_mut(&mut self, member: usize, len: usize) -> &mut [u8] {
        &mut self.blocks[member * len..][..len]
    }

    /// One member's block to change and another's to read.
    fn pair(&mut self, target: usize, source: usize, len: usize) -> (&mut [u8], &[u8]) {
        let (low, high) = self.blocks.split_at_mut(target.max(source) * len);
        let (low, high) = (&mut low[target.min(source) * len..][..len], &mut high[..len]);
        if target < source { (low, high) } else { (high, low) }
    }

    /// Reads a member's block unless it is known. `false` if it cannot be had.
    fn load(&mut self, members: &Members, column: Column, member: usize) -> bool {
        if self.is_known[member] {
            return true;
        }
        if self.has_failed[member] {
            return false;
        }
        let Some(present) = members.at(member, column.offset) else { return false };
        match present.device.read_at(column.offset, self.block_mut(member, column.len)) {
            Ok(()) => self.is_known[member] = true,
            Err(error) => {
                tracing::warn!(member, offset = column.offset, %error, "reading a member failed");
                self.has_failed[member] = true;
            }
        }
        self.is_known[member]
    }

    /// Makes the blocks of the `wanted` members known, which have data: by reading them (unless they were tried
    /// before), and by computing them from the others.
    fn load_and_solve(
        &mut self,
        members: &Members,
        column: Column,
        wanted: &[usize],
        read_wanted: bool,
    ) -> io::Result<()> {
        let mut all = true;
        for &member in wanted {
            if !read_wanted {
                self.has_failed[member] = true;
            }
            all &= self.load(members, column, member);
        }
        if all {
            return Ok(());
        }
        let mut lost = Vec::with_capacity(2);
        for index in 0..self.row.data.len() {
            if !self.load(members, column, self.row.data[index]) {
                lost.push(index);
            }
        }
        let (p, q) = (self.row.p, self.row.q);
        let is_solved = match lost[..] {
            [] => true,
            [lost] if self.load(members, column, p) => {
                self.solve_by_p(lost, column.len);
                true
            }
            [lost] => match q {
                Some(q) if self.load(members, column, q) => {
                    self.solve_by_q(lost, q, column.len);
                    true
                }
                _ => false,
            },
            [one, other] => match q {
                Some(q) if self.load(members, column, p) && self.load(members, column, q) => {
                    self.solve_two(one, other, q, column.len);
                    true
                }
                _ => false,
            },
            _ => false,
        };
        if is_solved {
            return Ok(());
        }
        let lost: Vec<_> = lost.iter().map(|&index| self.row.data[index].to_string()).collect();
        Err(io::Error::other(format!(
            "byte {:#x} of the members: nothing is left to compute the content of member {} from",
            column.offset,
            lost.join(" and ")
        )))
    }

    /// The lost block is what makes P.
    fn solve_by_p(&mut self, lost: usize, len: usize) {
        let (target, p) = (self.row.data[lost], self.row.p);
        let (block, parity) = self.pair(target, p, len);
        block.copy_from_slice(parity);
        for index in (0..self.row.data.len()).filter(|&index| index != lost) {
            let source = self.row.data[index];
            let (block, source) = self.pair(target, source, len);
            galois::xor(block, source);
        }
        self.is_known[target] = true;
    }

    /// Q of all data blocks but those `lost`, into the block of the member `target`.
    fn syndrome_into(&mut self, target: usize, lost: &[usize], len: usize) {
        self.block_mut(target, len).fill(0);
        let highest = self.row.exponents.iter().copied().max().unwrap_or(0);
        for exponent in (0..=highest).rev() {
            let index = self.row.exponents.iter().position(|e| *e == exponent).filter(|i| !lost.contains(i));
            match index {
                Some(index) => {
                    let source = self.row.data[index];
                    let (block, source) = self.pair(target, source, len);
                    galois::double_and_xor(block, source);
                }
                None => galois::double(self.block_mut(target, len)),
            }
        }
    }

    /// The lost block, multiplied, is what makes Q.
    fn solve_by_q(&mut self, lost: usize, q: usize, len: usize) {
        let target = self.row.data[lost];
        let factor = galois::invert(galois::power_of_two(self.row.exponents[lost]));
        self.syndrome_into(target, &[lost], len);
        let (block, q) = self.pair(target, q, len);
        galois::xor(block, q);
        galois::scale(block, factor);
        self.is_known[target] = true;
    }

    /// Two lost blocks: `x + y` is what makes P, and `2^a x + 2^b y` what makes Q.
    fn solve_two(&mut self, x: usize, y: usize, q: usize, len: usize) {
        let (x_member, y_member, p) = (self.row.data[x], self.row.data[y], self.row.p);
        // x = what Q lacks; y = what P lacks.
        self.syndrome_into(x_member, &[x, y], len);
        let (block, q) = self.pair(x_member, q, len);
        galois::xor(block, q);
        let (block, p) = self.pair(y_member, p, len);
        block.copy_from_slice(p);
        for index in (0..self.row.data.len()).filter(|&index| index != x && index != y) {
            let source = self.row.data[index];
            let (block, source) = self.pair(y_member, source, len);
            galois::xor(block, source);
        }
        // Eliminating y: x = (Q' + 2^b P') / (2^a + 2^b).
        let (a, b) = (self.row.exponents[x], self.row.exponents[y]);
        let (a, b) = (galois::power_of_two(a), galois::power_of_two(b));
        let factor = galois::invert(a ^ b);
        let (block, lacking) = self.pair(x_member, y_member, len);
        galois::scale_both_and_xor(block, factor, lacking, galois::multiply(factor, b));
        let (block, x) = self.pair(y_member, x_member, len);
        galois::xor(block, x);
        self.is_known[x_member] = true;
        self.is_known[y_member] = true;
    }

    /// Changes parity by what the new blocks change. `false`, with nothing changed, if what it takes could not
    /// be read.
    fn update_parity<'a>(
        &mut self,
        members: &Members,
        column: Column,
        covered: Range<usize>,
        new: &impl Fn(usize) -> &'a [u8],
    ) -> io::Result<bool> {
        let (p, q) = (self.row.p, self.row.q);
        let mut all = self.load(members, column, p) && q.is_none_or(|q| self.load(members, column, q));
        for index in covered.clone() {
            all = all && self.load(members, column, self.row.data[index]);
        }
        if !all {
            return Ok(false);
        }
        for index in covered {
            let member = self.row.data[index];
            galois::xor(self.block_mut(member, column.len), new(index));
            let (parity, change) = self.pair(p, member, column.len);
            galois::xor(parity, change);
            if let Some(q) = q {
                let factor = galois::power_of_two(self.row.exponents[index]);
                let (parity, change) = self.pair(q, member, column.len);
                galois::scale_and_xor(parity, change, factor);
            }
        }
        Ok(true)
    }

    /// Reads the blocks that stay and computes parity from all data.
    fn load_and_compute_parity<'a>(
        &mut self,
        members: &Members,
        column: Column,
        covered: Range<usize>,
        new: &impl Fn(usize) -> &'a [u8],
    ) -> io::Result<()> {
        let len = column.len;
        let kept: Vec<usize> = (0..self.row.data.len())
            .filter(|index| !covered.contains(index))
            .map(|index| self.row.data[index])
            .collect();
        self.load_and_solve(members, column, &kept, true)?;
        for index in covered {
            let member = self.row.data[index];
            self.block_mut(member, len).copy_from_slice(new(index));
        }
        let p = self.row.p;
        let first = self.row.data[0];
        let (parity, block) = self.pair(p, first, len);
        parity.copy_from_slice(block);
        for index in 1..self.row.data.len() {
            let member = self.row.data[index];
            let (parity, block) = self.pair(p, member, len);
            galois::xor(parity, block);
        }
        if let Some(q) = self.row.q {
            self.syndrome_into(q, &[], len);
        }
        Ok(())
    }
}
