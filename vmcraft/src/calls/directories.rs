//! Directories, links and paths.

use std::io::{BufWriter, Write};

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::FileType;
use vmcraft_macros::api;

use crate::host::Sink;
use crate::limits::Budget;
use crate::listing::{self, Row};
use crate::value::{FileOut, record};
use crate::vfs::{Node, join};
use crate::walk::{InodeSet, Walk};
use crate::{Error, Guest, GuestPath, Result, glob};

record! {
    /// An entry of a directory.
    pub struct Dirent as "dirent" {
        /// The inode's number.
        pub ino: i64,
        /// Its type: `b`, `c`, `d`, `f`, `l`, `r`, `s`, or `u` if the directory does not say.
        pub ftyp: char,
        /// The name.
        pub name: BString,
    }
}

#[api(area = "directories")]
impl Guest {
    /// List the names in a directory
    ///
    /// `directory` is listed in the order of the names' bytes, without `.` and `..`. A symbolic link
    /// is followed.
    ///
    /// ```guestfish
    /// ls /etc
    /// ```
    pub fn ls(&self, directory: &GuestPath) -> Result<Vec<BString>> {
        let dir = self.directory(directory)?;
        let mut budget = Budget::for_names(directory, "use ls0, which writes to a file");
        let mut names = Vec::new();
        for_each_entry(&dir, |name| {
            self.host.check_cancelled()?;
            budget.spend_item(name.len())?;
            names.push(name.to_owned());
            Ok(())
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Write the names in a directory to a file
    ///
    /// The names in `dir` go to the host's file `filenames`, each followed by a NUL byte, in the order
    /// of the disk, without `.` and `..`.
    ///
    /// ```guestfish
    /// ls0 /etc -
    /// ```
    pub fn ls0(&mut self, dir: &GuestPath, filenames: &FileOut) -> Result<()> {
        let dir = self.directory(dir)?;
        self.host.write_to(filenames, |host, sink| {
            let mut out = NameWriter(BufWriter::new(sink));
            for_each_entry(&dir, |name| {
                host.check_cancelled()?;
                out.put(&[name.as_bytes()])
            })?;
            out.finish()
        })
    }

    /// List a directory in long form
    ///
    /// `directory` is listed as `ls -la` would, with numbers for owners and times in UTC. Programs
    /// better use `ls` and `lstatnslist`.
    ///
    /// ```guestfish
    /// ll /etc
    /// ```
    pub fn ll(&self, directory: &GuestPath) -> Result<BString> {
        self.long_listing(directory, false)
    }

    /// List a directory in long form with SELinux contexts
    ///
    /// `directory` is listed as `ls -laZ` would; `?` stands for no context.
    ///
    /// ```guestfish
    /// llz /etc
    /// ```
    #[call(deprecated = "lgetxattrs")]
    pub fn llz(&self, directory: &GuestPath) -> Result<BString> {
        self.long_listing(directory, true)
    }

    /// List all files below a directory
    ///
    /// The result has the path of everything below `directory`, sorted by bytes, without what
    /// `directory` itself says: `find /etc/` has `fstab`, and `find /etc` has `/fstab`. Symbolic links
    /// are not followed, and if `directory` is one, a slash after it is needed.
    ///
    /// ```guestfish
    /// find /etc/
    /// ```
    pub fn find(&self, directory: &GuestPath) -> Result<Vec<BString>> {
        let mut budget = Budget::for_names(directory, "use find0, which writes to a file");
        let mut paths = Vec::new();
        let prefix = find_prefix(directory);
        if let Some(mut walk) = self.find_walk(directory)? {
            while let Some(entry) = walk.next()? {
                self.host.check_cancelled()?;
                if entry.depth > 0 {
                    budget.spend_item(entry.path.len() + 1)?;
                    paths.push([prefix, entry.path.as_bytes()].concat().into());
                }
            }
        }
        paths.sort_unstable();
        Ok(paths)
    }

    /// Write the paths of all files below a directory to a file
    ///
    /// What `find` gives for `directory` goes to the host's file `files`, each path followed by a NUL
    /// byte, each directory before what is in it.
    ///
    /// ```guestfish
    /// find0 /etc -
    /// ```
    pub fn find0(&mut self, directory: &GuestPath, files: &FileOut) -> Result<()> {
        let prefix = find_prefix(directory);
        let (vfs, start) = (&self.vfs, self.find_start(directory)?);
        self.host.write_to(files, |host, sink| {
            let Some(start) = start else { return Ok(()) };
            let mut walk = Walk::new(vfs, start);
            let mut out = NameWriter(BufWriter::new(sink));
            while let Some(entry) = walk.next()? {
                host.check_cancelled()?;
                if entry.depth > 0 {
                    out.put(&[prefix, entry.path.as_bytes()])?;
                }
            }
            out.finish()
        })
    }

    /// List the entries of a directory with their types
    ///
    /// All entries of `dir` come in the order of the disk, after `.` and `..`. `ftyp` is one letter:
    /// `r` regular file, `d` directory, `l` symbolic link, `b` and `c` device nodes, `f` named pipe,
    /// `s` socket, `u` if the directory does not say.
    ///
    /// ```guestfish
    /// readdir /etc
    /// ```
    pub fn readdir(&self, dir: &GuestPath) -> Result<Vec<Dirent>> {
        let node = self.directory(dir)?;
        let parent = self.resolve(GuestPath::new(&join(&node.path, "..".into())))?;
        let dot = |inode: &Node, name: &str| Dirent {
            ino: inode.inode.0.cast_signed(),
            ftyp: 'd',
            name: name.into(),
        };
        let mut records = vec![dot(&node, "."), dot(&parent, "..")];
        let mut budget = Budget::for_names(dir, "use ls0, which writes to a file");
        node.visit_entries(|entry| {
            self.host.check_cancelled()?;
            budget.spend_item(entry.name.len())?;
            records.push(Dirent {
                ino: entry.inode.0.cast_signed(),
                ftyp: char::from(entry.file_type.letter()),
                name: entry.name.to_owned(),
            });
            Ok(())
        })?;
        Ok(records)
    }

    /// Read the target of a symbolic link
    ///
    /// `path` is the link. The result is the text that it holds, which need not lead anywhere.
    ///
    /// ```guestfish
    /// readlink /etc/os-release
    /// ```
    pub fn readlink(&self, path: &GuestPath) -> Result<BString> {
        let node = self.resolve_link(path)?;
        node.filesystem.read_link(node.inode).map_err(|source| node.error(source))
    }

    /// Read the targets of several symbolic links in a directory
    ///
    /// `path` is the directory, `names` are names in it. There is one text for each name, in their
    /// order; where there is no symbolic link, it is empty.
    ///
    /// ```guestfish
    /// readlinklist /etc "os-release fstab"
    /// ```
    pub fn readlinklist(&self, path: &GuestPath, names: &[BString]) -> Result<Vec<BString>> {
        let mut targets = Vec::new();
        self.for_each_name(path, names, |found| {
            let target = found.ok().and_then(|node| node.filesystem.read_link(node.inode).ok());
            targets.push(target.unwrap_or_default());
            Ok(())
        })?;
        Ok(targets)
    }

    /// Resolve a path to one without symbolic links
    ///
    /// The result leads to the same file as `path`, and has no symbolic link, `.` or `..` in it.
    ///
    /// ```guestfish
    /// realpath /etc/../etc
    /// ```
    pub fn realpath(&self, path: &GuestPath) -> Result<BString> {
        Ok(self.resolve(path)?.path)
    }

    /// List the paths that a pattern with wildcards matches
    ///
    /// `pattern` is an absolute path with `*`, `?`, `[…]` and `{…,…}` as in a shell. If nothing
    /// matches, the list is empty. A slash follows the path of each directory, unless
    /// `directoryslash:false` is given.
    ///
    /// ```guestfish
    /// glob-expand /etc/*.conf
    /// ```
    #[call(alias = "glob-expand-opts")]
    pub fn glob_expand(&self, pattern: &GuestPath, directoryslash: Option<bool>) -> Result<Vec<BString>> {
        if !pattern.is_absolute() {
            return Err(Error::Usage(format!("{pattern:?}: a path inside the guest must start with /")));
        }
        self.resolve("/".into())?;
        let mark = directoryslash.unwrap_or(true);
        glob::expand(&self.vfs, pattern.as_bstr(), mark, &|| self.host.check_cancelled())
    }

    /// Estimate the space that a file or tree takes
    ///
    /// `path` is a file or directory; with a directory everything below it counts. The result is in
    /// units of 1024 bytes. A file with several names counts once; symbolic links are not followed.
    ///
    /// ```guestfish
    /// du /etc
    /// ```
    pub fn du(&self, path: &GuestPath) -> Result<i64> {
        let mut walk = Walk::new(&self.vfs, self.resolve_link(path)?);
        let mut counted = InodeSet::default();
        let mut blocks = 0_u64;
        while let Some(entry) = walk.next()? {
            self.host.check_cancelled()?;
            let has_one_name = entry.metadata.links <= 1 || entry.metadata.is_dir();
            if has_one_name || counted.insert(entry.mount.id, entry.inode) {
                blocks = blocks.saturating_add(entry.metadata.blocks_512);
            }
        }
        Ok(blocks.div_ceil(2).cast_signed())
    }

    /// Find a path whatever the case of its letters
    ///
    /// The result is `path` with each name as its directory has it: first the same name, else one that
    /// differs in upper and lower case only. The last name may be one that is not there: then it stays
    /// as it is. That finds files that Windows names without regard to case.
    ///
    /// ```guestfish
    /// case-sensitive-path /ETC/FSTAB
    /// ```
    pub fn case_sensitive_path(&self, path: &GuestPath) -> Result<BString> {
        if !path.is_absolute() {
            return Err(Error::Usage(format!("{path:?}: a path inside the guest must start with /")));
        }
        let mut found = BString::from("/");
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let dir = self.directory(GuestPath::new(&found))?;
            let not_found = || Error::Path {
                path: path.as_bstr().to_owned(),
                component: Some(join(&found, name)),
                source: vmcraft_fs::Error::NotFound,
            };
            let actual = match same_but_case(&dir, name)? {
                Some(actual) => actual,
                None if name == ".." || names.peek().is_some() => return Err(not_found()),
                None => name.to_owned(),
            };
            found = join(&found, actual.as_bstr());
        }
        Ok(found)
    }
}

impl Guest {
    /// The directory that a path leads to.
    pub(crate) fn directory(&self, path: &GuestPath) -> Result<Node> {
        let node = self.resolve(path)?;
        if node.metadata()?.is_dir() { Ok(node) } else { Err(node.error(vmcraft_fs::Error::NotADirectory)) }
    }

    /// Where `find` starts; `None` if it stops at a symbolic link.
    fn find_start(&self, directory: &GuestPath) -> Result<Option<Node>> {
        self.directory(directory)?;
        let node = self.resolve_link(directory)?;
        Ok((node.metadata()?.file_type != FileType::Symlink).then_some(node))
    }

    fn find_walk(&self, directory: &GuestPath) -> Result<Option<Walk<'_>>> {
        Ok(self.find_start(directory)?.map(|start| Walk::new(&self.vfs, start)))
    }

    fn long_listing(&self, path: &GuestPath, with_contexts: bool) -> Result<BString> {
        let node = self.resolve(path)?;
        let now = self.host.now();
        if !node.metadata()?.is_dir() {
            let row = Row::read(node.path.clone(), &node)?;
            return Ok(listing::format(vec![row], with_contexts, now));
        }
        let mut budget = Budget::new(path, "use ls and lstatnslist");
        let mut rows = Vec::new();
        let mut add = |row: Row| {
            budget.spend(row.len_bytes())?;
            rows.push(row);
            Ok(())
        };
        for dot in [".", ".."] {
            let dir = self.resolve(GuestPath::new(&join(&node.path, dot.into())))?;
            add(Row::read(dot.into(), &dir)?)?;
        }
        for_each_entry(&node, |name| {
            self.host.check_cancelled()?;
            add(Row::read(name.to_owned(), &self.vfs.child(&node, name)?)?)
        })?;
        let total = listing::total(&rows);
        Ok([total.as_bytes(), &listing::format(rows, with_contexts, now)].concat().into())
    }
}

/// Shows each name in a directory.
fn for_each_entry(dir: &Node, mut show: impl FnMut(&BStr) -> Result<()>) -> Result<()> {
    dir.visit_entries(|entry| show(entry.name))
}

/// The name in a directory that is `name`, or else differs from it in letter case only.
fn same_but_case(dir: &Node, name: &BStr) -> Result<Option<BString>> {
    let lower = name.to_lowercase();
    let mut found = None;
    let mut is_exact = false;
    for_each_entry(dir, |entry| {
        if entry == name {
            is_exact = true;
        } else if found.is_none() && entry.to_lowercase() == lower {
            found = Some(entry.to_owned());
        }
        Ok(())
    })?;
    Ok(if is_exact { Some(name.to_owned()) } else { found })
}

/// What stands before each path that `find` gives.
fn find_prefix(directory: &GuestPath) -> &'static [u8] {
    if directory.as_bstr().ends_with(b"/") { b"" } else { b"/" }
}

/// Writes names, each in pieces and with a NUL byte after it.
struct NameWriter<'s, 'a>(BufWriter<&'s mut Sink<'a>>);

impl NameWriter<'_, '_> {
    fn put(&mut self, pieces: &[&[u8]]) -> Result<()> {
        let mut written = pieces.iter().try_for_each(|piece| self.0.write_all(piece));
        written = written.and_then(|()| self.0.write_all(b"\0"));
        written.map_err(|source| self.0.get_ref().error(source))
    }

    fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(|source| self.0.get_ref().error(source))
    }
}
