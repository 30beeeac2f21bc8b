//! Finding operating systems and what is in them.

use bstr::BString;
use vmcraft_macros::api;

use crate::inspect::{Application, Application2};
use crate::{Error, Guest, Mountable, Result};

#[api(area = "inspection")]
impl Guest {
    /// Find the operating systems on the disks
    ///
    /// The result is the device of each one's root file system, which names the system in the other
    /// calls of this chapter. It is empty if there is none, and has several devices if the disks can
    /// boot several systems.
    ///
    /// What is mounted stays mounted.
    ///
    /// ```guestfish
    /// inspect-os
    /// ```
    pub fn inspect_os(&mut self) -> Result<Vec<String>> {
        self.inspect_again()?;
        self.inspect_get_roots()
    }

    /// Give the roots that the last `inspect-os` found
    ///
    /// The result is empty if `inspect-os` was not called.
    ///
    /// ```guestfish
    /// inspect-get-roots
    /// ```
    pub fn inspect_get_roots(&mut self) -> Result<Vec<String>> {
        Ok(match self.inspected() {
            Ok(inspection) => inspection.systems.iter().map(|system| system.root.clone()).collect(),
            Err(_) => Vec::new(),
        })
    }

    /// Give the type of an operating system
    ///
    /// It is `linux`; other systems are not found yet.
    ///
    /// ```guestfish
    /// inspect-get-type /dev/sda1
    /// ```
    pub fn inspect_get_type(&mut self, root: &Mountable) -> Result<String> {
        Ok(self.inspected_system(root)?.os_type.clone())
    }

    /// Give the architecture of an operating system
    ///
    /// It is that of its programs, by the names that `file-architecture` has, or `unknown`.
    ///
    /// ```guestfish
    /// inspect-get-arch /dev/sda1
    /// ```
    pub fn inspect_get_arch(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.arch))
    }

    /// Give the distribution of an operating system
    ///
    /// It is a short name such as `debian`, `ubuntu`, `fedora`, `rhel`, `opensuse`, `sles`,
    /// `archlinux` or `alpinelinux`, or `unknown`.
    ///
    /// ```guestfish
    /// inspect-get-distro /dev/sda1
    /// ```
    pub fn inspect_get_distro(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.distro))
    }

    /// Give the major version of an operating system
    ///
    /// It is 0 if the system has no version, as those that are released as they go.
    ///
    /// ```guestfish
    /// inspect-get-major-version /dev/sda1
    /// ```
    pub fn inspect_get_major_version(&mut self, root: &Mountable) -> Result<i32> {
        Ok(self.inspected_system(root)?.major_version)
    }

    /// Give the minor version of an operating system
    ///
    /// It is 0 if the system has none.
    ///
    /// ```guestfish
    /// inspect-get-minor-version /dev/sda1
    /// ```
    pub fn inspect_get_minor_version(&mut self, root: &Mountable) -> Result<i32> {
        Ok(self.inspected_system(root)?.minor_version)
    }

    /// Give the product name of an operating system
    ///
    /// It is for people: the name in os-release, or the line of a release file; `unknown` if there is
    /// none.
    ///
    /// ```guestfish
    /// inspect-get-product-name /dev/sda1
    /// ```
    pub fn inspect_get_product_name(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.product_name))
    }

    /// Give the product variant of an operating system
    ///
    /// Only Windows has one; for all other systems the result is `unknown`.
    ///
    /// ```guestfish
    /// inspect-get-product-variant /dev/sda1
    /// ```
    pub fn inspect_get_product_variant(&mut self, root: &Mountable) -> Result<String> {
        self.inspected_system(root)?;
        Ok(or_unknown(&None))
    }

    /// Give the build ID of an operating system
    ///
    /// It is `BUILD_ID` of os-release, or `unknown`.
    ///
    /// ```guestfish
    /// inspect-get-build-id /dev/sda1
    /// ```
    pub fn inspect_get_build_id(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.build_id))
    }

    /// Give the host name of an operating system
    ///
    /// It is `unknown` if none is set.
    ///
    /// ```guestfish
    /// inspect-get-hostname /dev/sda1
    /// ```
    pub fn inspect_get_hostname(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.hostname))
    }

    /// Give the identifier that osinfo-db has for an operating system
    ///
    /// It is a guess from distribution and version, such as `debian12`, or `unknown`.
    ///
    /// ```guestfish
    /// inspect-get-osinfo /dev/sda1
    /// ```
    pub fn inspect_get_osinfo(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.osinfo))
    }

    /// Give the format of an operating system's packages
    ///
    /// It is `deb`, `rpm`, `apk`, `pacman`, `ebuild`, `xbps`, `pisi` or `unknown`.
    ///
    /// ```guestfish
    /// inspect-get-package-format /dev/sda1
    /// ```
    pub fn inspect_get_package_format(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.package_format))
    }

    /// Give the tool that manages an operating system's packages
    ///
    /// It is `apt`, `dnf`, `yum`, `zypper`, `apk`, `pacman`, `portage`, `urpmi`, `up2date`, `xbps`,
    /// `pisi` or `unknown`.
    ///
    /// ```guestfish
    /// inspect-get-package-management /dev/sda1
    /// ```
    pub fn inspect_get_package_management(&mut self, root: &Mountable) -> Result<String> {
        Ok(or_unknown(&self.inspected_system(root)?.package_management))
    }

    /// Give the mountpoints of an operating system
    ///
    /// The result has a device for each mountpoint in the system's fstab, in that order. A device may
    /// be missing, or hold something that cannot be mounted.
    ///
    /// ```guestfish
    /// inspect-get-mountpoints /dev/sda1
    /// ```
    pub fn inspect_get_mountpoints(&mut self, root: &Mountable) -> Result<Vec<(BString, BString)>> {
        let mountpoints = &self.inspected_system(root)?.mountpoints;
        Ok(mountpoints.iter().map(|mount| (mount.mountpoint.clone(), mount.device.as_str().into())).collect())
    }

    /// Give the devices that belong to an operating system
    ///
    /// They are those in its fstab, swap space too, in that order.
    ///
    /// ```guestfish
    /// inspect-get-filesystems /dev/sda1
    /// ```
    pub fn inspect_get_filesystems(&mut self, root: &Mountable) -> Result<Vec<String>> {
        Ok(self.inspected_system(root)?.filesystems.clone())
    }

    /// Give the drive letters of an operating system
    ///
    /// Only Windows has them; for all other systems the result is empty.
    ///
    /// ```guestfish
    /// inspect-get-drive-mappings /dev/sda1
    /// ```
    pub fn inspect_get_drive_mappings(&mut self, root: &Mountable) -> Result<Vec<(BString, BString)>> {
        self.inspected_system(root)?;
        Ok(Vec::new())
    }

    /// Give the picture that stands for an operating system
    ///
    /// The result is a PNG from the guest, and empty if there is none: `/etc/favicon.png` unless
    /// `favicon` is false, else the distribution's logo. With `highquality` small pictures are left
    /// out. The picture is the guest's and may be forged.
    ///
    /// ```guestfish
    /// inspect-get-icon /dev/sda1
    /// ```
    pub fn inspect_get_icon(
        &mut self,
        root: &Mountable,
        favicon: Option<bool>,
        highquality: Option<bool>,
    ) -> Result<Vec<u8>> {
        let system = self.inspected_system(root)?;
        self.inspected()?.icon(system, favicon.unwrap_or(true), highquality.unwrap_or(false))
    }

    /// List the applications of an operating system
    ///
    /// They are its packages, sorted by name. The list is read from the guest's disks, whatever is
    /// mounted. It is empty for a system whose packages have no list; the database of rpm cannot be
    /// read yet, and is an error.
    ///
    /// ```guestfish
    /// inspect-list-applications2 /dev/sda1
    /// ```
    pub fn inspect_list_applications2(&mut self, root: &Mountable) -> Result<Vec<Application2>> {
        let system = self.inspected_system(root)?;
        self.inspected()?.applications(system)
    }

    /// List the applications of an operating system
    ///
    /// ```guestfish
    /// inspect-list-applications /dev/sda1
    /// ```
    #[call(deprecated = "inspect-list-applications2")]
    pub fn inspect_list_applications(&mut self, root: &Mountable) -> Result<Vec<Application>> {
        let applications = self.inspect_list_applications2(root)?;
        Ok(applications.into_iter().map(Application::from).collect())
    }

    /// Give the format of an operating system
    ///
    /// It is always `installed`: installation media are not found.
    ///
    /// ```guestfish
    /// inspect-get-format /dev/sda1
    /// ```
    pub fn inspect_get_format(&mut self, root: &Mountable) -> Result<String> {
        self.inspected_system(root)?;
        Ok("installed".into())
    }

    /// Tell whether an operating system is a live CD
    ///
    /// It never is: these are not found.
    ///
    /// ```guestfish
    /// inspect-is-live /dev/sda1
    /// ```
    pub fn inspect_is_live(&mut self, root: &Mountable) -> Result<bool> {
        self.inspected_system(root)?;
        Ok(false)
    }

    /// Tell whether an operating system is a network installer
    ///
    /// It never is: these are not found.
    ///
    /// ```guestfish
    /// inspect-is-netinst /dev/sda1
    /// ```
    pub fn inspect_is_netinst(&mut self, root: &Mountable) -> Result<bool> {
        self.inspected_system(root)?;
        Ok(false)
    }

    /// Tell whether an operating system is one of several installation disks
    ///
    /// It never is: these are not found.
    ///
    /// ```guestfish
    /// inspect-is-multipart /dev/sda1
    /// ```
    pub fn inspect_is_multipart(&mut self, root: &Mountable) -> Result<bool> {
        self.inspected_system(root)?;
        Ok(false)
    }

    /// Give the system directory of Windows
    ///
    /// It is an error for any other operating system.
    ///
    /// ```guestfish
    /// inspect-get-windows-systemroot /dev/sda1
    /// ```
    pub fn inspect_get_windows_systemroot(&mut self, root: &Mountable) -> Result<String> {
        self.windows_only(root, "systemroot could not be determined")
    }

    /// Give the control set that Windows uses
    ///
    /// It is an error for any other operating system.
    ///
    /// ```guestfish
    /// inspect-get-windows-current-control-set /dev/sda1
    /// ```
    pub fn inspect_get_windows_current_control_set(&mut self, root: &Mountable) -> Result<String> {
        self.windows_only(root, "CurrentControlSet could not be determined")
    }

    /// Give the path of the `SOFTWARE` registry hive
    ///
    /// It is an error for any operating system but Windows.
    ///
    /// ```guestfish
    /// inspect-get-windows-software-hive /dev/sda1
    /// ```
    pub fn inspect_get_windows_software_hive(&mut self, root: &Mountable) -> Result<String> {
        self.windows_only(root, "software hive not found")
    }

    /// Give the path of the `SYSTEM` registry hive
    ///
    /// It is an error for any operating system but Windows.
    ///
    /// ```guestfish
    /// inspect-get-windows-system-hive /dev/sda1
    /// ```
    pub fn inspect_get_windows_system_hive(&mut self, root: &Mountable) -> Result<String> {
        self.windows_only(root, "system hive not found")
    }

    /// Tell whether Windows has group policies set
    ///
    /// It is an error for any other operating system.
    ///
    /// ```guestfish
    /// inspect-get-windows-group-policy /dev/sda1
    /// ```
    pub fn inspect_get_windows_group_policy(&mut self, root: &Mountable) -> Result<bool> {
        self.windows_only(root, "group policy could not be determined").map(|_| false)
    }
}

impl Guest {
    /// The answer for a system that is not Windows: none other is found.
    fn windows_only(&self, root: &Mountable, what: &str) -> Result<String> {
        self.inspected_system(root)?;
        Err(Error::Usage(format!("not a Windows guest, or {what}")))
    }
}

fn or_unknown(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "unknown".into())
}
