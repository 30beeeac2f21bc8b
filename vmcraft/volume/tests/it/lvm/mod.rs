//! Volume groups, measured against LVM's own tools and real images.

mod bad_input;
mod corpus;
mod editing;
mod kinds;
mod reports;
mod tools;
