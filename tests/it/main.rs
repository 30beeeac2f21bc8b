//! End-to-end tests: the binary as a user runs it.

mod bad_input;
mod console;
mod corpus;
mod customize;
mod disks;
mod encrypted_guest;
mod fidelity;
mod filesystem_tools;
mod filesystems;
mod guestfish;
mod inspect;
mod interactive;
mod keys;
mod mount;
mod ordinary_user;
mod resize;
mod shell;
mod stacks;
mod support;
mod tools;
mod tools_in;
mod transaction;
