//! The URI of a remote disk that `add-drive` describes by protocol, server and path.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Error, Result};

/// What a path keeps in a URI: RFC 3986's unreserved characters and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A remote disk as `add-drive` is told of it.
pub(crate) struct Remote<'a> {
    pub(crate) protocol: &'a str,
    /// The export's name or the path on the server.
    pub(crate) name: &'a str,
    pub(crate) servers: Vec<&'a str>,
    pub(crate) username: Option<&'a str>,
    pub(crate) has_secret: bool,
}

impl Remote<'_> {
    /// The URI. What cannot be opened is refused by name.
    pub(crate) fn uri(&self) -> Result<String> {
        match self.protocol {
            "nbd" => self.nbd(),
            "ftp" | "ftps" | "http" | "https" | "ssh" => self.url(),
            "gluster" | "iscsi" | "rbd" | "sheepdog" | "tftp" => Err(Error::Unsupported(format!(
                "protocol {}; export the disk with qemu-nbd, and add it with protocol:nbd",
                self.protocol
            ))),
            other => Err(self.wrong(format!("there is no protocol {other:?}"))),
        }
    }

    fn nbd(&self) -> Result<String> {
        if self.username.is_some() {
            return Err(self.wrong("a username has no place in this protocol".into()));
        }
        let name = utf8_percent_encode(self.name.strip_prefix('/').unwrap_or(self.name), PATH);
        Ok(match self.server()? {
            Server::Socket(path) => {
                let path = utf8_percent_encode(path, PATH);
                format!("nbd+unix:///{name}?socket={path}")
            }
            Server::Host { name: host, port: Some(port) } => {
                format!("nbd://{}:{port}/{name}", bracketed(host))
            }
            Server::Host { name: host, port: None } => format!("nbd://{}/{name}", bracketed(host)),
        })
    }

    fn url(&self) -> Result<String> {
        let Server::Host { name: host, port } = self.server()? else {
            return Err(self.wrong("only servers on TCP have this protocol".into()));
        };
        if !self.name.starts_with('/') {
            return Err(self.wrong(format!("{:?}: the path must begin with /", self.name)));
        }
        let user = match self.username {
            None => String::new(),
            Some("") => return Err(self.wrong("the username is empty".into())),
            Some(user) => format!("{}@", utf8_percent_encode(user, PATH)),
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = utf8_percent_encode(self.name, PATH);
        Ok(format!("{}://{user}{}{port}{path}", self.protocol, bracketed(host)))
    }

    /// The server, of which there must be one.
    fn server(&self) -> Result<Server<'_>> {
        if self.has_secret {
            return Err(self.wrong("a secret has no place in this protocol".into()));
        }
        let [server] = self.servers[..] else {
            return Err(
                self.wrong("exactly one server is needed, as server:HOST or server:unix:/SOCKET".into())
            );
        };
        if let Some(path) = server.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(self.wrong(format!("server {server:?} names no socket")))
            } else {
                Ok(Server::Socket(path))
            };
        }
        let host = server.strip_prefix("tcp:").unwrap_or(server);
        let wrong = || self.wrong(format!("{server:?} is no server: HOST, HOST:PORT or unix:/SOCKET is"));
        // An address of IPv6 has colons of its own, and needs brackets before a port.
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, rest)) => (name, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
            None => match host.split_once(':') {
                Some((name, port)) if !port.contains(':') => (name, Some(port)),
                _ => (host, Some("")),
            },
        };
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:_%".contains(&b))
        };
        match port.ok_or_else(wrong)? {
            _ if !is_name(name) => Err(wrong()),
            "" if !host.ends_with(':') => Ok(Server::Host { name, port: None }),
            port => match port.parse::<u16>() {
                Ok(port @ 1..) => Ok(Server::Host { name, port: Some(port) }),
                _ => Err(wrong()),
            },
        }
    }

    fn wrong(&self, what: String) -> Error {
        Error::Usage(format!("{}: {what}", self.protocol))
    }
}

/// Where a server is.
enum Server<'a> {
    Socket(&'a str),
    Host { name: &'a str, port: Option<u16> },
}

/// An address of IPv6 stands in brackets in a URI.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(protocol: &str, name: &str, server: &str, username: Option<&str>) -> Result<String> {
        Remote { protocol, name, servers: vec![server], username, has_secret: false }.uri()
    }

    #[test] // The forms that libguestfs documents.
    fn servers_become_uris() {
        for (protocol, name, server, username, expected) in [
            ("nbd", "", "example.com", None, "nbd://example.com/"),
            ("nbd", "/disk 1", "tcp:example.com:10810", None, "nbd://example.com:10810/disk%201"),
            ("nbd", "x", "unix:/run/a b", None, "nbd+unix:///x?socket=/run/a%20b"),
            ("nbd", "x", "[::1]:10809", None, "nbd://[::1]:10809/x"),
            ("nbd", "x", "::1", None, "nbd://[::1]/x"),
            ("https", "/a/b.img", "h:8443", None, "https://h:8443/a/b.img"),
            ("ssh", "/a#b", "h", Some("me"), "ssh://me@h/a%23b"),
        ] {
            assert_eq!(uri(protocol, name, server, username).unwrap(), expected);
        }
    }

    #[test] // A URI that is not what was meant would open another disk.
    fn impossible_combinations_are_refused() {
        for (protocol, name, server, username, why) in [
            ("nbd", "x", "h:99999", None, "is no server"),
            ("nbd", "x", "h:", None, "is no server"),
            ("nbd", "x", "a/b", None, "is no server"),
            ("nbd", "x", "unix:", None, "names no socket"),
            ("nbd", "x", "h", Some("me"), "username"),
            ("http", "x", "h", None, "begin with /"),
            ("http", "/x", "unix:/s", None, "only servers on TCP"),
            ("rbd", "p/x", "h", None, "not supported: protocol rbd"),
            ("foo", "x", "h", None, "no protocol"),
        ] {
            let error = uri(protocol, name, server, username).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let remote =
            Remote { protocol: "nbd", name: "x", servers: vec![], username: None, has_secret: false };
        assert!(remote.uri().unwrap_err().to_string().contains("exactly one server"));
    }
}
