//! Settings of the handle.

use bstr::{BStr, BString, ByteSlice};
use vmcraft_macros::api;

use crate::{Error, Guest, Result};

#[api(area = "settings")]
impl Guest {
    /// Take settings from a list of environment variables
    ///
    /// `environment` is a list of `NAME=VALUE`: `LIBGUESTFS_DEBUG`, `LIBGUESTFS_TRACE`,
    /// `LIBGUESTFS_MEMSIZE`, `LIBGUESTFS_BACKEND`, `LIBGUESTFS_BACKEND_SETTINGS` and the others that
    /// libguestfs has. Names that are not its are ignored. The library itself never reads the
    /// environment.
    ///
    /// ```guestfish
    /// parse-environment-list "LIBGUESTFS_DEBUG=0 LIBGUESTFS_MEMSIZE=512"
    /// ```
    pub fn parse_environment_list(&mut self, environment: &[BString]) -> Result<()> {
        environment.iter().try_for_each(|variable| self.settings.set_from_environment(variable.as_bstr()))
    }

    /// Turn verbose messages on or off
    ///
    /// The library never prints: programs that do, such as the shell, look at it.
    ///
    /// ```guestfish
    /// set-verbose true
    /// ```
    #[call(alias = "verbose")]
    pub fn set_verbose(&mut self, verbose: bool) -> Result<()> {
        self.settings.verbose = verbose;
        Ok(())
    }

    /// Return whether verbose messages are on
    ///
    /// ```guestfish
    /// get-verbose
    /// ```
    pub fn get_verbose(&self) -> Result<bool> {
        Ok(self.settings.verbose)
    }

    /// Turn the tracing of calls on or off
    ///
    /// The library never prints: programs that do, such as the shell, look at it.
    ///
    /// ```guestfish
    /// set-trace true
    /// ```
    #[call(alias = "trace")]
    pub fn set_trace(&mut self, trace: bool) -> Result<()> {
        self.settings.trace = trace;
        Ok(())
    }

    /// Return whether calls are traced
    ///
    /// ```guestfish
    /// get-trace
    /// ```
    pub fn get_trace(&self) -> Result<bool> {
        Ok(self.settings.trace)
    }

    /// Set whether changes are written when the handle is closed
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-autosync true
    /// ```
    #[call(alias = "autosync")]
    pub fn set_autosync(&mut self, autosync: bool) -> Result<()> {
        self.settings.autosync = autosync;
        Ok(())
    }

    /// Return whether changes are written when the handle is closed
    ///
    /// ```guestfish
    /// get-autosync
    /// ```
    pub fn get_autosync(&self) -> Result<bool> {
        Ok(self.settings.autosync)
    }

    /// Set the name of the program
    ///
    /// It is kept for programs that show it.
    ///
    /// ```guestfish
    /// set-program backup
    /// ```
    #[call(alias = "program")]
    pub fn set_program(&mut self, program: &str) -> Result<()> {
        self.settings.program = program.to_owned();
        Ok(())
    }

    /// Return the name of the program
    ///
    /// ```guestfish
    /// get-program
    /// ```
    pub fn get_program(&self) -> Result<String> {
        Ok(self.settings.program.clone())
    }

    /// Set a name for the handle
    ///
    /// It is kept for programs that show it. It has ASCII letters, digits, `-` and `_`.
    ///
    /// ```guestfish
    /// set-identifier guest-1
    /// ```
    #[call(alias = "identifier")]
    pub fn set_identifier(&mut self, identifier: &str) -> Result<()> {
        if !identifier.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(Error::Usage(format!("{identifier:?}: an identifier has letters, digits, - and _")));
        }
        self.settings.identifier = identifier.to_owned();
        Ok(())
    }

    /// Return the handle's name
    ///
    /// ```guestfish
    /// get-identifier
    /// ```
    pub fn get_identifier(&self) -> Result<String> {
        Ok(self.settings.identifier.clone())
    }

    /// Set whether child processes have a process group of their own
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-pgroup true
    /// ```
    #[call(alias = "pgroup")]
    pub fn set_pgroup(&mut self, pgroup: bool) -> Result<()> {
        self.settings.pgroup = pgroup;
        Ok(())
    }

    /// Return whether child processes have a process group of their own
    ///
    /// ```guestfish
    /// get-pgroup
    /// ```
    pub fn get_pgroup(&self) -> Result<bool> {
        Ok(self.settings.pgroup)
    }

    /// Set where the appliance is looked for
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-path /usr/lib/guestfs
    /// ```
    #[call(alias = "path")]
    pub fn set_path(&mut self, searchpath: &str) -> Result<()> {
        self.settings.path = searchpath.to_owned();
        Ok(())
    }

    /// Return where the appliance is looked for
    ///
    /// ```guestfish
    /// get-path
    /// ```
    pub fn get_path(&self) -> Result<String> {
        Ok(self.settings.path.clone())
    }

    /// Set how much memory the appliance has, in MiB
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-memsize 2048
    /// ```
    #[call(alias = "memsize")]
    pub fn set_memsize(&mut self, memsize: i32) -> Result<()> {
        self.settings.set_memsize(memsize)
    }

    /// Return how much memory the appliance has, in MiB
    ///
    /// ```guestfish
    /// get-memsize
    /// ```
    pub fn get_memsize(&self) -> Result<i32> {
        Ok(self.settings.memsize)
    }

    /// Set how many processors the appliance has
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-smp 2
    /// ```
    #[call(alias = "smp")]
    pub fn set_smp(&mut self, smp: i32) -> Result<()> {
        self.settings.set_smp(smp)
    }

    /// Return how many processors the appliance has
    ///
    /// ```guestfish
    /// get-smp
    /// ```
    pub fn get_smp(&self) -> Result<i32> {
        Ok(self.settings.smp)
    }

    /// Set whether the appliance has a network
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-network true
    /// ```
    #[call(alias = "network")]
    pub fn set_network(&mut self, network: bool) -> Result<()> {
        self.settings.network = network;
        Ok(())
    }

    /// Return whether the appliance has a network
    ///
    /// ```guestfish
    /// get-network
    /// ```
    pub fn get_network(&self) -> Result<bool> {
        Ok(self.settings.network)
    }

    /// Set how the appliance is started
    ///
    /// There is no appliance here: it is kept, and has no effect. `direct`, `libvirt` and
    /// `unix:PATH` are taken.
    ///
    /// ```guestfish
    /// set-backend direct
    /// ```
    #[call(alias = "backend")]
    pub fn set_backend(&mut self, backend: &str) -> Result<()> {
        self.settings.set_backend(backend)
    }

    /// Return how the appliance is started
    ///
    /// ```guestfish
    /// get-backend
    /// ```
    pub fn get_backend(&self) -> Result<String> {
        Ok(self.settings.backend.clone())
    }

    /// Set which hypervisor is used
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-hv /usr/bin/qemu-system-x86_64
    /// ```
    #[call(alias = "hv")]
    pub fn set_hv(&mut self, hv: &str) -> Result<()> {
        self.settings.hypervisor = hv.to_owned();
        Ok(())
    }

    /// Return which hypervisor is used
    ///
    /// ```guestfish
    /// get-hv
    /// ```
    pub fn get_hv(&self) -> Result<String> {
        Ok(self.settings.hypervisor.clone())
    }

    /// Set options for the appliance's kernel
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-append quiet
    /// ```
    #[call(alias = "append")]
    pub fn set_append(&mut self, append: &str) -> Result<()> {
        self.settings.append = append.to_owned();
        Ok(())
    }

    /// Return the options for the appliance's kernel
    ///
    /// ```guestfish
    /// get-append
    /// ```
    pub fn get_append(&self) -> Result<String> {
        Ok(self.settings.append.clone())
    }

    /// Set whether a recovery process is started
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-recovery-proc false
    /// ```
    #[call(alias = "recovery-proc")]
    pub fn set_recovery_proc(&mut self, recoveryproc: bool) -> Result<()> {
        self.settings.recovery_process = recoveryproc;
        Ok(())
    }

    /// Return whether a recovery process is started
    ///
    /// ```guestfish
    /// get-recovery-proc
    /// ```
    pub fn get_recovery_proc(&self) -> Result<bool> {
        Ok(self.settings.recovery_process)
    }

    /// Set where the appliance is kept
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-cachedir /var/tmp
    /// ```
    #[call(alias = "cachedir")]
    pub fn set_cachedir(&mut self, cachedir: &str) -> Result<()> {
        self.settings.cachedir = cachedir.to_owned();
        Ok(())
    }

    /// Return where the appliance is kept
    ///
    /// ```guestfish
    /// get-cachedir
    /// ```
    pub fn get_cachedir(&self) -> Result<String> {
        Ok(self.settings.cachedir.clone())
    }

    /// Set the directory for temporary files
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-tmpdir /tmp
    /// ```
    #[call(alias = "tmpdir")]
    pub fn set_tmpdir(&mut self, tmpdir: &str) -> Result<()> {
        self.settings.tmpdir = tmpdir.to_owned();
        Ok(())
    }

    /// Return the directory for temporary files
    ///
    /// ```guestfish
    /// get-tmpdir
    /// ```
    pub fn get_tmpdir(&self) -> Result<String> {
        Ok(self.settings.tmpdir.clone())
    }

    /// Set whether the appliance has SELinux
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-selinux false
    /// ```
    #[call(deprecated = "selinux-relabel", alias = "selinux")]
    pub fn set_selinux(&mut self, selinux: bool) -> Result<()> {
        self.settings.selinux = selinux;
        Ok(())
    }

    /// Return whether the appliance has SELinux
    ///
    /// ```guestfish
    /// get-selinux
    /// ```
    #[call(deprecated = "selinux-relabel")]
    pub fn get_selinux(&self) -> Result<bool> {
        Ok(self.settings.selinux)
    }

    /// Set which hypervisor is used
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-qemu /usr/bin/qemu-system-x86_64
    /// ```
    #[call(deprecated = "set-hv", alias = "qemu")]
    pub fn set_qemu(&mut self, hv: &str) -> Result<()> {
        self.settings.hypervisor = hv.to_owned();
        Ok(())
    }

    /// Return which hypervisor is used
    ///
    /// ```guestfish
    /// get-qemu
    /// ```
    #[call(deprecated = "get-hv")]
    pub fn get_qemu(&self) -> Result<String> {
        Ok(self.settings.hypervisor.clone())
    }

    /// Set how the appliance is started
    ///
    /// There is no appliance here: it is kept, and has no effect.
    ///
    /// ```guestfish
    /// set-attach-method appliance
    /// ```
    #[call(deprecated = "set-backend", alias = "attach-method")]
    pub fn set_attach_method(&mut self, backend: &str) -> Result<()> {
        self.settings.set_backend(backend)
    }

    /// Return how the appliance is started
    ///
    /// ```guestfish
    /// get-attach-method
    /// ```
    #[call(deprecated = "get-backend")]
    pub fn get_attach_method(&self) -> Result<String> {
        // It kept the old name of the one backend that had one.
        Ok(if self.settings.backend == "direct" { "appliance".into() } else { self.settings.backend.clone() })
    }

    /// Return the directory for sockets
    ///
    /// ```guestfish
    /// get-sockdir
    /// ```
    pub fn get_sockdir(&self) -> Result<String> {
        Ok(self.settings.sockdir.clone())
    }

    /// Set one setting of the backend
    ///
    /// `name` is set to `val`; what it was before is replaced. There is no backend here: it is kept,
    /// and has no effect.
    ///
    /// ```guestfish
    /// set-backend-setting force_tcg 1
    /// ```
    pub fn set_backend_setting(&mut self, name: &BStr, val: &BStr) -> Result<()> {
        self.settings.set_backend_setting(name, val);
        Ok(())
    }

    /// Return one setting of the backend
    ///
    /// It is an error if `name` was not set.
    ///
    /// ```guestfish
    /// set-backend-setting force_tcg 1
    /// get-backend-setting force_tcg
    /// ```
    pub fn get_backend_setting(&self, name: &BStr) -> Result<BString> {
        self.settings
            .backend_setting(name)
            .map(ToOwned::to_owned)
            .ok_or_else(|| Error::Usage(format!("{name}: there is no such backend setting")))
    }

    /// Remove one setting of the backend
    ///
    /// The result is how many there were of this `name`.
    ///
    /// ```guestfish
    /// clear-backend-setting force_tcg
    /// ```
    pub fn clear_backend_setting(&mut self, name: &BStr) -> Result<i32> {
        Ok(i32::try_from(self.settings.clear_backend_setting(name)).unwrap_or(i32::MAX))
    }

    /// Set all settings of the backend
    ///
    /// `settings` is a list of `NAME` and `NAME=VALUE`. There is no backend here: they are kept, and
    /// have no effect.
    ///
    /// ```guestfish
    /// set-backend-settings "force_tcg gdb"
    /// ```
    pub fn set_backend_settings(&mut self, settings: &[BString]) -> Result<()> {
        self.settings.backend_settings = settings.to_vec();
        Ok(())
    }

    /// List the settings of the backend
    ///
    /// ```guestfish
    /// get-backend-settings
    /// ```
    pub fn get_backend_settings(&self) -> Result<Vec<BString>> {
        Ok(self.settings.backend_settings.clone())
    }
}
