//! Adding drives, launching, and what can be said of an image before.

use std::fs;

use bstr::{BString, ByteSlice};
use vmcraft_block::image::{self, ImageInfo};
use vmcraft_macros::api;

use crate::drive::{Content, Drive, DriveOptions};
use crate::drive_uri::Remote;
use crate::{Error, Guest, Result, libvirt};

/// How many disks a handle takes: libguestfs's limit.
const MAX_DISKS: usize = 255;

/// How large the disk is that `/dev/null` stands for.
const NULL_DISK_BYTES: u64 = 4096;

/// What becomes of a domain's disk that the domain itself only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadOnlyDisk {
    Write,
    Read,
    Ignore,
    Error,
}

/// Checks what has no effect here, as libguestfs would.
fn check_caching(
    cachemode: Option<&str>,
    discard: Option<&str>,
    readonly: Option<bool>,
) -> Result<(), &'static str> {
    if !matches!(cachemode, None | Some("writeback" | "unsafe")) {
        return Err("cachemode is writeback or unsafe");
    }
    if !matches!(discard, None | Some("disable" | "enable" | "besteffort")) {
        return Err("discard is disable, enable or besteffort");
    }
    if readonly == Some(true) && discard == Some("enable") {
        return Err("discard cannot be enabled on a read-only drive");
    }
    Ok(())
}

#[api(area = "drives")]
impl Guest {
    /// Add a disk image to the handle
    ///
    /// `filename` is a file or block device of the host, or a URI (`nbd://…`, `https://…`). The
    /// first drive is `/dev/sda`, the next `/dev/sdb`, and so on. `/dev/null` adds an empty disk.
    /// The image is opened by `launch`.
    ///
    /// The image is opened for writing, but nothing is written to it before a commit, which `sync`
    /// and `umount-all` make. With `readonly:true` it is never written to: what is written to the disk
    /// is seen until the handle is closed and thrown away then. It can be opened so even while another
    /// process has it open for writing.
    ///
    /// - `format` is the image's format, such as `raw` or `qcow2`; without it the format is
    ///   detected. Give it for raw disks of guests that you do not trust: they can write the header
    ///   of another format into their first sector.
    /// - `label` is a name of its own: the disk is also `/dev/disk/guestfs/LABEL`, its first
    ///   partition `/dev/disk/guestfs/LABEL1`. It has 1 to 20 ASCII letters.
    /// - `protocol` with `server` and `username` names a remote disk: `nbd`, `http`, `https`, `ftp`,
    ///   `ftps` or `ssh`. `filename` is then the export's name, or the path on the server. `server`
    ///   is `HOST`, `HOST:PORT` or `unix:/SOCKET`.
    /// - `snapshot` is the ID or name of an internal snapshot: the disk is as it was then, and
    ///   `readonly`.
    /// - `blocksize` is the size of the disk's sectors, 512 or 4096.
    /// - `cachemode` (`writeback` or `unsafe`), `discard` (`disable`, `enable` or `besteffort`),
    ///   `copyonread`, `iface` and `name` are checked and have no effect here.
    ///
    /// ```guestfish
    /// add-drive disk.img format:raw label:system readonly:true
    /// ```
    #[call(alias = "add", alias = "add-drive-opts")]
    #[allow(clippy::too_many_arguments)] // libguestfs has them all
    pub fn add_drive(
        &mut self,
        filename: &str,
        readonly: Option<bool>,
        format: Option<&str>,
        iface: Option<&str>,
        name: Option<&str>,
        label: Option<&str>,
        protocol: Option<&str>,
        server: Option<&[BString]>,
        username: Option<&str>,
        secret: Option<&str>,
        cachemode: Option<&str>,
        discard: Option<&str>,
        copyonread: Option<bool>,
        blocksize: Option<i32>,
        snapshot: Option<&str>,
    ) -> Result<()> {
        let shown = image::without_password(filename);
        let wrong = |what: &str| Err(Error::Usage(format!("{shown}: {what}")));
        let _ = (name, copyonread);
        if iface.is_some_and(|iface| !is_word(iface)) {
            return wrong("iface is empty, or has other characters than letters, digits, - and _");
        }
        if let Err(what) = check_caching(cachemode, discard, readonly) {
            return wrong(what);
        }
        let sector_size = match blocksize {
            None => None,
            Some(512) => Some(512),
            Some(4096) => Some(4096),
            Some(_) => return wrong("blocksize is 512 or 4096"),
        };
        let format = format
            .map(|format| format.parse().map_err(|e| Error::Usage(format!("{shown}: {e}"))))
            .transpose()?;
        let options = DriveOptions {
            format,
            read_only: readonly.unwrap_or(false) || snapshot.is_some(),
            allow_in_use: readonly.unwrap_or(false),
            label: label.map(str::to_owned),
            sector_size,
            snapshot: snapshot.map(str::to_owned),
        };
        let servers: Vec<_> = server.unwrap_or_default().iter().map(|server| server.to_str_lossy()).collect();
        match protocol {
            None | Some("file") => {
                for (is_given, what) in [
                    (!servers.is_empty(), "server"),
                    (username.is_some(), "username"),
                    (secret.is_some(), "secret"),
                ] {
                    if is_given {
                        return wrong(&format!("{what} is for remote disks: give protocol too"));
                    }
                }
                self.add_drive_with(filename, options)
            }
            Some(protocol) => {
                let servers = servers.iter().map(AsRef::as_ref).collect();
                let remote =
                    Remote { protocol, name: filename, servers, username, has_secret: secret.is_some() };
                self.add_drive_with(&remote.uri()?, options)
            }
        }
    }

    /// Add a disk image even while it is in use
    ///
    /// The same as `add-drive` with `readonly:true`.
    ///
    /// ```guestfish
    /// add-drive-ro disk.img
    /// ```
    #[call(alias = "add-ro")]
    pub fn add_drive_ro(&mut self, filename: &str) -> Result<()> {
        self.add_drive_with(filename, DriveOptions::to_look())
    }

    /// Add an empty disk
    ///
    /// `size` is its size in bytes. It reads as zeros at first. What is written to it is gone when the
    /// handle is closed.
    ///
    /// ```guestfish
    /// add-drive-scratch 1G label:scratch
    /// ```
    #[call(alias = "scratch")]
    pub fn add_drive_scratch(
        &mut self,
        size: i64,
        name: Option<&str>,
        label: Option<&str>,
        blocksize: Option<i32>,
    ) -> Result<()> {
        let _ = name;
        let sector_size = match blocksize {
            None => None,
            Some(size @ (512 | 4096)) => u32::try_from(size).ok(),
            Some(_) => return Err(Error::Usage("blocksize is 512 or 4096".into())),
        };
        let Some(size) = u64::try_from(size).ok().filter(|size| *size > 0) else {
            return Err(Error::Usage(format!("a disk of {size} bytes cannot be added")));
        };
        let options =
            DriveOptions { label: label.map(str::to_owned), sector_size, ..DriveOptions::default() };
        self.push_drive("scratch", Content::Zeros(size), options)
    }

    /// Add a disk image even while it is in use
    ///
    /// ```guestfish
    /// add-cdrom disk.iso
    /// ```
    #[call(deprecated = "add-drive-ro", alias = "cdrom")]
    pub fn add_cdrom(&mut self, filename: &str) -> Result<()> {
        self.add_drive_ro(filename)
    }

    /// Add a disk image, with an interface that has no effect here
    ///
    /// ```guestfish
    /// add-drive-with-if disk.img virtio
    /// ```
    #[call(deprecated = "add-drive")]
    pub fn add_drive_with_if(&mut self, filename: &str, iface: &str) -> Result<()> {
        self.add_drive_iface(filename, iface, false)
    }

    /// Add a disk image even while it is in use, with an interface that has no effect here
    ///
    /// ```guestfish
    /// add-drive-ro-with-if disk.img virtio
    /// ```
    #[call(deprecated = "add-drive")]
    pub fn add_drive_ro_with_if(&mut self, filename: &str, iface: &str) -> Result<()> {
        self.add_drive_iface(filename, iface, true)
    }

    /// Add the disks of a libvirt domain
    ///
    /// `dom` is the name or UUID of a domain, or a file with its XML. libvirt is asked through
    /// `virsh`, at `libvirturi` if it is given. With `readonly`, disks are opened even if the domain
    /// runs. CD-ROM and floppy drives are left out. The result is how many disks there are.
    ///
    /// - `readonlydisk` says what becomes of a disk that the domain itself only reads, unless
    ///   `readonly` is given: `write` (the default) opens it as the others, `read` opens it read-only,
    ///   `ignore` leaves it out, `error` is an error.
    /// - `live` is refused: it needs an agent in the running guest.
    /// - `cachemode`, `discard` and `copyonread` are as for `add-drive`. `iface` and `allowuuid` have
    ///   no effect here.
    ///
    /// ```guestfish
    /// add-domain web1 readonly:true
    /// ```
    #[call(alias = "domain")]
    #[allow(clippy::too_many_arguments)] // libguestfs has them all
    pub fn add_domain(
        &mut self,
        dom: &str,
        libvirturi: Option<&str>,
        readonly: Option<bool>,
        iface: Option<&str>,
        live: Option<bool>,
        allowuuid: Option<bool>,
        readonlydisk: Option<&str>,
        cachemode: Option<&str>,
        discard: Option<&str>,
        copyonread: Option<bool>,
    ) -> Result<i32> {
        let _ = (iface, allowuuid, copyonread);
        let wrong = |what: &str| Error::Usage(format!("domain {dom:?}: {what}"));
        if live == Some(true) {
            return Err(wrong("live is not supported: it needs an agent inside the running guest"));
        }
        check_caching(cachemode, discard, readonly).map_err(wrong)?;
        let readonly = readonly.unwrap_or(false);
        let of_read_only = match readonlydisk {
            // All are.
            _ if readonly => ReadOnlyDisk::Write,
            None | Some("write") => ReadOnlyDisk::Write,
            Some("read") => ReadOnlyDisk::Read,
            Some("ignore") => ReadOnlyDisk::Ignore,
            Some("error") => ReadOnlyDisk::Error,
            Some(_) => return Err(wrong("readonlydisk is error, read, write or ignore")),
        };
        let options = DriveOptions { read_only: readonly, allow_in_use: readonly, ..DriveOptions::default() };
        self.add_domain_disks(dom, libvirturi, &options, of_read_only)
    }

    /// Open the disks
    ///
    /// Call this after the drives were added and before anything else.
    ///
    /// ```guestfish
    /// run
    /// ```
    #[call(alias = "run")]
    pub fn launch(&mut self) -> Result<()> {
        self.launch_drives()
    }

    /// Close the disks
    ///
    /// With autosync, which is the default, what was changed is written to the images first, as by
    /// `sync`; if that fails, nothing is closed. Then everything is unmounted, and the handle has no
    /// drives any more: it can be given others and launched again. It is no error if it was not
    /// launched.
    ///
    /// ```guestfish
    /// shutdown
    /// ```
    pub fn shutdown(&mut self) -> Result<()> {
        if self.disks.is_some() {
            if self.settings.autosync {
                self.commit()?;
            }
            self.shut_down();
        }
        Ok(())
    }

    /// Close the disks
    ///
    /// ```guestfish
    /// kill-subprocess
    /// ```
    #[call(deprecated = "shutdown")]
    pub fn kill_subprocess(&mut self) -> Result<()> {
        self.shutdown()
    }

    /// Say how many disks can be added to the handle
    ///
    /// ```guestfish
    /// max-disks
    /// ```
    pub fn max_disks(&self) -> Result<i32> {
        Ok(i32::try_from(MAX_DISKS).unwrap_or(i32::MAX))
    }

    /// Say what format a disk image has
    ///
    /// `filename` is a file of the host; the disk need not be added. What has the header of no
    /// format is `raw`.
    ///
    /// ```guestfish
    /// disk-format disk.img
    /// ```
    pub fn disk_format(&self, filename: &str) -> Result<String> {
        Ok(self.image_info(filename)?.format)
    }

    /// Say how many bytes the disk in an image has
    ///
    /// `filename` is a file of the host; the disk need not be added.
    ///
    /// ```guestfish
    /// disk-virtual-size disk.img
    /// ```
    pub fn disk_virtual_size(&self, filename: &str) -> Result<i64> {
        let info = self.image_info(filename)?;
        info.virtual_size.and_then(|size| i64::try_from(size).ok()).ok_or_else(|| {
            Error::Unsupported(format!("{filename}: finding the size of the disk in a {} image", info.format))
        })
    }

    /// Say whether a disk image has a backing file
    ///
    /// `filename` is a file of the host; the disk need not be added.
    ///
    /// ```guestfish
    /// disk-has-backing-file disk.img
    /// ```
    pub fn disk_has_backing_file(&self, filename: &str) -> Result<bool> {
        Ok(self.image_info(filename)?.backing_filename.is_some())
    }
}

impl Guest {
    /// Adds a disk with all that can be said of it. A file must exist; it is opened by
    /// [`launch`](Guest::launch).
    pub fn add_drive_with(&mut self, name: &str, options: DriveOptions) -> Result<()> {
        if name == "/dev/null" {
            if options.format.as_ref().is_some_and(|format| *format != image::Format::Raw) {
                return Err(Error::Usage("/dev/null: an empty disk has the format raw".into()));
            }
            return self.push_drive(name, Content::Zeros(NULL_DISK_BYTES), options);
        }
        if !image::is_uri(name) {
            fs::metadata(name).map_err(|source| Error::Host {
                path: name.into(),
                doing: "cannot add the drive",
                source,
            })?;
        }
        self.push_drive(name, Content::Image, options)
    }

    /// Adds the disks of a libvirt domain, all with these options but the format, which the domain
    /// says. Gives how many there are.
    pub fn add_domain_with(
        &mut self,
        dom: &str,
        libvirturi: Option<&str>,
        options: &DriveOptions,
    ) -> Result<i32> {
        self.add_domain_disks(dom, libvirturi, options, ReadOnlyDisk::Write)
    }

    fn add_domain_disks(
        &mut self,
        dom: &str,
        libvirturi: Option<&str>,
        options: &DriveOptions,
        of_read_only: ReadOnlyDisk,
    ) -> Result<i32> {
        let mut disks = libvirt::disks(dom, &libvirt::domain_xml(dom, libvirturi)?)?;
        match of_read_only {
            ReadOnlyDisk::Ignore => disks.retain(|disk| !disk.is_read_only),
            ReadOnlyDisk::Error => {
                if let Some(disk) = disks.iter().find(|disk| disk.is_read_only) {
                    return Err(Error::Usage(format!(
                        "domain {dom:?}: {}: the domain only reads this disk, and readonlydisk is error",
                        disk.name
                    )));
                }
            }
            ReadOnlyDisk::Read | ReadOnlyDisk::Write => {}
        }
        for disk in &disks {
            let format = disk.format.as_deref().map(str::parse).transpose();
            let format = format.map_err(|e| Error::Usage(format!("domain {dom:?}: {}: {e}", disk.name)))?;
            let is_read = disk.is_read_only && of_read_only == ReadOnlyDisk::Read;
            let read_only = options.read_only || is_read;
            self.add_drive_with(&disk.name, DriveOptions { format, read_only, ..options.clone() })?;
        }
        i32::try_from(disks.len()).map_err(|_| Error::Usage(format!("domain {dom:?}: it has too many disks")))
    }

    fn add_drive_iface(&mut self, filename: &str, iface: &str, readonly: bool) -> Result<()> {
        if !is_word(iface) {
            return Err(Error::Usage(format!(
                "{filename}: iface is empty, or has other characters than letters, digits, - and _"
            )));
        }
        let options = DriveOptions { read_only: readonly, allow_in_use: readonly, ..DriveOptions::default() };
        self.add_drive_with(filename, options)
    }

    fn push_drive(&mut self, name: &str, content: Content, options: DriveOptions) -> Result<()> {
        let shown = image::without_password(name);
        if self.disks.is_some() {
            return Err(Error::Usage(format!("{shown}: drives are added before launch")));
        }
        if self.drives.len() >= MAX_DISKS {
            return Err(Error::Usage(format!(
                "{shown}: the handle has {MAX_DISKS} disks, which is the most"
            )));
        }
        if let Some(label) = &options.label {
            if !(1..=20).contains(&label.len()) || !label.bytes().all(|b| b.is_ascii_alphabetic()) {
                return Err(Error::Usage(format!(
                    "{shown}: a label has 1 to 20 ASCII letters, not {label:?}"
                )));
            }
            if self.drives.iter().any(|drive| drive.options.label.as_ref() == Some(label)) {
                return Err(Error::Usage(format!("{shown}: another drive has the label {label}")));
            }
        }
        self.drives.push(Drive { name: name.to_owned(), content, options });
        Ok(())
    }

    /// What an image's header says.
    fn image_info(&self, filename: &str) -> Result<ImageInfo> {
        let info = image::info(filename, &self.open_options(&DriveOptions::default(), true))?;
        // The image itself is always the first of its chain.
        info.chain.into_iter().next().ok_or_else(|| Error::Usage(format!("{filename}: not an image")))
    }
}

/// Letters, digits, `-` and `_`, and not nothing.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}
