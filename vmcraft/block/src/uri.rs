//! URIs of disks: what `guestfish -a` takes, and NBD's own.
//!
//! Spec: `doc/uri.md` of the NetworkBlockDevice project for `nbd`; for the others the forms that
//! libguestfs takes, which become block device options of QEMU. Nothing of a URI is left for QEMU to
//! parse, but for the URL of a web or FTP server.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::nbd::Address;

/// NBD's port.
const NBD_PORT: u16 = 10809;

/// What a URI means.
#[derive(Debug, PartialEq)]
pub(crate) enum Location {
    /// `file:///path`: a file of this host.
    File(PathBuf),
    /// An export that our own client reads.
    Nbd { address: Address, export: String },
    /// A disk that QEMU reads for us.
    Qemu(RemoteDisk),
}

/// A disk elsewhere, as QEMU describes it.
#[derive(Debug, PartialEq)]
pub(crate) struct RemoteDisk {
    /// The options of QEMU's protocol driver, its name too, but not the password.
    pub(crate) options: serde_json::Map<String, Value>,
    /// The password of the URI, which must not be seen on a command line.
    pub(crate) password: Option<String>,
}

/// Why a URI leads nowhere.
#[derive(Debug, PartialEq)]
pub(crate) enum UriError {
    /// It is not well-formed, or lacks a part; what is wrong.
    Invalid(String),
    /// It means something that we do not have; the feature's name and what to do.
    Unsupported(String),
}

type Result<T> = std::result::Result<T, UriError>;

fn invalid<T>(what: impl Into<String>) -> Result<T> {
    Err(UriError::Invalid(what.into()))
}

/// Whether a disk's name is a URI rather than a path: a scheme, `://` and more.
pub fn is_uri(name: &str) -> bool {
    name.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// The URI without its password, for messages.
pub fn without_password(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{scheme}://{user}:***@{host}{path}"),
        None => uri.to_owned(),
    }
}

/// Understands a URI.
pub(crate) fn parse(uri: &str) -> Result<Location> {
    let Some((scheme, rest)) = uri.split_once("://") else { return invalid("it is no URI") };
    let parts = Parts::split(rest)?;
    let (driver, make): (_, fn(&Parts<'_>, &'static str) -> Result<RemoteDisk>) = match scheme
        .to_ascii_lowercase()
        .as_str()
    {
        "file" => return file(&parts),
        "nbd" | "nbd+unix" => return nbd(&parts, scheme),
        "nbds" | "nbds+unix" => {
            let what = "TLS (nbds); offer the export on a Unix socket, or through a tunnel such as ssh -L";
            return Err(UriError::Unsupported(what.into()));
        }
        "http" => ("http", curl),
        "https" => ("https", curl),
        "ftp" => ("ftp", curl),
        "ftps" => ("ftps", curl),
        "ssh" => ("ssh", ssh),
        "iscsi" => ("iscsi", iscsi),
        "rbd" => ("rbd", rbd),
        "gluster" => ("gluster", gluster),
        "nfs" => ("nfs", nfs),
        other => {
            return Err(UriError::Unsupported(format!(
                "{other} disks; known are nbd, nbd+unix, http, https, ftp, ftps, ssh, iscsi, rbd, gluster, \
                     nfs and file (a file of such a name needs ./ before it)"
            )));
        }
    };
    Ok(Location::Qemu(make(&parts, driver)?))
}

/// A URI after its scheme.
struct Parts<'a> {
    user: Option<String>,
    password: Option<String>,
    /// Without brackets; empty if there is none.
    host: String,
    port: Option<u16>,
    /// As it stands in the URI: empty, or with a leading `/`.
    path: &'a str,
    /// As it stands in the URI; empty if there is none.
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str) -> Result<Self> {
        let rest = rest.split_once('#').map_or(rest, |(rest, _fragment)| rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, "")) => (Some(decode(user)?), None),
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((v6, port)) => (v6.to_owned(), port.strip_prefix(':').unwrap_or(port)),
            None => {
                let (host, port) = place.split_once(':').unwrap_or((place, ""));
                (decode(host)?, port)
            }
        };
        let port = match port {
            "" => None,
            port => match port.parse() {
                Ok(port) if port != 0 => Some(port),
                _ => return invalid(format!("{port:?} is no port")),
            },
        };
        Ok(Self { user, password, host, port, path, query })
    }

    /// The path as a file's: decoded, not empty.
    fn file_path(&self) -> Result<String> {
        match decode(self.path)? {
            path if path.len() > 1 => Ok(path),
            _ => invalid("it has no path"),
        }
    }

    /// The path as two names, the second of which may have slashes.
    fn two_names(&self, what: &str) -> Result<(String, String)> {
        match self.path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((first, second)) if !first.is_empty() && !second.is_empty() => {
                Ok((decode(first)?, decode(second)?))
            }
            _ => invalid(format!("its path is not {what}")),
        }
    }

    fn host(&self) -> Result<&str> {
        if self.host.is_empty() { invalid("it names no host") } else { Ok(&self.host) }
    }

    /// The host as it stands in a URI.
    fn bracketed_host(&self) -> Result<String> {
        let host = self.host()?;
        Ok(if host.contains(':') { format!("[{host}]") } else { host.to_owned() })
    }

    /// The parameters, each with its value.
    fn parameters(&self) -> Result<Vec<(String, String)>> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(key)?, decode(value)?))
            })
            .collect()
    }

    /// Refuses parameters, of which the scheme has none.
    fn no_parameters(&self) -> Result<()> {
        match self.parameters()?.first() {
            Some((key, _)) => invalid(format!("the parameter {key:?} is not known")),
            None => Ok(()),
        }
    }

    /// Refuses a password, which the protocol cannot use.
    fn no_password(&self, advice: &str) -> Result<()> {
        match self.password {
            Some(_) => Err(UriError::Unsupported(format!("a password in such a URI; {advice}"))),
            None => Ok(()),
        }
    }
}

/// Replaces `%41` by `A`.
fn decode(text: &str) -> Result<String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) if !decoded.contains('\0') => Ok(decoded.into_owned()),
        _ => invalid(format!("{text:?} is not text")),
    }
}

fn file(parts: &Parts<'_>) -> Result<Location> {
    if !matches!(parts.host.as_str(), "" | "localhost") {
        return invalid("a file of another host");
    }
    parts.no_parameters()?;
    Ok(Location::File(parts.file_path()?.into()))
}

fn nbd(parts: &Parts<'_>, scheme: &str) -> Result<Location> {
    if parts.user.is_some() {
        return invalid("NBD has no users");
    }
    let mut socket = None;
    for (key, value) in parts.parameters()? {
        match key.as_str() {
            "socket" if !value.is_empty() => socket = Some(value),
            _ => return invalid(format!("the parameter {key:?} is not known; socket=PATH is")),
        }
    }
    let address = match socket {
        Some(_) if !parts.host.is_empty() => return invalid("it names a host and a socket"),
        Some(socket) => Address::Unix(socket.into()),
        None if scheme.eq_ignore_ascii_case("nbd+unix") => {
            return invalid("it names no socket; nbd+unix:///EXPORT?socket=PATH does");
        }
        None => Address::Tcp {
            host: if parts.host.is_empty() { "localhost".to_owned() } else { parts.host.clone() },
            port: parts.port.unwrap_or(NBD_PORT),
        },
    };
    let export = decode(parts.path.strip_prefix('/').unwrap_or(parts.path))?;
    Ok(Location::Nbd { address, export })
}

fn remote(driver: &'static str, options: Value, password: Option<String>) -> RemoteDisk {
    let mut options = match options {
        Value::Object(options) => options,
        // All callers give an object.
        _ => serde_json::Map::new(),
    };
    // What the URI does not say is left to QEMU.
    options.retain(|_, value| !value.is_null());
    options.insert("driver".into(), driver.into());
    RemoteDisk { options, password }
}

/// QEMU's `InetSocketAddress`, whose port is text.
fn server(parts: &Parts<'_>, port: u16) -> Result<Value> {
    Ok(json!({ "host": parts.host()?, "port": parts.port.unwrap_or(port).to_string() }))
}

fn curl(parts: &Parts<'_>, driver: &'static str) -> Result<RemoteDisk> {
    let host = parts.bracketed_host()?;
    parts.file_path()?;
    let port = parts.port.map(|port| format!(":{port}")).unwrap_or_default();
    let query = if parts.query.is_empty() { String::new() } else { format!("?{}", parts.query) };
    let url = format!("{driver}://{host}{port}{}{query}", parts.path);
    Ok(remote(driver, json!({ "url": url, "username": parts.user }), parts.password.clone()))
}

fn ssh(parts: &Parts<'_>, driver: &'static str) -> Result<RemoteDisk> {
    parts.no_password("give the key to ssh-agent")?;
    let mut check = Value::Null;
    for (key, value) in parts.parameters()? {
        check = match (key.as_str(), value.as_str()) {
            ("host_key_check", "no") => json!({ "mode": "none" }),
            ("host_key_check", "yes") => json!({ "mode": "known_hosts" }),
            _ => return invalid(format!("the parameter {key}={value} is not known; host_key_check=no is")),
        };
    }
    let options = json!({
        "server": server(parts, 22)?,
        "path": parts.file_path()?,
        "user": parts.user,
        "host-key-check": check,
    });
    Ok(remote(driver, options, None))
}

fn iscsi(parts: &Parts<'_>, driver: &'static str) -> Result<RemoteDisk> {
    parts.no_parameters()?;
    let path = parts.path.strip_prefix('/').unwrap_or_default();
    let (target, lun) = path.split_once('/').unwrap_or((path, "0"));
    if target.is_empty() {
        return invalid("its path is not /TARGET or /TARGET/LUN");
    }
    let Ok(lun) = lun.parse::<u32>() else { return invalid(format!("{lun:?} is no logical unit")) };
    let portal = format!("{}:{}", parts.bracketed_host()?, parts.port.unwrap_or(3260));
    let options = json!({
        "transport": "tcp",
        "portal": portal,
        "target": decode(target)?,
        "lun": lun,
        "user": parts.user,
    });
    Ok(remote(driver, options, parts.password.clone()))
}

fn rbd(parts: &Parts<'_>, driver: &'static str) -> Result<RemoteDisk> {
    parts.no_parameters()?;
    parts.no_password("give it in /etc/ceph")?;
    let (pool, image) = parts.two_names("/POOL/IMAGE")?;
    let server = if parts.host.is_empty() { Value::Null } else { json!([server(parts, 6789)?]) };
    let options = json!({ "pool": pool, "image": image, "user": parts.user, "server": server });
    Ok(remote(driver, options, None))
}

fn gluster(parts: &Parts<'_>, driver: &'static str) -> Result<RemoteDisk> {
    parts.no_parameters()?;
    parts.no_password("gluster has none")?;
    let (volume, path) = parts.two_names("/VOLUME/IMAGE")?;
    let mut server = server(parts, 24007)?;
    server["type"] = "inet".into();
    Ok(remote(driver, json!({ "volume": volume, "path": path, "server": [server] }), None))
}

fn nfs(parts: &Parts<'_>, driver: &'static str) -> Result<RemoteDisk> {
    parts.no_parameters()?;
    parts.no_password("NFS has none")?;
    let options = json!({
        "server": { "type": "inet", "host": parts.host()? },
        "path": parts.file_path()?,
    });
    Ok(remote(driver, options, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nbd_of(uri: &str) -> (String, String) {
        match parse(uri) {
            Ok(Location::Nbd { address, export }) => (address.to_string(), export),
            other => panic!("{uri}: {other:?}"),
        }
    }

    fn qemu_of(uri: &str) -> (Value, Option<String>) {
        match parse(uri) {
            Ok(Location::Qemu(disk)) => (Value::Object(disk.options), disk.password),
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test] // The examples of NBD's URI specification and of guestfish's manual.
    fn nbd_uris() {
        for (uri, address, export) in [
            ("nbd://example.com", "example.com:10809", ""),
            ("nbd://example.com/", "example.com:10809", ""),
            ("nbd://example.com:3000/disk", "example.com:3000", "disk"),
            ("nbd://example.com//disk", "example.com:10809", "/disk"),
            ("nbd://[2001:db8::1]/a%20b", "[2001:db8::1]:10809", "a b"),
            ("nbd:///disk", "localhost:10809", "disk"),
            ("nbd://?socket=/tmp/s", "/tmp/s", ""),
            ("nbd:///disk?socket=/tmp/s", "/tmp/s", "disk"),
            ("nbd+unix://?socket=%2Ftmp%2Fs", "/tmp/s", ""),
            ("NBD+UNIX:///a/b?socket=/tmp/s", "/tmp/s", "a/b"),
        ] {
            assert_eq!(nbd_of(uri), (address.to_owned(), export.to_owned()), "{uri}");
        }
        for uri in [
            "nbd://host:99999/",
            "nbd://host:0/",
            "nbd://host:1x/",
            "nbd://user@host/",
            "nbd://host/?socket=/s",
            "nbd+unix:///x",
            "nbd+unix:///x?sock=/s",
            "nbd://host/%ff",
            "nbd://host/a%00b",
        ] {
            assert!(matches!(parse(uri), Err(UriError::Invalid(_))), "{uri}: {:?}", parse(uri));
        }
        for uri in ["nbds://host/", "nbds+unix:///?socket=/s", "tftp://host/x", "nbd+vsock://1/x"] {
            assert!(matches!(parse(uri), Err(UriError::Unsupported(_))), "{uri}: {:?}", parse(uri));
        }
    }

    #[test] // The forms of guestfish's manual, as options of QEMU's drivers.
    fn uris_for_qemu() {
        for (uri, options, password) in [
            (
                "https://me:a%40b@example.com:8443/d%20x.img?sig=1%2F2",
                json!({"driver": "https", "url": "https://example.com:8443/d%20x.img?sig=1%2F2",
                       "username": "me"}),
                Some("a@b"),
            ),
            ("ftp://[::1]/disk.img", json!({"driver": "ftp", "url": "ftp://[::1]/disk.img"}), None),
            (
                "ssh://me@example.com/disk.img?host_key_check=no",
                json!({"driver": "ssh", "server": {"host": "example.com", "port": "22"}, "user": "me",
                       "path": "/disk.img", "host-key-check": {"mode": "none"}}),
                None,
            ),
            (
                "iscsi://example.com/iqn.2015-12.com.libvirt:test1/1",
                json!({"driver": "iscsi", "transport": "tcp", "portal": "example.com:3260",
                       "target": "iqn.2015-12.com.libvirt:test1", "lun": 1}),
                None,
            ),
            ("rbd:///pool/disk", json!({"driver": "rbd", "pool": "pool", "image": "disk"}), None),
            (
                "rbd://example.com:6790/pool/a/b",
                json!({"driver": "rbd", "pool": "pool", "image": "a/b",
                       "server": [{"host": "example.com", "port": "6790"}]}),
                None,
            ),
            (
                "gluster://example.com/volname/image",
                json!({"driver": "gluster", "volume": "volname", "path": "image",
                       "server": [{"type": "inet", "host": "example.com", "port": "24007"}]}),
                None,
            ),
            (
                "nfs://example.com/export/disk",
                json!({"driver": "nfs", "server": {"type": "inet", "host": "example.com"},
                       "path": "/export/disk"}),
                None,
            ),
        ] {
            assert_eq!(qemu_of(uri), (options, password.map(str::to_owned)), "{uri}");
        }
        for uri in
            ["https:///x", "https://host", "ssh://host/", "iscsi://host/", "iscsi://host/t/x", "rbd:///p"]
        {
            assert!(matches!(parse(uri), Err(UriError::Invalid(_))), "{uri}: {:?}", parse(uri));
        }
        assert!(matches!(parse("ssh://me:secret@host/x"), Err(UriError::Unsupported(_))));
    }

    #[test]
    fn file_uris() {
        assert_eq!(parse("file:///a%20b/c"), Ok(Location::File("/a b/c".into())));
        assert!(parse("file://host/a").is_err());
    }

    #[test] // A path is a path, whatever colons it has.
    fn paths_are_no_uris() {
        assert!(is_uri("nbd://x") && is_uri("x+y-z.1://"));
        assert!(!is_uri("disk.img") && !is_uri("./nbd://x") && !is_uri("a b://x") && !is_uri("://x"));
        assert!(!is_uri("nbd:/x") && !is_uri("/a://b"));
    }

    #[test] // Messages and logs must not have it.
    fn password_is_left_out_of_messages() {
        assert_eq!(without_password("https://me:p@ss@host/x@y:z"), "https://me:***@host/x@y:z");
        assert_eq!(without_password("https://me@host/x"), "https://me@host/x");
        assert_eq!(without_password("https://host/x:y@z"), "https://host/x:y@z");
    }

    proptest::proptest! {
        #[test]
        fn parse_survives_any_text(uri in "(nbd|https|ssh|iscsi|rbd|file)://[ -~é]{0,40}") {
            let _ = parse(&uri);
            let _ = without_password(&uri);
        }
    }
}
