//! stub
pub mod data_dir;
