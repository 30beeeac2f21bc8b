//! Flags and generation numbers of inodes, as `lsattr` and `chattr` have them.

use vmcraft_macros::api;

use crate::{Error, Guest, GuestPath, Result};

/// The letters of `lsattr` by the bits of `FS_IOC_GETFLAGS` (Linux `include/uapi/linux/fs.h`).
const LETTERS: [(char, u32); 24] = [
    ('A', 0x80),
    ('C', 0x80_0000),
    ('D', 0x1_0000),
    ('E', 0x800),
    ('F', 0x4000_0000),
    ('I', 0x1000),
    ('N', 0x1000_0000),
    ('P', 0x2000_0000),
    ('S', 0x8),
    ('T', 0x2_0000),
    ('V', 0x10_0000),
    ('a', 0x20),
    ('c', 0x4),
    ('d', 0x40),
    ('e', 0x8_0000),
    ('i', 0x10),
    ('j', 0x4000),
    ('m', 0x400),
    ('s', 0x1),
    ('t', 0x8000),
    ('u', 0x2),
    ('x', 0x200_0000),
    // Of compressed files, which no kernel made.
    ('B', 0x100),
    ('Z', 0x200),
];

#[api(area = "file flags")]
impl Guest {
    /// Get the flags of a file
    ///
    /// `file` is on ext2, ext3 or ext4; a symbolic link is followed. The result has a letter for each
    /// flag that is set, as chattr(1) and lsattr(1) name them, in the order of the alphabet with
    /// capital letters first: `i` is immutable, `a` append-only, `e` stored in extents, `d` not to be
    /// backed up.
    ///
    /// ```guestfish
    /// get-e2attrs /etc/fstab
    /// ```
    pub fn get_e2attrs(&self, file: &GuestPath) -> Result<String> {
        let node = self.resolve(file)?;
        let flags = node.filesystem.flags(node.inode).map_err(|source| node.error(source))?;
        let mut letters: Vec<char> =
            LETTERS.iter().filter(|(_, bit)| flags & bit != 0).map(|(letter, _)| *letter).collect();
        letters.sort_unstable();
        Ok(letters.into_iter().collect())
    }

    /// Set or clear flags of a file
    ///
    /// `attrs` are letters as `get-e2attrs` has them; with `clear`, these flags are cleared and not
    /// set. All other flags stay. It is an error if the file system cannot have one of them, or it is
    /// not for users to change, such as `e`.
    ///
    /// ```guestfish
    /// set-e2attrs /etc/resolv.conf i
    /// set-e2attrs /etc/resolv.conf i clear:true
    /// ```
    #[call(alias = "set-e2attrs-opts")]
    pub fn set_e2attrs(&mut self, file: &GuestPath, attrs: &str, clear: Option<bool>) -> Result<()> {
        let mut wanted = 0;
        for letter in attrs.chars() {
            let Some((_, bit)) = LETTERS.iter().find(|(known, _)| *known == letter) else {
                return Err(Error::Usage(format!("{attrs}: there is no file attribute {letter:?}")));
            };
            if wanted & bit != 0 {
                return Err(Error::Usage(format!("{attrs}: the file attribute {letter:?} is there twice")));
            }
            wanted |= bit;
        }
        let clear = clear.unwrap_or(false);
        self.atomically(|guest| {
            let node = guest.resolve(file)?;
            let fail = |source| node.error(source);
            let before = node.filesystem.flags(node.inode).map_err(fail)?;
            let after = if clear { before & !wanted } else { before | wanted };
            node.writer()?.set_flags(node.inode, after).map_err(fail)?;
            let refused = (node.filesystem.flags(node.inode).map_err(fail)? ^ after) & wanted;
            match LETTERS.iter().find(|(_, bit)| refused & bit != 0) {
                Some((letter, _)) => Err(Error::Unsupported(format!(
                    "changing the file attribute {letter} of {}: it is not for users to change here",
                    node.path
                ))),
                None => Ok(()),
            }
        })
    }

    /// Get the generation number of a file
    ///
    /// `file` is on ext2, ext3 or ext4; a symbolic link is followed. NFS tells files by this number
    /// which have one inode number after another.
    ///
    /// ```guestfish
    /// get-e2generation /etc/fstab
    /// ```
    pub fn get_e2generation(&self, file: &GuestPath) -> Result<i64> {
        let node = self.resolve(file)?;
        node.filesystem.generation(node.inode).map(i64::from).map_err(|source| node.error(source))
    }

    /// Set the generation number of a file
    ///
    /// `generation` is from 0 to 4294967295.
    ///
    /// ```guestfish
    /// set-e2generation /srv/marker 1234
    /// ```
    pub fn set_e2generation(&mut self, file: &GuestPath, generation: i64) -> Result<()> {
        let generation = u32::try_from(generation)
            .map_err(|_| Error::Usage(format!("the generation {generation} is not from 0 to 4294967295")))?;
        let node = self.resolve(file)?;
        node.writer()?.set_generation(node.inode, generation).map_err(|source| node.error(source))
    }
}
