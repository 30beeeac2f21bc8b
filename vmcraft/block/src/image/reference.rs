//! Names of other files in an image's header.

use std::path::{Path, PathBuf};

/// A file that an image names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Where it is; relative names are resolved.
    pub(super) path: PathBuf,
    /// The format that the name itself says, as a `json:` name can.
    pub(super) format: Option<String>,
}

/// Finds the file that `named` means in the header of `image`; `Err` says why it is no file.
///
/// QEMU takes what stands before the first colon for a protocol if there is no slash in it. A
/// relative name is relative to the directory of the image that has it. So it is here behind `file:`
/// and in `json:` too, where QEMU takes its own working directory, which the image knows nothing of.
pub(super) fn resolve(image: &Path, named: &str) -> Result<Named, String> {
    let (name, format) = match named.strip_prefix("json:") {
        Some(json) => from_json(json)?,
        None => (plain_file(named)?.to_owned(), None),
    };
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    let directory = image.parent().unwrap_or(Path::new(""));
    Ok(Named { path: directory.join(name), format })
}

/// The name without the protocol `file:`; every other protocol is refused.
fn plain_file(named: &str) -> Result<&str, String> {
    if let Some(name) = named.strip_prefix("file:") {
        return Ok(name);
    }
    match named.split_once(':') {
        Some((protocol, _)) if !protocol.contains('/') => {
            Err(format!("the protocol {protocol:?} is not followed from an image, only files are"))
        }
        _ => Ok(named),
    }
}

/// QEMU's block device options as JSON: a format over a file, or the file alone, its name nested or
/// flattened into `file.filename`. Options that change what is read are refused.
fn from_json(json: &str) -> Result<(String, Option<String>), String> {
    let options: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).map_err(|e| format!("the json: name cannot be read: {e}"))?;
    let mut flat = Vec::new();
    for (key, value) in &options {
        match value {
            // Two levels are all that a format over a file has.
            serde_json::Value::Object(inner) => {
                for (sub, value) in inner {
                    flat.push((format!("{key}.{sub}"), value));
                }
            }
            _ => flat.push((key.clone(), value)),
        }
    }
    let get = |key: &str| flat.iter().find(|(known, _)| known == key).and_then(|(_, value)| value.as_str());
    let known = ["driver", "filename", "file.driver", "file.filename"];
    if let Some((key, _)) =
        flat.iter().find(|(key, value)| !known.contains(&key.as_str()) || !value.is_string())
    {
        return Err(format!("the json: name has {key:?}, which is not followed from an image"));
    }
    let is_file = |driver: Option<&str>| matches!(driver, None | Some("file" | "host_device"));
    let (driver, file_driver) = (get("driver"), get("file.driver"));
    if let Some(other) = file_driver.filter(|driver| !is_file(Some(driver))) {
        return Err(format!("the protocol {other:?} is not followed from an image, only files are"));
    }
    match (get("file.filename"), get("filename")) {
        (Some(name), None) => Ok((name.to_owned(), driver.map(str::to_owned))),
        (None, Some(name)) if is_file(driver) => Ok((name.to_owned(), None)),
        _ => Err(format!(
            "the json: name has no file name that is followed from an image (driver {:?})",
            driver.unwrap_or("none")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(named: &str) -> Result<(String, Option<String>), String> {
        resolve(Path::new("/images/vm/top.qcow2"), named)
            .map(|found| (found.path.to_str().unwrap().to_owned(), found.format))
    }

    #[test] // Protocols are told from file names as QEMU tells them, and only files are followed.
    fn names_lead_to_files_only() {
        let file = |path: &str, format: Option<&str>| Ok((path.to_owned(), format.map(str::to_owned)));
        assert_eq!(resolved("base.qcow2"), file("/images/vm/base.qcow2", None));
        assert_eq!(resolved("../base"), file("/images/vm/../base", None));
        assert_eq!(resolved("/x/a:b"), file("/x/a:b", None));
        assert_eq!(resolved("./a:b"), file("/images/vm/./a:b", None));
        assert_eq!(resolved("file:base"), file("/images/vm/base", None));
        assert_eq!(
            resolved(r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/b"}}"#),
            file("/b", Some("qcow2"))
        );
        assert_eq!(
            resolved(r#"json:{"driver":"raw","file.filename":"b"}"#),
            file("/images/vm/b", Some("raw"))
        );
        assert_eq!(resolved(r#"json:{"driver":"file","filename":"b"}"#), file("/images/vm/b", None));
        for (named, says) in [
            ("nbd://host/disk", "\"nbd\""),
            ("a:b", "\"a\""),
            ("file:", "empty"),
            ("json:", "cannot be read"),
            (r#"json:{"driver":"nbd","host":"h"}"#, "\"host\""),
            (r#"json:{"driver":"qcow2","file":{"driver":"https","filename":"x"}}"#, "\"https\""),
            (r#"json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"x"}}"#, "\"offset\""),
            (r#"json:{"driver":"nbd","filename":"x"}"#, "\"nbd\""),
        ] {
            let reason = resolved(named).unwrap_err();
            assert!(reason.contains(says), "{named}: {reason}");
        }
    }
}
