//! Test support: a disk that forgets and fails.

pub(crate) mod disk;
