//! The disks of a libvirt domain, from its XML.
//!
//! Spec: libvirt's `docs/formatdomain.rst`, "Hard drives, floppy disks, CDROMs". CD-ROM and floppy
//! drives are left out: what is in them is not the guest's.

use std::path::Path;
use std::process::{Command, Stdio};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};

use crate::{Error, Result};

/// Where libvirt's system daemon keeps the domains it knows.
const SYSTEM_DOMAINS: &str = "/etc/libvirt/qemu";

/// The longest domain XML that is read.
const MAX_XML_BYTES: u64 = 16 << 20;

/// How deep elements nest at most.
const MAX_DEPTH: usize = 64;

/// What a path in a URI keeps as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainDisk {
    /// A path, or a URI.
    pub(crate) name: String,
    /// Its format as the XML has it.
    pub(crate) format: Option<String>,
    /// Whether the domain itself may not write it.
    pub(crate) is_read_only: bool,
}

/// The XML of a domain: of a file if there is one of this name, else as libvirt knows it by name or
/// UUID.
pub(crate) fn domain_xml(name: &str, connection: Option<&str>) -> Result<String> {
    if Path::new(name).is_file() {
        return read(Path::new(name));
    }
    let virsh = dump(name, connection);
    if let Ok(xml) = virsh {
        return Ok(xml);
    }
    // What virsh would have shown of a domain that is shut off.
    let stored = Path::new(SYSTEM_DOMAINS).join(format!("{name}.xml"));
    if connection.is_none() && !name.contains('/') && stored.is_file() {
        return read(&stored);
    }
    virsh
}

fn read(path: &Path) -> Result<String> {
    let failed = |source| Error::Host { path: path.to_owned(), doing: "cannot read the domain", source };
    let len = path.metadata().map_err(failed)?.len();
    if len > MAX_XML_BYTES {
        return Err(Error::Usage(format!("{}: {len} bytes are too many for a domain's XML", path.display())));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Asks libvirt through its own command, so that its configuration and its logins are used.
fn dump(name: &str, connection: Option<&str>) -> Result<String> {
    let mut virsh = Command::new("virsh");
    virsh.args(["--quiet", "--readonly"]);
    if let Some(uri) = connection {
        virsh.args(["--connect", uri]);
    }
    let output = virsh.args(["dumpxml", "--domain", name]).stdin(Stdio::null()).output().map_err(|e| {
        Error::Usage(format!(
            "domain {name:?}: there is no file of this name, and libvirt cannot be asked: virsh: {e}"
        ))
    })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Usage(format!("domain {name:?}: {}", why.trim().trim_start_matches("error: "))));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Error::Usage(format!("domain {name:?}: virsh printed what is not UTF-8")))
}

/// The disks in a domain's XML, in its order. `name` is for messages.
pub(crate) fn disks(name: &str, xml: &str) -> Result<Vec<DomainDisk>> {
    let wrong = |what: String| Error::Usage(format!("domain {name:?}: {what}"));
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    let mut disks = Vec::new();
    let mut has_domain = false;
    let mut disk: Option<RawDisk> = None;
    loop {
        let at = reader.buffer_position();
        let event = reader.read_event().map_err(|e| wrong(format!("its XML is wrong at byte {at}: {e}")))?;
        match event {
            Event::Eof if path.is_empty() => break,
            Event::Eof => return Err(wrong(format!("its XML ends inside of <{}>", path.join("><")))),
            Event::Start(element) => {
                if path.len() >= MAX_DEPTH {
                    return Err(wrong(format!("its XML nests deeper than {MAX_DEPTH} elements")));
                }
                path.push(local_name(&element));
                open(&path, &element, &mut disk)
                    .map_err(|e| wrong(format!("its XML is wrong at byte {at}: {e}")))?;
            }
            Event::Empty(element) => {
                path.push(local_name(&element));
                open(&path, &element, &mut disk)
                    .map_err(|e| wrong(format!("its XML is wrong at byte {at}: {e}")))?;
                path.pop();
            }
            Event::End(_) => {
                let ended = path.pop();
                has_domain |= ended.as_deref() == Some("domain");
                if is_inside(&path, &["domain", "devices"])
                    && ended.as_deref() == Some("disk")
                    && let Some(disk) = disk.take()
                {
                    disks.extend(disk.finish().map_err(wrong)?);
                }
            }
            _ => {}
        }
    }
    if has_domain { Ok(disks) } else { Err(wrong("the file is not the XML of a libvirt domain".into())) }
}

/// The attributes of a `disk` and what is in it.
#[derive(Debug, Default)]
struct RawDisk {
    kind: String,
    device: Option<String>,
    target: Option<String>,
    format: Option<String>,
    source: Vec<(String, String)>,
    hosts: Vec<Vec<(String, String)>>,
    is_read_only: bool,
}

fn local_name(element: &BytesStart<'_>) -> String {
    element.local_name().as_ref().to_owned()
}

/// Whether the innermost elements are these; a saved state has a domain inside of another element.
fn is_inside(path: &[String], inner: &[&str]) -> bool {
    path.len() >= inner.len() && path[path.len() - inner.len()..] == *inner
}

/// An element begins. Backing chains have elements of the same names further inside.
fn open(path: &[String], element: &BytesStart<'_>, disk: &mut Option<RawDisk>) -> Result<(), String> {
    if is_inside(path, &["domain", "devices", "disk"]) {
        let attributes = attributes(element)?;
        *disk = Some(RawDisk {
            kind: get(&attributes, "type").unwrap_or("file").to_owned(),
            device: get(&attributes, "device").map(str::to_owned),
            ..RawDisk::default()
        });
        return Ok(());
    }
    let Some(disk) = disk else { return Ok(()) };
    if is_inside(path, &["devices", "disk", "driver"]) {
        disk.format = get(&attributes(element)?, "type").map(str::to_owned);
    } else if is_inside(path, &["devices", "disk", "target"]) {
        disk.target = get(&attributes(element)?, "dev").map(str::to_owned);
    } else if is_inside(path, &["devices", "disk", "readonly"]) {
        disk.is_read_only = true;
    } else if is_inside(path, &["devices", "disk", "source"]) {
        disk.source = attributes(element)?;
    } else if is_inside(path, &["devices", "disk", "source", "host"]) {
        disk.hosts.push(attributes(element)?);
    }
    Ok(())
}

fn attributes(element: &BytesStart<'_>) -> Result<Vec<(String, String)>, String> {
    element
        .attributes()
        .map(|attribute| {
            let attribute = attribute.map_err(|e| e.to_string())?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|e| e.to_string())?;
            Ok((attribute.key.as_ref().to_owned(), value.into_owned()))
        })
        .collect()
}

fn get<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

impl RawDisk {
    /// The disk; `None` if it is a drive with nothing in it, or not a disk.
    fn finish(self) -> Result<Option<DomainDisk>, String> {
        if !matches!(self.device.as_deref(), None | Some("disk" | "lun")) {
            return Ok(None);
        }
        let target = self.target.as_deref().unwrap_or("without a target");
        let source = |name: &str| get(&self.source, name).filter(|value| !value.is_empty());
        let name = match self.kind.as_str() {
            "file" => source("file").map(str::to_owned),
            "block" => source("dev").map(str::to_owned),
            "network" => Some(self.uri().map_err(|e| format!("disk {target}: {e}"))?),
            other => {
                return Err(format!(
                    "disk {target} is of type {other:?}, which is not supported: name its file with -a"
                ));
            }
        };
        let is_read_only = self.is_read_only;
        Ok(name.map(|name| DomainDisk { name, format: self.format, is_read_only }))
    }

    /// The URI of a network disk.
    fn uri(&self) -> Result<String, String> {
        let protocol = get(&self.source, "protocol").unwrap_or_default();
        let name = get(&self.source, "name").unwrap_or_default();
        let path = utf8_percent_encode(name.trim_start_matches('/'), PATH);
        let host = self.hosts.first().map(Vec::as_slice).unwrap_or_default();
        if let Some(socket) = get(host, "socket") {
            return match protocol {
                "nbd" => Ok(format!("nbd+unix:///{path}?socket={}", utf8_percent_encode(socket, PATH))),
                _ => Err(format!("{protocol} over a Unix socket is not supported")),
            };
        }
        if get(&self.source, "tls") == Some("yes") {
            return Err(format!("{protocol} with TLS is not supported"));
        }
        let mut authority = get(host, "name").unwrap_or_default().to_owned();
        if authority.contains(':') && !authority.starts_with('[') {
            authority = format!("[{authority}]");
        }
        if let Some(port) = get(host, "port") {
            authority.push_str(&format!(":{port}"));
        }
        match protocol {
            "nbd" | "http" | "https" | "ftp" | "ftps" | "ssh" | "iscsi" | "rbd" | "gluster" | "nfs" => {
                Ok(format!("{protocol}://{authority}/{path}"))
            }
            other => Err(format!("the protocol {other:?} is not supported")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(devices: &str) -> String {
        format!("<domain type='kvm'><name>x</name><devices>{devices}</devices></domain>")
    }

    fn disk(name: &str, format: Option<&str>) -> DomainDisk {
        DomainDisk { name: name.into(), format: format.map(str::to_owned), is_read_only: false }
    }

    #[test]
    fn disks_that_the_domain_only_reads_are_marked() {
        let xml = domain(
            "<disk type='file'><source file='/a'/><target dev='vda'/><readonly/></disk>
             <disk type='file'><source file='/b'/><target dev='vdb'/></disk>",
        );
        let marked: Vec<_> = disks("x", &xml).unwrap().iter().map(|disk| disk.is_read_only).collect();
        assert_eq!(marked, [true, false]);
    }

    #[test]
    fn files_and_block_devices_are_found_in_order() {
        let xml = domain(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a &amp; b.qcow2'>
               <seclabel model='dac'/></source>
               <backingStore type='file'><format type='raw'/><source file='/base'/></backingStore>
               <target dev='vda'/></disk>
             <disk type='block' device='lun'><source dev='/dev/vg/lv'/><target dev='sda'/></disk>
             <disk type='file' device='cdrom'><source file='/x.iso'/></disk>
             <disk type='file' device='floppy'/>
             <disk type='file'><target dev='vdb'/></disk>
             <interface><source file='/not-a-disk'/></interface>",
        );
        assert_eq!(
            disks("x", &xml).unwrap(),
            [disk("/a & b.qcow2", Some("qcow2")), disk("/dev/vg/lv", None)]
        );
    }

    #[test]
    fn network_disks_become_uris() {
        let xml = domain(
            "<disk type='network'><source protocol='nbd' name='ex port'><host name='h' port='10810'/></source></disk>
             <disk type='network'><source protocol='nbd'><host transport='unix' socket='/run/a b'/></source></disk>
             <disk type='network'><source protocol='rbd' name='pool/image'><host name='::1'/></source></disk>",
        );
        assert_eq!(
            disks("x", &xml).unwrap(),
            [
                disk("nbd://h:10810/ex%20port", None),
                disk("nbd+unix:///?socket=/run/a%20b", None),
                disk("rbd://[::1]/pool/image", None)
            ]
        );
        let refused = "<disk type='network'><source protocol='sheepdog' name='x'/><target dev='vdc'/></disk>";
        let error = disks("x", &domain(refused)).unwrap_err().to_string();
        assert!(error.contains("vdc") && error.contains("sheepdog"), "{error}");
        let refused = "<disk type='volume'><source pool='p' volume='v'/><target dev='vdd'/></disk>";
        let error = disks("x", &domain(refused)).unwrap_err().to_string();
        assert!(error.contains("vdd") && error.contains("volume"), "{error}");
    }

    #[test]
    fn what_is_not_a_domain_is_refused() {
        for xml in ["", "text", "<a/>", "<domain><devices>", "<domain></x>", "<domain>&nosuch;</domain"] {
            assert!(disks("x", xml).is_err(), "{xml}");
        }
        let deep = "<a>".repeat(100_000);
        assert!(disks("x", &deep).unwrap_err().to_string().contains("deeper"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[<>/a-z='&; ]{0,80}") {
            let _ = disks("x", &text);
            let _ = disks("x", &domain(&text));
        }
    }
}
