//! Bringing archives and trees of the host into the guest.

use std::path::Component;

use bstr::{BStr, ByteSlice, ByteVec};
use vmcraft_macros::api;

use crate::decompress::Kind;
use crate::unpack::{UnpackOptions, copy_in, cpio_in, tar_in};
use crate::value::FileIn;
use crate::{Error, Guest, GuestPath, Result};

#[api(area = "unpacking")]
impl Guest {
    /// Unpack a tar file of the host into a directory
    ///
    /// The members of the host's file `tarfile`, or of standard input if that is `-`, are made in
    /// `directory`. Owners are the archive's numbers, permissions and times those of the archive; the
    /// umask does not apply. What is there under the same name is replaced, and directories are added
    /// to. Nothing is changed if the archive is damaged, or anything of it cannot be made.
    ///
    /// - `compress` is `gzip`, `bzip2`, `xz` or `zstd`; without it the compression is recognised.
    /// - `xattrs` keeps extended attributes, `selinux` SELinux contexts, `acls` POSIX access control
    ///   lists.
    ///
    /// Member names with `..` are refused, and absolute ones begin at `directory`. Symbolic links that
    /// were there before are followed, and a directory of the archive does not replace one that leads
    /// to a directory. A link that comes from the archive and is absolute or has `..` is not followed.
    ///
    /// ```guestfish
    /// tar-in root.tar /
    /// tar-in home.tar.gz /home compress:gzip xattrs:true acls:true
    /// ```
    #[call(alias = "tar-in-opts")]
    pub fn tar_in(
        &mut self,
        tarfile: &FileIn,
        directory: &GuestPath,
        compress: Option<&str>,
        xattrs: Option<bool>,
        selinux: Option<bool>,
        acls: Option<bool>,
    ) -> Result<()> {
        let compression = compress.map(decompression).transpose()?;
        let options = UnpackOptions {
            xattrs: xattrs.unwrap_or(false),
            selinux: selinux.unwrap_or(false),
            acls: acls.unwrap_or(false),
        };
        let start = self.directory(directory)?;
        self.read_from(tarfile, |guest, source| {
            guest.atomically(|guest| {
                let Self { vfs, host, warnings, .. } = guest;
                tar_in(vfs, host, warnings, source, compression, start, options)
            })
        })
    }

    /// Unpack a cpio file of the host into a directory
    ///
    /// The members of the host's file `cpiofile`, or of standard input if that is `-`, are made in
    /// `directory`. The formats are `newc`, `crc` and `odc`; the checksums of `crc` are verified.
    /// Compression by gzip, bzip2, xz or zstd is recognised. Owners, permissions, times and hard links
    /// are those of the archive, whose names are treated as by `tar-in`. Nothing is changed if the
    /// archive is damaged, or anything of it cannot be made.
    ///
    /// ```guestfish
    /// cpio-in boot.cpio /boot
    /// ```
    pub fn cpio_in(&mut self, cpiofile: &FileIn, directory: &GuestPath) -> Result<()> {
        let start = self.directory(directory)?;
        self.read_from(cpiofile, |guest, source| {
            guest.atomically(|guest| {
                let Self { vfs, host, warnings, .. } = guest;
                cpio_in(vfs, host, warnings, source, start)
            })
        })
    }

    /// Copy a file or directory of the host into a directory
    ///
    /// `localpath` is copied, with all that is below it, into the guest's directory `remotedir`, where it
    /// keeps its name; of `.` the contents are copied. Owners are the host's numbers; permissions, times,
    /// symbolic links, hard links, holes, device nodes and named pipes are kept. Sockets and extended
    /// attributes are left out: use `tar-in` to bring those. Files of the same name are replaced,
    /// directories are added to. Nothing is changed if anything cannot be copied.
    ///
    /// ```guestfish
    /// copy-in etc/nginx /etc
    /// ```
    pub fn copy_in(&mut self, localpath: &BStr, remotedir: &GuestPath) -> Result<()> {
        let local = localpath
            .to_path()
            .map_err(|_| Error::Usage(format!("{localpath:?} is not the name of a file")))?;
        let name = match (local.file_name(), local.components().next_back()) {
            // As `tar` is told: what is in the directory.
            (None, Some(Component::CurDir)) => b".".into(),
            (Some(_), _) if localpath.ends_with(b"/.") => b".".into(),
            (Some(name), _) => <Vec<u8>>::from_os_string(name.to_owned()).unwrap_or_default(),
            _ => return Err(Error::Usage(format!("{localpath}: name a file or directory that has a name"))),
        };
        let start = self.directory(remotedir)?;
        self.atomically(|guest| {
            let Self { vfs, host, warnings, .. } = guest;
            copy_in(vfs, host, warnings, local, name.into(), start)
        })
    }

    /// Unpack a tar file compressed with gzip into a directory
    ///
    /// The same as `tar-in` with `compress:gzip`.
    ///
    /// ```guestfish
    /// tgz-in etc.tar.gz /etc
    /// ```
    #[call(deprecated = "tar-in")]
    pub fn tgz_in(&mut self, tarball: &FileIn, directory: &GuestPath) -> Result<()> {
        self.tar_in(tarball, directory, Some("gzip"), None, None, None)
    }

    /// Unpack a tar file compressed with xz into a directory
    ///
    /// The same as `tar-in` with `compress:xz`.
    ///
    /// ```guestfish
    /// txz-in etc.tar.xz /etc
    /// ```
    #[call(deprecated = "tar-in")]
    pub fn txz_in(&mut self, tarball: &FileIn, directory: &GuestPath) -> Result<()> {
        self.tar_in(tarball, directory, Some("xz"), None, None, None)
    }
}

/// The kind of compression that libguestfs calls so.
fn decompression(name: &str) -> Result<Kind> {
    match name {
        "gzip" => Ok(Kind::Gzip),
        "bzip2" => Ok(Kind::Bzip2),
        "xz" => Ok(Kind::Xz),
        "zstd" => Ok(Kind::Zstd),
        "compress" | "lzop" | "lzma" => Err(Error::Unsupported(format!("archives compressed with {name}"))),
        other => Err(Error::Usage(format!("unknown compression type: {other}"))),
    }
}
