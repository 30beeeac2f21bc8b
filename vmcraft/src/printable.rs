//! Runs of printable characters in any bytes, as strings(1) finds them.

use crate::{Error, Result};

/// How many characters make a run.
const SHORTEST: usize = 4;

/// The longest run that is given as one text.
const LONGEST: usize = 1 << 20;

/// How a character is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Ascii,
    EightBit,
    Wide { bytes: usize, big_endian: bool },
}

impl Encoding {
    /// The encoding by the letter that strings(1) has for it.
    pub(crate) fn parse(letter: &str) -> Result<Self> {
        Ok(match letter {
            "s" => Self::Ascii,
            "S" => Self::EightBit,
            "b" => Self::Wide { bytes: 2, big_endian: true },
            "l" => Self::Wide { bytes: 2, big_endian: false },
            "B" => Self::Wide { bytes: 4, big_endian: true },
            "L" => Self::Wide { bytes: 4, big_endian: false },
            other => {
                return Err(Error::Usage(format!(
                    "{other:?} is not an encoding: it is one of s, S, b, l, B and L"
                )));
            }
        })
    }
}

/// A search that is fed piece by piece.
pub(crate) struct Scan {
    encoding: Encoding,
    run: Vec<u8>,
    /// The bytes of a wide character that is not whole yet.
    pending: Vec<u8>,
}

impl Scan {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, run: Vec::new(), pending: Vec::new() }
    }

    /// Shows the runs that end in `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8], show: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for byte in bytes {
            match self.encoding {
                Encoding::Ascii => self.character(is_printable(*byte).then_some(*byte), show)?,
                Encoding::EightBit => {
                    self.character((is_printable(*byte) || *byte >= 128).then_some(*byte), show)?;
                }
                Encoding::Wide { bytes, big_endian } => {
                    self.pending.push(*byte);
                    if self.pending.len() == bytes {
                        self.wide(big_endian, show)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows the run at the end.
    pub(crate) fn finish(mut self, show: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.character(None, show)
    }

    fn wide(&mut self, big_endian: bool, show: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (low, high) = match big_endian {
            true => self.pending.split_last().map(|(low, high)| (*low, high.to_vec())),
            false => self.pending.split_first().map(|(low, high)| (*low, high.to_vec())),
        }
        .unwrap_or_default();
        if high.iter().all(|byte| *byte == 0) && is_printable(low) {
            self.pending.clear();
            return self.character(Some(low), show);
        }
        self.character(None, show)?;
        // A run can begin at any byte: the next character may begin one further.
        self.pending.remove(0);
        Ok(())
    }

    fn character(&mut self, byte: Option<u8>, show: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match byte {
            Some(byte) => {
                self.run.push(byte);
                if self.run.len() < LONGEST {
                    return Ok(());
                }
            }
            None if self.run.is_empty() => return Ok(()),
            None => {}
        }
        if self.run.len() >= SHORTEST {
            show(&self.run)?;
        }
        self.run.clear();
        Ok(())
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t')
}
