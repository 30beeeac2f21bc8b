//! Where RAID-4, 5 and 6 have data and parity in each stripe.

/// The order of data and parity in a stripe, and how it rotates from stripe to stripe.
///
/// Named as Linux names them. In the kinds ending in `6`, Q stands on the last member and the others form the
/// RAID-5 layout of that name, which is how a RAID-5 becomes a RAID-6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum ParityLayout {
    LeftAsymmetric,
    RightAsymmetric,
    LeftSymmetric,
    RightSymmetric,
    /// Parity on the first member, or the first two.
    ParityFirst,
    /// Parity on the last member, or the last two. RAID-4.
    ParityLast,
    /// DDF's layouts, of RAID-6 only: they also number the blocks otherwise for Q.
    RotatingZeroRestart,
    RotatingNRestart,
    RotatingNContinue,
    LeftAsymmetric6,
    RightAsymmetric6,
    LeftSymmetric6,
    RightSymmetric6,
    ParityFirst6,
}

impl ParityLayout {
    /// Decodes md's number of a layout for an array with one or two parities.
    pub(crate) fn from_md(number: u32, parities: usize) -> Option<Self> {
        let layout = match number {
            0 => Self::LeftAsymmetric,
            1 => Self::RightAsymmetric,
            2 => Self::LeftSymmetric,
            3 => Self::RightSymmetric,
            4 => Self::ParityFirst,
            5 => Self::ParityLast,
            8 => Self::RotatingZeroRestart,
            9 => Self::RotatingNRestart,
            10 => Self::RotatingNContinue,
            16 => Self::LeftAsymmetric6,
            17 => Self::RightAsymmetric6,
            18 => Self::LeftSymmetric6,
            19 => Self::RightSymmetric6,
            20 => Self::ParityFirst6,
            _ => return None,
        };
        (number < 8 || parities == 2).then_some(layout)
    }

    /// Whether Q counts parity blocks as zeros in between, as DDF does.
    fn counts_parity(self) -> bool {
        matches!(self, Self::RotatingZeroRestart | Self::RotatingNRestart | Self::RotatingNContinue)
    }
}

/// Which members have what in one stripe.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// The member that has P.
    pub(super) p: usize,
    /// The member that has Q.
    pub(super) q: Option<usize>,
    /// The member of each data block, in the order of the array.
    pub(super) data: Vec<usize>,
    /// The power of 2 that each data block, in the order of the array, is multiplied by in Q.
    pub(super) exponents: Vec<usize>,
}

/// A layout over a number of members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub(super) layout: ParityLayout,
    pub(super) members: usize,
    /// 1 or 2.
    pub(super) parities: usize,
}

impl Placement {
    pub(super) fn data_members(&self) -> usize {
        self.members - self.parities
    }

    /// The members that have P and Q (with one parity, P twice) in a stripe.
    fn parities(&self, stripe: u64) -> (usize, usize) {
        use ParityLayout as L;
        let last = self.members - 1;
        // What rotates, and over how many members.
        let turn = |over: usize, stripe: u64| {
            #[allow(clippy::cast_possible_truncation)] // less than the number of members
            let turn = (stripe % over as u64) as usize;
            turn
        };
        let all = turn(self.members, stripe);
        if self.parities == 1 {
            let p = match self.layout {
                L::LeftAsymmetric | L::LeftSymmetric => last - all,
                L::RightAsymmetric | L::RightSymmetric => all,
                L::ParityFirst => 0,
                _ => last,
            };
            return (p, p);
        }
        let next = |member: usize| (member + 1) % self.members;
        match self.layout {
            L::LeftAsymmetric | L::LeftSymmetric => (last - all, next(last - all)),
            L::RightAsymmetric | L::RightSymmetric | L::RotatingZeroRestart => (all, next(all)),
            L::ParityFirst => (0, 1),
            L::ParityLast => (last - 1, last),
            L::RotatingNRestart => {
                let p = last - turn(self.members, stripe.wrapping_add(1));
                (p, next(p))
            }
            L::RotatingNContinue => (last - all, (last - all + last) % self.members),
            L::LeftAsymmetric6 | L::LeftSymmetric6 => (last - 1 - turn(last, stripe), last),
            L::RightAsymmetric6 | L::RightSymmetric6 => (turn(last, stripe), last),
            L::ParityFirst6 => (0, last),
        }
    }

    /// The member that has the data block `index` of a stripe.
    pub(super) fn data_member(&self, stripe: u64, index: usize) -> usize {
        let (p, q) = self.parities(stripe);
        self.beside(p, q, index)
    }

    fn beside(&self, p: usize, q: usize, index: usize) -> usize {
        use ParityLayout as L;
        match self.layout {
            // From the member after the parities on, round.
            L::LeftSymmetric | L::RightSymmetric => (p + self.parities + index) % self.members,
            L::RotatingNContinue => (p + 1 + index) % self.members,
            L::LeftSymmetric6 | L::RightSymmetric6 => (p + 1 + index) % (self.members - 1),
            // In the members' own order, around the parities.
            _ => {
                let (low, high) = (p.min(q), p.max(q));
                let member = index + usize::from(index >= low);
                member + usize::from(self.parities == 2 && member >= high)
            }
        }
    }

    /// Which members have what in a stripe, into `row`.
    pub(super) fn fill(&self, stripe: u64, row: &mut Row) {
        let (p, q) = self.parities(stripe);
        row.p = p;
        row.q = (self.parities == 2).then_some(q);
        row.data.clear();
        row.data.extend((0..self.data_members()).map(|index| self.beside(p, q, index)));
        row.exponents.clear();
        if self.layout.counts_parity() {
            // A block's exponent is its member's number.
            row.exponents.extend_from_slice(&row.data);
        } else if self.parities == 2 {
            // The blocks are counted from the member after Q on, round, without P.
            let start = (q + 1) % self.members;
            let distance = |member: usize| (member + self.members - start) % self.members;
            let p_distance = distance(p);
            row.exponents.extend(row.data.iter().map(|&member| {
                let distance = distance(member);
                distance - usize::from(distance > p_distance)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as text: data blocks by number, P and Q.
    fn picture(layout: ParityLayout, members: usize, parities: usize, stripes: u64) -> Vec<String> {
        let placement = Placement { layout, members, parities };
        let mut row = Row::default();
        (0..stripes)
            .map(|stripe| {
                placement.fill(stripe, &mut row);
                let mut picture = vec!["-".to_owned(); members];
                picture[row.p] = "P".into();
                if let Some(q) = row.q {
                    picture[q] = "Q".into();
                }
                for (index, &member) in row.data.iter().enumerate() {
                    assert_eq!(picture[member], "-");
                    assert_eq!(placement.data_member(stripe, index), member);
                    picture[member] = index.to_string();
                }
                picture.concat()
            })
            .collect()
    }

    #[test] // The pictures are those of the SNIA DDF specification and of mdadm's manual.
    fn raid5_layouts() {
        use ParityLayout as L;
        assert_eq!(picture(L::LeftAsymmetric, 4, 1, 4), ["012P", "01P2", "0P12", "P012"]);
        assert_eq!(picture(L::RightAsymmetric, 4, 1, 4), ["P012", "0P12", "01P2", "012P"]);
        assert_eq!(picture(L::LeftSymmetric, 4, 1, 4), ["012P", "12P0", "2P01", "P012"]);
        assert_eq!(picture(L::RightSymmetric, 4, 1, 4), ["P012", "2P01", "12P0", "012P"]);
        assert_eq!(picture(L::ParityFirst, 4, 1, 2), ["P012", "P012"]);
        assert_eq!(picture(L::ParityLast, 4, 1, 2), ["012P", "012P"]);
    }

    #[test]
    fn raid6_layouts() {
        use ParityLayout as L;
        assert_eq!(picture(L::LeftAsymmetric, 5, 2, 5), ["Q012P", "012PQ", "01PQ2", "0PQ12", "PQ012"]);
        assert_eq!(picture(L::RightAsymmetric, 5, 2, 5), ["PQ012", "0PQ12", "01PQ2", "012PQ", "Q012P"]);
        assert_eq!(picture(L::LeftSymmetric, 5, 2, 5), ["Q012P", "012PQ", "12PQ0", "2PQ01", "PQ012"]);
        assert_eq!(picture(L::RightSymmetric, 5, 2, 5), ["PQ012", "2PQ01", "12PQ0", "012PQ", "Q012P"]);
        assert_eq!(picture(L::ParityFirst, 5, 2, 1), ["PQ012"]);
        assert_eq!(picture(L::ParityLast, 5, 2, 1), ["012PQ"]);
        assert_eq!(picture(L::RotatingZeroRestart, 5, 2, 5), ["PQ012", "0PQ12", "01PQ2", "012PQ", "Q012P"]);
        assert_eq!(picture(L::RotatingNRestart, 5, 2, 5), ["012PQ", "01PQ2", "0PQ12", "PQ012", "Q012P"]);
        assert_eq!(picture(L::RotatingNContinue, 5, 2, 5), ["012QP", "12QP0", "2QP01", "QP012", "P012Q"]);
        assert_eq!(picture(L::LeftAsymmetric6, 5, 2, 4), ["012PQ", "01P2Q", "0P12Q", "P012Q"]);
        assert_eq!(picture(L::RightAsymmetric6, 5, 2, 4), ["P012Q", "0P12Q", "01P2Q", "012PQ"]);
        assert_eq!(picture(L::LeftSymmetric6, 5, 2, 4), ["012PQ", "12P0Q", "2P01Q", "P012Q"]);
        assert_eq!(picture(L::RightSymmetric6, 5, 2, 4), ["P012Q", "2P01Q", "12P0Q", "012PQ"]);
        assert_eq!(picture(L::ParityFirst6, 5, 2, 1), ["P012Q"]);
    }
}
