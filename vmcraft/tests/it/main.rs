//! The library as a program uses it, on images that other tools made. The calls that look at a guest
//! are compared with the programs that they are named after: those run on a kernel's mount of the same
//! image, or on the tree that it was made from.

mod changing;
mod devices;
mod drives;
mod encrypted;
mod examples;
mod file_flags;
mod kernel_encrypted;
mod kernel_volumes;
mod looking;
mod making;
mod md_numbers;
mod mounting;
mod partitioning;
mod reading;
mod sample;
mod selinux;
mod simple;
mod volumes;
