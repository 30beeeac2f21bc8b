//! Names of things inside the guest: paths, devices, and what is either.
//!
//! They are borrowed newtypes, so that an argument of a call says what it is; `"…".into()` makes
//! one from a literal.

use std::fmt;

use bstr::{BStr, ByteSlice};
use ref_cast::RefCast;

macro_rules! name_type {
    ($(#[$meta:meta])* $type:ident) => {
        $(#[$meta])*
        #[derive(PartialEq, Eq, PartialOrd, Ord, Hash, RefCast)]
        #[repr(transparent)]
        pub struct $type([u8]);

        impl $type {
            /// The same bytes under this type.
            pub fn new<B: AsRef<[u8]> + ?Sized>(bytes: &B) -> &Self {
                Self::ref_cast(bytes.as_ref())
            }

            /// The bytes, displayable as text.
            pub fn as_bstr(&self) -> &BStr {
                self.0.as_bstr()
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self.as_bstr(), f)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_bstr(), f)
            }
        }
        impl<'a> From<&'a str> for &'a $type {
            fn from(text: &'a str) -> Self {
                $type::new(text)
            }
        }
        impl<'a> From<&'a [u8]> for &'a $type {
            fn from(bytes: &'a [u8]) -> Self {
                $type::new(bytes)
            }
        }
        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    };
}

name_type! {
    /// A path inside the guest: absolute, `/`-separated, of any bytes but NUL.
    GuestPath
}
name_type! {
    /// The name of a block device, such as `/dev/sda1`. `/dev/vda1`, `/dev/hda1` and `/dev/xvda1`
    /// mean the same device.
    DeviceName
}
name_type! {
    /// What can be mounted: a device, or `btrfsvol:/dev/sda1/NAME`.
    Mountable
}
name_type! {
    /// A device if it starts with `/dev/`, else a path inside the guest.
    DeviceOrPath
}

impl GuestPath {
    /// The names between the slashes; `.` and empty ones are left out, `..` is kept.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &BStr> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
            .map(ByteSlice::as_bstr)
    }

    /// Whether it starts with `/`.
    pub fn is_absolute(&self) -> bool {
        self.0.first() == Some(&b'/')
    }
}

impl DeviceOrPath {
    /// The device, if it names one.
    pub fn as_device(&self) -> Option<&DeviceName> {
        self.0.starts_with(b"/dev/").then(|| DeviceName::new(&self.0))
    }

    /// The same bytes as a path.
    pub fn as_path(&self) -> &GuestPath {
        GuestPath::new(&self.0)
    }
}
