//! What the targets of the Linux device mapper do: tables of pieces, stripes, mirrors, snapshots, thin pools, caches.
