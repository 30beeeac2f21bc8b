//! SELinux labels, set without running any program of the guest.

mod contexts;
mod pattern;

pub use self::contexts::FileContexts;
