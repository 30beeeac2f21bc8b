//! SELinux labels, set without running any program of the guest.

mod contexts;
mod pattern;
mod relabel;

pub use self::contexts::FileContexts;
pub(crate) use self::relabel::{Which, is_labelled, policy, relabel};
