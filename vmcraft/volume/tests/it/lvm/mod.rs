//! Volume groups, measured against LVM's own tools and real images.

mod corpus;
mod editing;
mod tools;
