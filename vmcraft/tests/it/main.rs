//! The library as a program uses it, on images that other tools made.

mod devices;
mod drives;
