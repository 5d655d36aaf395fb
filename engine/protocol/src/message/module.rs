//! Modules: is it there, put it there.
//!
//! What: `ModuleHas` (JSON), `ModulePut` (the module's bytes as they are). Called by: `apply`,
//! which sends only what the server does not have.

use bytes::Bytes;
use model::ids::Digest;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::wire::{Body, Reader, Writer, json_bodies};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleHas {
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModulePresent {
    pub present: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModulePut {
    pub bytes: Bytes,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleStored {
    pub digest: Digest,
}

impl Body for ModulePut {
    const NAME: &'static str = "ModulePut";

    fn write(&self, out: &mut Writer) {
        out.bytes(&self.bytes);
    }

    fn read(from: &mut Reader) -> Result<ModulePut, DecodeError> {
        Ok(ModulePut { bytes: from.rest() })
    }
}

json_bodies!(ModuleHas, ModulePresent, ModuleStored);
