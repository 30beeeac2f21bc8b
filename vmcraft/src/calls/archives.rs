//! Taking trees out as archives.

use bstr::BString;
use vmcraft_macros::api;

use crate::archive::{Compression, CpioFormat, TarOptions, compress, cpio_out, tar_out};
use crate::content::Content;
use crate::value::FileOut;
use crate::{DeviceName, Error, Guest, GuestPath, Result};

#[api(area = "archives")]
impl Guest {
    /// Pack a directory into a tar file on the host
    ///
    /// What is in `directory` is written to the host's file `tarfile`, or to standard output if that
    /// is `-`. Members are called `./NAME`. Other file systems that are mounted below are packed too.
    /// Hard links, holes, device nodes and times to the nanosecond are kept; sockets are left out. In
    /// each directory, members are in the order of their inode numbers.
    ///
    /// - `compress` is `gzip`, `bzip2`, `xz` or `zstd`; without it the archive is not compressed.
    /// - `numericowner` leaves out the names of users and groups, which otherwise come from the
    ///   guest's `/etc/passwd` and `/etc/group`.
    /// - `excludes` are wildcards as for `tar --exclude`: a file is left out, with all that is below
    ///   it, if its path or a part of it that begins after a slash matches one. `*` matches slashes.
    /// - `xattrs` keeps extended attributes, `selinux` SELinux contexts, `acls` POSIX access control
    ///   lists.
    ///
    /// ```guestfish
    /// tar-out / root.tar
    /// tar-out /home home.tar.gz compress:gzip xattrs:true acls:true
    /// tar-out /var - "excludes:cache *.log"
    /// ```
    #[call(alias = "tar-out-opts")]
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn tar_out(
        &mut self,
        directory: &GuestPath,
        tarfile: &FileOut,
        compress: Option<&str>,
        numericowner: Option<bool>,
        excludes: Option<&[BString]>,
        xattrs: Option<bool>,
        selinux: Option<bool>,
        acls: Option<bool>,
    ) -> Result<()> {
        let options = TarOptions {
            compression: compress.map(|name| Compression::new(name, None)).transpose()?,
            numeric_owner: numericowner.unwrap_or(false),
            excludes: excludes.unwrap_or_default(),
            xattrs: xattrs.unwrap_or(false),
            selinux: selinux.unwrap_or(false),
            acls: acls.unwrap_or(false),
        };
        let start = self.directory(directory)?;
        let Self { vfs, host, .. } = self;
        host.write_to(tarfile, |host, sink| tar_out(vfs, host, sink, start, &options))
    }

    /// Pack a directory into a tar file compressed with gzip
    ///
    /// The same as `tar-out` with `compress:gzip`.
    ///
    /// ```guestfish
    /// tgz-out /etc etc.tar.gz
    /// ```
    #[call(deprecated = "tar-out")]
    pub fn tgz_out(&mut self, directory: &GuestPath, tarball: &FileOut) -> Result<()> {
        self.tar_out(directory, tarball, Some("gzip"), None, None, None, None, None)
    }

    /// Pack a directory into a tar file compressed with xz
    ///
    /// The same as `tar-out` with `compress:xz`.
    ///
    /// ```guestfish
    /// txz-out /etc etc.tar.xz
    /// ```
    #[call(deprecated = "tar-out")]
    pub fn txz_out(&mut self, directory: &GuestPath, tarball: &FileOut) -> Result<()> {
        self.tar_out(directory, tarball, Some("xz"), None, None, None, None, None)
    }

    /// Pack a directory into a cpio file on the host
    ///
    /// What is in `directory` is written to the host's file `cpiofile`. `format` is `newc`, the one
    /// that the kernel takes as an initramfs and the default, or `crc`, which adds a checksum of each
    /// file. Neither can hold a file of 4 GiB or more.
    ///
    /// ```guestfish
    /// cpio-out /boot boot.cpio
    /// ```
    pub fn cpio_out(
        &mut self,
        directory: &GuestPath,
        cpiofile: &FileOut,
        format: Option<&str>,
    ) -> Result<()> {
        let format = match format {
            None | Some("newc") => CpioFormat::Newc,
            Some("crc") => CpioFormat::Crc,
            Some(other) => {
                return Err(Error::Usage(format!("{other:?} is not a cpio format: use newc or crc")));
            }
        };
        let start = self.directory(directory)?;
        let Self { vfs, host, .. } = self;
        host.write_to(cpiofile, |host, sink| cpio_out(vfs, host, sink, start, format))
    }

    /// Compress a file to the host
    ///
    /// `ctype` is `gzip`, `bzip2`, `xz` or `zstd`. `level` is 1 to 9, of `xz` also 0, as the programs
    /// of these names have them; `zstd` has only level 1 here.
    ///
    /// ```guestfish
    /// compress-out gzip /var/log/syslog syslog.gz
    /// ```
    pub fn compress_out(
        &mut self,
        ctype: &str,
        file: &GuestPath,
        zfile: &FileOut,
        level: Option<i32>,
    ) -> Result<()> {
        let compression = Compression::new(ctype, level)?;
        let content = Content::of_file(self.resolve(file)?)?;
        self.host.write_to(zfile, |host, sink| compress(host, sink, &content, compression))
    }

    /// Compress a device to the host
    ///
    /// `ctype` and `level` are as for `compress-out`.
    ///
    /// ```guestfish
    /// compress-device-out zstd /dev/sda1 partition.img.zst
    /// ```
    pub fn compress_device_out(
        &mut self,
        ctype: &str,
        device: &DeviceName,
        zdevice: &FileOut,
        level: Option<i32>,
    ) -> Result<()> {
        let compression = Compression::new(ctype, level)?;
        let (name, device) = self.open_device(device)?;
        let content = Content::of_device(name, device);
        self.host.write_to(zdevice, |host, sink| compress(host, sink, &content, compression))
    }
}
