//! Opens an input: a path, `-`, a compressed file, or a reader that the caller brings.
//!
//! Called by: `file::open`. Compression goes by the extension, as the name is what the user sees.
//! Refuses: folders and gzip, each with its own message.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Input, SourceError};

/// Bytes: an opened input under the name that errors give it.
pub(super) type Opened = (String, Box<dyn Read + Send>);

pub(super) fn open(input: Input) -> Result<Opened, SourceError> {
    match input {
        Input::Reader { name, reader } => Ok((name, reader)),
        Input::Path(path) if path.as_os_str() == "-" => {
            Ok(("<stdin>".to_string(), Box::new(io::stdin())))
        }
        Input::Path(path) => open_file(&path),
    }
}

fn open_file(path: &Path) -> Result<Opened, SourceError> {
    let file = path.display().to_string();
    let failed = |source| SourceError::Open {
        file: file.clone(),
        source,
    };
    let handle = File::open(path).map_err(failed)?;
    if handle.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz" | "tgz") => Err(SourceError::Gzip { file }),
        Some("zst") => {
            let decoder = zstd::stream::read::Decoder::new(handle).map_err(failed)?;
            Ok((file, Box::new(decoder)))
        }
        _ => Ok((file, Box::new(handle))),
    }
}
