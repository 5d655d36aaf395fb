//! Why a node did not start: each room's own words, which say what, where and what to do.
//!
//! Called by: `Node::start`. Invariants: nothing is lost when a start fails; the next one finds
//! the directory as it was.

use super::budget::BudgetError;
use super::data_dir::DataDirError;
use super::descriptors::DescriptorError;
use crate::door::DoorError;
use crate::door::state_dir::StateError;
use crate::door::tls::TlsError;
use crate::http::HttpError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    #[error("the certificate in the data directory: {0}")]
    Tls(#[from] TlsError),
    #[error("the catalog does not open: {0}")]
    Metadata(#[from] metadata::OpenError),
    #[error("the broker cannot register in the catalog: {0}")]
    Register(#[from] model::ProposeError),
    #[error(
        "the catalog in the data directory belongs to node {owner}, and meta/node.json names node \
         {node}: restore meta/node.json from a copy"
    )]
    Identity { owner: String, node: String },
    #[error("the log does not open: {0}")]
    Store(#[from] storage::OpenError),
    #[error("the partitions do not open: {0}")]
    Broker(#[from] broker::OpenError),
    #[error("SQL does not start: {0}")]
    Sql(#[from] ::sql::SqlError),
    #[error("the module sandbox does not start: {0}")]
    Sandbox(#[from] wasm::HostError),
    #[error(transparent)]
    HttpBind(#[from] HttpError),
    #[error("the HTTP door does not open: {0}")]
    Http(std::io::Error),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    State(#[from] StateError),
}
