//! The object store of the tier: a local folder through our own syncing wrapper, or S3 and GCS
//! by `remote`.
//!
//! Called by: `Tier::open`. Invariants: a local put is on the disk, data and name, when it
//! returns; `PutMode::Create` never replaces; a put appears whole or not at all.
//! Refuses: URLs of other schemes; updates and multipart puts in a local folder.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

use super::remote;
use crate::config::StoreOptions;
use crate::error::OpenError;
use crate::io;

/// Opens the store a URL names; paths in it are relative to the URL's path.
pub(crate) fn open(
    url: &str,
    options: &StoreOptions,
) -> std::result::Result<Arc<dyn ObjectStore>, OpenError> {
    let tier = |reason: String| OpenError::Tier {
        url: url.to_owned(),
        reason,
    };
    let parsed = Url::parse(url).map_err(|error| {
        tier(format!(
            "{error}; write file:///folder, s3://bucket/prefix or gs://bucket/prefix"
        ))
    })?;
    match parsed.scheme() {
        "file" => {
            let dir = parsed
                .to_file_path()
                .map_err(|()| tier("it is not a local path".into()))?;
            Ok(Arc::new(LocalStore::open(&dir)?))
        }
        "s3" | "s3a" | "gs" => remote::open(&parsed, options).map_err(|reason| OpenError::Tier {
            url: remote::without_keys(&parsed),
            reason,
        }),
        scheme => Err(tier(format!(
            "scheme `{scheme}` is not known; use file, s3 or gs"
        ))),
    }
}

/// A folder as object store. Reads go to `object_store`'s own; writes are synced here.
#[derive(Debug)]
pub(crate) struct LocalStore {
    dir: PathBuf,
    inner: LocalFileSystem,
    temporary: Arc<AtomicU64>,
}

impl LocalStore {
    pub(crate) fn open(dir: &FilePath) -> std::result::Result<LocalStore, OpenError> {
        let drafts = dir.join(".tmp");
        if drafts.is_dir() {
            std::fs::remove_dir_all(&drafts)
                .map_err(|error| OpenError::io("empty", &drafts, error))?;
        }
        io::create_dir_durable(&drafts).map_err(|error| OpenError::io("create", &drafts, error))?;
        let inner = LocalFileSystem::new_with_prefix(dir).map_err(|error| OpenError::Tier {
            url: dir.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(LocalStore {
            dir: dir.to_owned(),
            inner,
            temporary: Arc::default(),
        })
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local folder {}", self.dir.display())
    }
}

/// Writes `payload` under a temporary name, then gives it its own; all of it synced.
fn put(draft: &FilePath, to: &FilePath, payload: &PutPayload, create: bool) -> std::io::Result<()> {
    io::write_synced(draft, payload.iter().map(|bytes| bytes.as_ref()))?;
    let parent = to.parent().unwrap_or(FilePath::new("/"));
    io::create_dir_durable(parent)?;
    if create {
        // A link, unlike a rename, fails where the name is taken.
        std::fs::hard_link(draft, to)?;
        std::fs::remove_file(draft)?;
    } else {
        std::fs::rename(draft, to)?;
    }
    io::sync_dir(parent)
}

fn generic(error: std::io::Error) -> Error {
    Error::Generic {
        store: "local folder",
        source: Box::new(error),
    }
}

fn not_supported(what: &str) -> Error {
    Error::NotSupported {
        source: format!("a local folder has no {what}").into(),
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_supported("conditional update")),
        };
        let to = self.inner.path_to_filesystem(location)?;
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let draft = self.dir.join(".tmp").join(number.to_string());
        let done = tokio::task::spawn_blocking(move || {
            let done = put(&draft, &to, &payload, create);
            if done.is_err() {
                // Only what is left of it; the error that matters is the first one.
                let _ = std::fs::remove_file(&draft);
            }
            done
        });
        match done.await? {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source: Box::new(error),
                })
            }
            Err(error) => Err(generic(error)),
        }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(not_supported("multipart put"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(not_supported("copy"))
    }
}
