//! The driver's tools for a volume that is not mounted.

use std::sync::Arc;

use bstr::BString;
use vmcraft_block::BlockDevice;
use vmcraft_fs::{CheckOptions, Finding, FormatOptions, Maintain, ResizeTo, Result, Sources};

use crate::{check, describe, mkfs, resize};

/// Makes ext2, ext3 and ext4.
pub(crate) struct Tools;

impl Maintain for Tools {
    fn format(&self, device: &Arc<dyn BlockDevice>, kind: &str, options: &FormatOptions) -> Result<()> {
        mkfs::format(device, kind, options)
    }

    fn check(&self, device: &Arc<dyn BlockDevice>, options: CheckOptions) -> Result<Vec<Finding>> {
        check::check(device, options)
    }

    fn resize(&self, device: &Arc<dyn BlockDevice>, to: ResizeTo, sources: &Sources) -> Result<u64> {
        resize::resize(device, to, sources)
    }

    fn describe(&self, device: &Arc<dyn BlockDevice>) -> Result<Vec<(&'static str, BString)>> {
        describe::describe(&**device)
    }

    fn minimum_size(&self, device: &Arc<dyn BlockDevice>) -> Result<u64> {
        resize::minimum_size(device)
    }
}
