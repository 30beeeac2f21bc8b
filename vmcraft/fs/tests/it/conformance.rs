//! A driver that keeps all promises passes; each broken promise is found, and named.

use vmcraft_fs::conformance::{check, check_from_threads};

use crate::memory::{Defect, Memory};

#[test]
fn faithful_driver_passes() {
    check(&Memory(Defect::None)).unwrap();
    check_from_threads(&Memory(Defect::None), 4).unwrap();
}

#[test] // A check that finds nothing would let every driver pass.
fn each_broken_promise_is_named() {
    for (defect, says) in [
        (Defect::DotShown, "read_dir shows the name \".\""),
        (Defect::CursorZero, "is 0"),
        (Defect::CursorSkips, "taken up after \"file\""),
        (Defect::WrongListedType, "\"fifo\" is Socket in the listing, Fifo itself"),
        (Defect::LookupElsewhere, "\"fifo\" is inode 5 in the listing, 2 by lookup"),
        (Defect::LookupOfMissing, "lookup of a missing name"),
        (Defect::LookupInFile, "a lookup in what is no directory"),
        (Defect::ListingOfFile, "a listing of what is no directory"),
        (Defect::WrongParent, "/dir: parent is Ok(InodeNumber(3)), not 1"),
        (Defect::DirectoryRead, "a directory can be read"),
        (Defect::FifoRead, "/fifo: what is no regular file can be read"),
        (Defect::FileHasTarget, "/file: a regular file has a target"),
        (Defect::TargetLength, "/dir/link: a target of another length"),
        (Defect::ShortRead, "/file: read gives 4096 bytes of 30000"),
        (Defect::LongRead, "/file: read gives 30001 bytes of 30000"),
        (Defect::ReadAtEnd, "there is something at the end"),
        (Defect::ContentByOffset, "/file: another content at 7919"),
        (Defect::DataInHole, "the hole at 10000 is not zeros"),
        (Defect::DataPastEnd, "data from 10000 are 20000 to 30001 of 30000"),
        (Defect::TooManyNames, "2 names, but 1 links"),
        (Defect::WrongInode, "metadata is of another inode"),
        (Defect::Nanoseconds, "a time of a whole second of nanoseconds"),
        (Defect::Permissions, "permissions of more than 12 bits"),
        (Defect::XattrTwice, "an extended attribute is there twice"),
        (Defect::FreeBlocks, "statfs: more free blocks than blocks"),
    ] {
        for found in [check(&Memory(defect)), check_from_threads(&Memory(defect), 2)] {
            match found {
                Err(message) => assert!(message.contains(says), "{defect:?}: {message}"),
                Ok(()) => panic!("{defect:?} was not found"),
            }
        }
    }
}
