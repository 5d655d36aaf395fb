//! The twin of an object store: memory, or a real store, that fails as real stores do, from a
//! seed.
//!
//! Called by: tests. Invariants: an object is there whole or not at all; reads of one object see
//! the last write, lists may lag a few writes behind; the same seed gives the same faults.
//! Refuses: everything once its power is gone, and at random what it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};

use super::pace::Dice;

/// Writes a stale list does not show.
const STALE_WRITES: usize = 3;

#[derive(Debug)]
struct State {
    dice: Dice,
    /// Requests of a thousand that fail.
    per_mille: u64,
    /// Requests until nothing works any more.
    power: Option<u64>,
    latest: VecDeque<Path>,
    fired: BTreeMap<&'static str, u64>,
    parts: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Twin {
    objects: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl Twin {
    pub(crate) fn new(seed: u64, per_mille: u64) -> Twin {
        Twin::over(Arc::<InMemory>::default(), seed, per_mille)
    }

    /// The faults of a twin before a store that has none.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>, seed: u64, per_mille: u64) -> Twin {
        let state = State {
            dice: Dice(seed),
            per_mille,
            power: None,
            latest: VecDeque::new(),
            fired: BTreeMap::new(),
            parts: 0,
        };
        Twin {
            objects,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_faults(&self, per_mille: u64) {
        self.lock().per_mille = per_mille;
    }

    /// After that many requests nothing works; `None` is for ever.
    pub(crate) fn set_power(&self, power: Option<u64>) {
        self.lock().power = power;
    }

    pub(crate) fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.lock().fired.clone()
    }

    /// Parts of multipart puts.
    pub(crate) fn parts(&self) -> u64 {
        self.lock().parts
    }

    /// What is really there below a prefix.
    pub(crate) async fn paths(&self, prefix: &str) -> Vec<String> {
        let prefix = Path::from(prefix);
        let list = self.objects.list(Some(&prefix));
        let list = list.map_ok(|meta| meta.location.to_string());
        let mut paths: Vec<String> = list.try_collect().await.unwrap();
        paths.sort();
        paths
    }

    /// One of the faults this request may have, or none.
    async fn fault(&self, faults: &[&'static str]) -> Result<Option<&'static str>> {
        let fault = {
            let mut state = self.lock();
            if let Some(power) = &mut state.power {
                if *power == 0 {
                    *state.fired.entry("power gone").or_default() += 1;
                    return Err(error("power gone"));
                }
                *power -= 1;
            }
            let (at, thousand) = (faults.len() as u64, state.per_mille);
            let fault =
                (state.dice.below(1_000) < thousand).then(|| faults[state.dice.below(at) as usize]);
            if let Some(fault) = fault {
                *state.fired.entry(fault).or_default() += 1;
            }
            fault
        };
        match fault {
            Some("503" | "timeout") => Err(error(fault.unwrap_or_default())),
            Some("slow") => {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                Ok(None)
            }
            fault => Ok(fault),
        }
    }

    fn wrote(&self, path: &Path) {
        let mut state = self.lock();
        state.latest.push_back(path.clone());
        if state.latest.len() > STALE_WRITES {
            state.latest.pop_front();
        }
    }
}

#[derive(Debug)]
struct TwinUpload {
    twin: Twin,
    path: Path,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for TwinUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (twin, part) = (self.twin.clone(), self.inner.put_part(data));
        Box::pin(async move {
            twin.fault(&["503", "timeout", "slow"]).await?;
            twin.lock().parts += 1;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let faults = ["503", "timeout", "slow", "lost answer", "200 but lost"];
        let ok = PutResult {
            e_tag: None,
            version: None,
        };
        match self.twin.fault(&faults).await? {
            Some("200 but lost") => Ok(ok),
            fault => {
                self.inner.complete().await?;
                self.twin.wrote(&self.path);
                fault.map_or(Ok(ok), |fault| Err(error(fault)))
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

fn error(fault: &str) -> Error {
    Error::Generic {
        store: "twin",
        source: format!("{fault}, on purpose").into(),
    }
}

impl fmt::Display for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the twin of an object store")
    }
}

#[async_trait]
impl ObjectStore for Twin {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let mut faults = vec!["503", "timeout", "slow", "lost answer", "200 but lost"];
        if matches!(opts.mode, PutMode::Create) {
            faults.push("409 as exists");
        }
        let ok = PutResult {
            e_tag: None,
            version: None,
        };
        match self.fault(&faults).await? {
            Some("200 but lost") => Ok(ok),
            Some("409 as exists") => Err(Error::AlreadyExists {
                path: path.to_string(),
                source: "409 Conflict, on purpose".into(),
            }),
            fault => {
                self.objects.put_opts(path, payload, opts).await?;
                self.wrote(path);
                fault.map_or(Ok(ok), |fault| Err(error(fault)))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.fault(&["503", "timeout", "slow"]).await?;
        let inner = self.objects.put_multipart_opts(path, opts).await?;
        Ok(Box::new(TwinUpload {
            twin: self.clone(),
            path: path.clone(),
            inner,
        }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.fault(&["503", "timeout", "slow"]).await?;
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let twin = self.clone();
        let delete = move |path: Result<Path>| {
            let twin = twin.clone();
            async move {
                let path = path?;
                let fault = twin
                    .fault(&["503", "timeout", "slow", "lost answer"])
                    .await?;
                twin.objects.delete(&path).await?;
                fault.map_or(Ok(path), |fault| Err(error(fault)))
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (twin, prefix) = (self.clone(), prefix.cloned());
        let listed =
            async move {
                let fault = twin
                    .fault(&["503", "timeout", "slow", "stale list"])
                    .await?;
                let hidden = match fault {
                    Some(_) => twin.lock().latest.clone(),
                    None => VecDeque::new(),
                };
                let list = twin.objects.list(prefix.as_ref());
                Ok::<_, Error>(list.try_filter(move |meta| {
                    futures::future::ready(!hidden.contains(&meta.location))
                }))
            };
        futures::stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
