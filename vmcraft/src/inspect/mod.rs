//! Inspection: which operating systems the disks hold, and what they are.
//!
//! It looks at each file system for the root of an operating system, mounts what that
//! system's fstab names in a tree of its own (not in the handle's), and reads the files that say what
//! the system is. Names and answers are libguestfs's; what libguestfs does not tell (kernels, boot
//! loader, init system, agents) is in [`OperatingSystem`] too.
//!
//! Every file is the guest's and may be forged: all of them are read up to a limit, what cannot be
//! read becomes a note, and nothing in a guest makes inspection fail.

mod applications;
pub(crate) mod arch;
mod boot;
mod crypttab;
mod distro;
mod escape;
mod fstab;
mod guest;
mod icon;
mod page;
mod release;
mod report;
mod roots;
mod shellvars;
mod system;
#[cfg(test)]
mod tests;
mod tree;
mod volumes;
mod xml;

use bstr::{BString, ByteSlice};
use serde::Serialize;
use vmcraft_volume::Key;

pub use applications::{Application, Application2};
pub use boot::{BootLoader, Kernel};
pub use report::{DiskReport, FileSystemReport, Report, ReportOptions, SystemReport};
pub(crate) use shellvars::ShellVars;
pub use system::Selinux;
pub(crate) use volumes::{Decrypted, Volume, Volumes};

use crate::vfs::Vfs;
use crate::{Error, Result};
use roots::Role;
use tree::Tree;

/// An operating system that inspection found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperatingSystem {
    /// The device of its root file system, which names it: `/dev/sda1`.
    pub root: String,
    /// What it is: `linux`.
    #[serde(rename = "type")]
    pub os_type: String,
    /// The architecture of its programs as libguestfs names it: `x86_64`.
    pub arch: Option<String>,
    /// The distribution as libguestfs names it: `debian`.
    pub distro: Option<String>,
    /// `ID` of os-release, which every distribution has one of its own.
    pub id: Option<String>,
    /// `ID_LIKE` of os-release: the distributions that it derives from.
    pub id_like: Option<String>,
    /// The product's name as `inspect-get-product-name` gives it.
    pub product_name: Option<String>,
    /// The product's name for people: of os-release where there is one.
    pub pretty_name: Option<String>,
    /// `VARIANT` of os-release, such as `Server Edition`.
    pub variant: Option<String>,
    /// The major version, 0 if there is none.
    pub major_version: i32,
    /// The minor version, 0 if there is none.
    pub minor_version: i32,
    /// The name of the version: `bookworm`.
    pub codename: Option<String>,
    /// `BUILD_ID` of os-release.
    pub build_id: Option<String>,
    /// The short identifier of osinfo-db: `debian12`.
    pub osinfo: Option<String>,
    /// The format of its packages: `deb`.
    pub package_format: Option<String>,
    /// What installs them: `apt`.
    pub package_management: Option<String>,
    /// Its name in the network.
    pub hostname: Option<String>,
    /// Where its file systems are mounted, in the order of fstab.
    pub mountpoints: Vec<MountPoint>,
    /// All devices in its fstab, swap space too. In a report each stands with what it holds.
    #[serde(skip)]
    pub filesystems: Vec<String>,
    /// The kernels that are installed.
    pub kernels: Vec<Kernel>,
    /// What starts them.
    pub boot_loader: Option<BootLoader>,
    /// The firmware that it can boot with: `bios`, `uefi` or `bios+uefi`.
    pub firmware: Option<String>,
    /// What runs first: `systemd`, `openrc`, `sysvinit`, `upstart`, `runit`, `s6`, `busybox` …
    pub init: Option<String>,
    /// How SELinux is set up; `None` without it.
    pub selinux: Option<Selinux>,
    /// The machine ID; `None` if it gets one at its first boot.
    pub machine_id: Option<String>,
    /// The time zone.
    pub timezone: Option<String>,
    /// The locale.
    pub locale: Option<String>,
    /// Whether cloud-init is installed.
    pub cloud_init: bool,
    /// The agents of hypervisors and clouds that are installed.
    pub agents: Vec<String>,
    /// What was remarkable: files that are too long or damaged, file systems that could not be read.
    pub notes: Vec<String>,
}

/// A file system of a guest and where the guest mounts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPoint {
    /// The directory.
    #[serde(serialize_with = "as_text")]
    pub mountpoint: BString,
    /// The device, or `btrfsvol:DEVICE/SUBVOLUME`.
    pub device: String,
}

/// What inspection found.
#[derive(Clone, Default)]
pub(crate) struct Inspection {
    pub(crate) volumes: Volumes,
    /// In the order of their devices.
    pub(crate) systems: Vec<OperatingSystem>,
}

/// Looks for operating systems on all volumes.
pub(crate) fn inspect(volumes: Volumes) -> Inspection {
    let roles: Vec<_> = volumes
        .volumes
        .iter()
        .filter_map(|volume| {
            let tree = Tree::new(Vfs::with_root(&volume.device, volume.filesystem.clone()?));
            Some((volume, roots::role(&tree)))
        })
        .collect();
    let usr = roles
        .iter()
        .filter(|(_, role)| *role == Role::ContainerLinuxUsr)
        // There are two of them, and the newer is in use.
        .max_by_key(|(volume, _)| container_linux_version(volume))
        .map(|(volume, _)| *volume);
    let systems = roles
        .iter()
        .filter_map(|(volume, role)| match role {
            Role::LinuxRoot => operating_system(&volumes, volume, None),
            Role::ContainerLinuxRoot => operating_system(&volumes, volume, usr),
            Role::ContainerLinuxUsr | Role::Other => None,
        })
        .collect();
    Inspection { volumes, systems }
}

/// How many key files of guests are looked for at once, and tried. Real guests have one or two.
pub(crate) const MAX_KEY_FILES: usize = 16;

/// The keys of encrypted devices that are files in the guests on these volumes, by crypttab: each with the device that
/// it is for. The devices are given by their names and UUIDs.
pub(crate) fn key_files(volumes: &Volumes, closed: &[(String, String)]) -> Vec<(String, Key)> {
    let mut found: Vec<(String, Key)> = Vec::new();
    // Those that are not there, or no keys, count too: they are work as well.
    let mut left = MAX_KEY_FILES;
    for root in &volumes.volumes {
        if left == 0 {
            break;
        }
        let Some(filesystem) = &root.filesystem else { continue };
        let alone = Tree::new(Vfs::with_root(&root.device, filesystem.clone()));
        let crypttab = crypttab::read(&alone);
        let of_device = |device: &(String, String)| {
            let entry =
                crypttab.iter().find(|entry| volumes.is_encrypted_device(entry, &device.0, &device.1));
            Some((device.0.clone(), entry?.key_file.as_ref()?))
        };
        let wanted: Vec<_> = closed.iter().filter_map(of_device).collect();
        if wanted.is_empty() {
            continue;
        }
        let Some(tree) = tree(volumes, &root.device, &mountpoints(&alone, volumes, &root.device).0) else {
            continue;
        };
        let wanted = &wanted[..wanted.len().min(left)];
        left -= wanted.len();
        found.extend(wanted.iter().filter_map(|(device, file)| Some((device.clone(), file.read(&tree)?))));
    }
    found
}

/// The version of a `/usr` of Container Linux.
fn container_linux_version(volume: &Volume) -> Option<(i32, i32)> {
    let mut tree = Tree::new(Vfs::default());
    tree.mount_below(&volume.device, volume.filesystem.clone()?, "/usr");
    release::detect(&tree).version
}

/// The mounts of a guest, and all devices in its fstab.
fn mountpoints(tree: &Tree, volumes: &Volumes, root: &str) -> (Vec<MountPoint>, Vec<String>) {
    let mut mountpoints: Vec<MountPoint> = Vec::new();
    let mut devices = Vec::new();
    let crypttab = crypttab::read(tree);
    for entry in fstab::read(tree) {
        if is_kernels(&entry.mountpoint) {
            continue;
        }
        let resolved = volumes.resolve(&entry, &crypttab, root);
        let is_root = entry.mountpoint == "/";
        if is_root && mountpoints.iter().any(|known| known.mountpoint == "/") {
            tree.note("/etc/fstab: / is there more than once; the first was used".into());
            continue;
        }
        let device = match resolved {
            // Whatever fstab calls it, the root is where fstab was found.
            _ if is_root => {
                let elsewhere = resolved.filter(|device| {
                    device != root
                        && !device.starts_with(&format!("btrfsvol:{root}/"))
                        && volumes.get(device).is_some()
                });
                if let Some(device) = elsewhere {
                    tree.note(format!("/etc/fstab: the root is to be {device}, but this fstab is on {root}"));
                }
                root.to_owned()
            }
            Some(device) => device,
            None => {
                if entry.spec.contains(&b'=') && !entry.options.iter().any(|option| option == "nofail") {
                    tree.note(format!(
                        "/etc/fstab: no device has {}, mounted on {}",
                        entry.spec, entry.mountpoint
                    ));
                }
                continue;
            }
        };
        devices.push(device.clone());
        if entry.mountpoint.starts_with(b"/") {
            mountpoints.push(MountPoint { mountpoint: entry.mountpoint, device });
        }
    }
    if !mountpoints.iter().any(|known| known.mountpoint == "/") {
        mountpoints.insert(0, MountPoint { mountpoint: "/".into(), device: root.to_owned() });
        devices.insert(0, root.to_owned());
    }
    (mountpoints, devices)
}

/// Whether a mountpoint is the kernel's or that of removable media.
fn is_kernels(mountpoint: &[u8]) -> bool {
    let below =
        |dir: &str| mountpoint.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"));
    let exactly = |dir: &str| mountpoint == dir.as_bytes();
    ["/dev", "/proc", "/selinux", "/sys"].iter().any(|dir| exactly(dir) || below(dir)) || below("/media")
}

/// The whole tree of a guest: its root, with what else could be mounted in it.
fn tree(volumes: &Volumes, root: &str, mountpoints: &[MountPoint]) -> Option<Tree> {
    let filesystem = volumes.get(root)?.filesystem.clone()?;
    let mut tree = Tree::new(Vfs::with_root(root, filesystem));
    for mount in in_mount_order(mountpoints).into_iter().filter(|mount| mount.mountpoint != "/") {
        if let Some(filesystem) = volumes.get(&mount.device).and_then(|volume| volume.filesystem.clone()) {
            tree.mount(&mount.device, filesystem, mount.mountpoint.as_bstr());
        }
    }
    Some(tree)
}

/// The mounts in an order in which each finds its directory: the shortest path first.
pub(crate) fn in_mount_order(mountpoints: &[MountPoint]) -> Vec<&MountPoint> {
    let mut sorted: Vec<_> = mountpoints.iter().collect();
    sorted.sort_by_key(|mount| mount.mountpoint.len());
    sorted
}

/// Reads what the system on `root` is. `usr` is mounted on `/usr` if given.
fn operating_system(volumes: &Volumes, root: &Volume, usr: Option<&Volume>) -> Option<OperatingSystem> {
    let alone = Tree::new(Vfs::with_root(&root.device, root.filesystem.clone()?));
    let (mut mountpoints, mut filesystems) = mountpoints(&alone, volumes, &root.device);
    if let Some(usr) = usr {
        mountpoints.push(MountPoint { mountpoint: "/usr".into(), device: usr.device.clone() });
        filesystems.push(usr.device.clone());
    }
    let tree = tree(volumes, &root.device, &mountpoints)?;
    for note in alone.into_notes() {
        tree.note(note);
    }
    note_unreadable(&tree, volumes, &mountpoints);
    let release = release::detect(&tree);
    let (major, minor) = release.version.unwrap_or((0, 0));
    let (package_format, package_management) = system::packages(&tree, release.distro, major);
    let dirs: Vec<_> = mountpoints.iter().map(|mount| mount.mountpoint.clone()).collect();
    let firmware = boot::firmware(volumes, root, &dirs);
    Some(OperatingSystem {
        root: root.device.clone(),
        os_type: "linux".into(),
        arch: arch::detect(&tree),
        distro: release.distro.map(|distro| distro.name.to_owned()),
        osinfo: distro::osinfo(release.distro, release.id.as_deref(), (major, minor)),
        id: release.id,
        id_like: release.id_like,
        pretty_name: release.pretty_name.or_else(|| release.product_name.clone()),
        product_name: release.product_name,
        variant: release.variant,
        major_version: major,
        minor_version: minor,
        codename: release.codename,
        build_id: release.build_id,
        package_format: package_format.map(str::to_owned),
        package_management: package_management.map(str::to_owned),
        hostname: system::hostname(&tree),
        mountpoints,
        filesystems,
        kernels: boot::kernels(&tree),
        boot_loader: boot::boot_loader(&tree),
        firmware: firmware.map(str::to_owned),
        init: system::init(&tree).map(str::to_owned),
        selinux: system::selinux(&tree),
        machine_id: system::machine_id(&tree),
        timezone: system::timezone(&tree),
        locale: system::locale(&tree),
        cloud_init: system::has_cloud_init(&tree),
        agents: system::agents(&tree),
        notes: tree.into_notes(),
    })
}

/// What a mounted guest is, as far as those who change it need to know.
pub(crate) struct MountedSystem {
    /// The distribution as libguestfs names it: `debian`.
    pub(crate) distro: Option<&'static str>,
    /// `ID_LIKE` of os-release, or `ID` where the distribution has no name here.
    pub(crate) id_like: Option<String>,
    /// The name for people.
    pub(crate) name: String,
    /// Major and minor version.
    pub(crate) version: (i32, i32),
    /// What runs first, as [`OperatingSystem::init`].
    pub(crate) init: Option<&'static str>,
    /// What installs packages, as [`OperatingSystem::package_management`].
    pub(crate) package_management: Option<&'static str>,
    /// Its name in the network.
    pub(crate) hostname: Option<String>,
    /// How SELinux is set up.
    pub(crate) selinux: Option<Selinux>,
}

/// Looks at the system that is mounted in a tree. `None` if it is not Linux.
pub(crate) fn mounted_system(vfs: &Vfs) -> Option<MountedSystem> {
    let tree = Tree::new(vfs.clone());
    if !matches!(roots::role(&tree), Role::LinuxRoot | Role::ContainerLinuxRoot) {
        return None;
    }
    let release = release::detect(&tree);
    let version = release.version.unwrap_or((0, 0));
    let (_, package_management) = system::packages(&tree, release.distro, version.0);
    let distro = release.distro.map(|distro| distro.name);
    let name = release.pretty_name.or(release.product_name).or(release.id.clone());
    Some(MountedSystem {
        distro,
        id_like: release.id_like.or(release.id),
        name: name.unwrap_or_else(|| "an unknown Linux".into()),
        version,
        init: system::init(&tree),
        package_management,
        hostname: system::hostname(&tree),
        selinux: system::selinux(&tree),
    })
}

/// Notes the file systems that hold what inspection looks at, and that it could not read.
fn note_unreadable(tree: &Tree, volumes: &Volumes, mountpoints: &[MountPoint]) {
    for mount in mountpoints {
        let matters = ["/usr", "/var", "/boot", "/etc"].iter().any(|dir| mount.mountpoint == dir.as_bytes());
        let volume = volumes.get(&mount.device);
        if matters && volume.is_none_or(|volume| volume.filesystem.is_none()) {
            let kind = volume.map_or("no such device", |volume| &volume.kind);
            tree.note(format!(
                "{} on {} ({kind}) could not be read, and what is on it is missing here",
                mount.device, mount.mountpoint
            ));
        }
    }
}

impl Inspection {
    /// The system whose root is on the device with this canonical name.
    fn system(&self, root: &str) -> Option<&OperatingSystem> {
        self.systems.iter().find(|system| system.root == root)
    }

    /// The tree of a system, for what is read only when asked for.
    fn tree(&self, system: &OperatingSystem) -> Result<Tree> {
        tree(&self.volumes, &system.root, &system.mountpoints)
            .ok_or_else(|| Error::NoSuchDevice(system.root.clone()))
    }

    /// The applications of a system, sorted by name.
    pub(crate) fn applications(&self, system: &OperatingSystem) -> Result<Vec<Application2>> {
        applications::list(&self.tree(system)?, system.package_format.as_deref())
    }

    /// How many applications a system has.
    fn count_applications(&self, system: &OperatingSystem) -> Result<Option<usize>> {
        applications::count(&self.tree(system)?, system.package_format.as_deref())
    }

    /// The picture that stands for a system: a PNG, empty if there is none.
    pub(crate) fn icon(
        &self,
        system: &OperatingSystem,
        favicon: bool,
        high_quality: bool,
    ) -> Result<Vec<u8>> {
        Ok(icon::find(&self.tree(system)?, system, favicon, high_quality).unwrap_or_default())
    }
}

/// Bytes of a guest as text: those that are not UTF-8 are replaced.
fn text(bytes: &[u8]) -> String {
    bytes.to_str_lossy().into_owned()
}

fn as_text<S: serde::Serializer>(bytes: &BString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.to_str_lossy())
}
