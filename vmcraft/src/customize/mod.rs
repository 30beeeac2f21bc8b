//! Customising a guest without running any of its programs: what `vmcraft customize` does.

pub mod selinux;
