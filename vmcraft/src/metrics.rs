//! Where the time of a session went.

use std::time::Duration;

/// Times and counts of a session so far.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Metrics {
    /// Opening the images.
    pub open: Duration,
    /// Reading partition tables and finding devices.
    pub scan: Duration,
    /// Finding operating systems.
    pub inspect: Duration,
    /// Opening file systems.
    pub mount: Duration,
    /// Bytes read from the images.
    pub bytes_read: u64,
    /// Requests that read them.
    pub read_requests: u64,
    /// Bytes that were asked of the disks. What is in memory already is not read again, and
    /// read-ahead reads what nobody asked for.
    pub bytes_requested: u64,
    /// Requests that asked for them.
    pub requests: u64,
}
