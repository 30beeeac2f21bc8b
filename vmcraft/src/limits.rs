//! How much a call keeps in memory for its result.

use crate::{Error, Result};

/// The most bytes that a call returns. Files of the guest can be larger than the host's memory, and
/// a sparse one costs its maker nothing.
pub(crate) const MAX_RESULT_BYTES: u64 = 64 << 20;

/// About what an item of a list takes besides its bytes.
const ITEM_BYTES: usize = 48;

/// What is left of the memory for a result.
pub(crate) struct Budget {
    left: u64,
    /// What the result is of, and what to do if it is too large, for the message.
    subject: String,
    instead: &'static str,
}

impl Budget {
    /// The memory for a result about `subject`; `instead` says what else can be used, as in "use
    /// download".
    pub(crate) fn new(subject: impl ToString, instead: &'static str) -> Self {
        Self { left: MAX_RESULT_BYTES, subject: subject.to_string(), instead }
    }

    /// The memory for a list of names, of which there can be more than there are of lines.
    pub(crate) fn for_names(subject: impl ToString, instead: &'static str) -> Self {
        Self { left: 8 * MAX_RESULT_BYTES, ..Self::new(subject, instead) }
    }

    /// Takes the memory for so many bytes, or says that the result is too large.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<()> {
        self.left = self.left.checked_sub(bytes as u64).ok_or_else(|| {
            Error::Usage(format!("{}: the result is too large for memory; {}", self.subject, self.instead))
        })?;
        Ok(())
    }

    /// Takes the memory for a list's item of so many bytes.
    pub(crate) fn spend_item(&mut self, bytes: usize) -> Result<()> {
        self.spend(bytes.saturating_add(ITEM_BYTES))
    }
}
