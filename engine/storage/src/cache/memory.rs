//! Blocks in memory, the least recently used ones go first.
//!
//! Called by: `Blocks`, under its lock; a plain struct without clock or I/O.
//! Invariants: the sum of the blocks is at most the high watermark; what goes over it brings
//! the sum down to the low one, so that eviction comes in turns and not with every block; a
//! block older than the bound is not answered.
//! Refuses: blocks larger than the low watermark.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::BlockKey;
use crate::status::MemoryCacheStatus;

/// What a block takes beside its bytes: keys, places in both maps, its path's share.
const BLOCK_OVERHEAD: usize = 256;

pub(super) struct MemoryBlocks {
    high: usize,
    low: usize,
    age_max: Duration,
    bytes: usize,
    blocks: HashMap<BlockKey, Block>,
    /// By the time of their last use, as a count.
    order: BTreeMap<u64, BlockKey>,
    uses: u64,
    evictions: u64,
    expirations: u64,
}

struct Block {
    bytes: Bytes,
    used: u64,
    since: Instant,
}

impl MemoryBlocks {
    pub(super) fn new(high: usize, low_percent: u8, age_max: Duration) -> MemoryBlocks {
        MemoryBlocks {
            high,
            low: high / 100 * usize::from(low_percent.min(100)),
            age_max,
            bytes: 0,
            blocks: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            evictions: 0,
            expirations: 0,
        }
    }

    pub(super) fn get(&mut self, key: &BlockKey, now: Instant) -> Option<Bytes> {
        let block = self.blocks.get_mut(key)?;
        if now.saturating_duration_since(block.since) > self.age_max {
            self.expirations += 1;
            self.forget(&key.clone());
            return None;
        }
        self.uses += 1;
        if let Some(key) = self.order.remove(&block.used) {
            self.order.insert(self.uses, key);
        }
        block.used = self.uses;
        Some(block.bytes.clone())
    }

    pub(super) fn contains(&self, key: &BlockKey) -> bool {
        self.blocks.contains_key(key)
    }

    pub(super) fn put(&mut self, key: BlockKey, bytes: Bytes, since: Instant) {
        let size = bytes.len() + BLOCK_OVERHEAD;
        if size > self.low || self.blocks.contains_key(&key) {
            return;
        }
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        let block = Block {
            bytes,
            used: self.uses,
            since,
        };
        self.blocks.insert(key, block);
        self.bytes += size;
        if self.bytes > self.high {
            self.evict();
        }
    }

    /// Down to the low watermark. The block that was just used is the last to go.
    fn evict(&mut self) {
        while self.bytes > self.low {
            let Some((_, key)) = self.order.pop_first() else {
                return;
            };
            self.evictions += 1;
            self.forget(&key);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let is_old = |block: &Block| now.saturating_duration_since(block.since) > self.age_max;
        let old: Vec<BlockKey> = self
            .blocks
            .iter()
            .filter(|(_, block)| is_old(block))
            .map(|(key, _)| key.clone())
            .collect();
        self.expirations += old.len() as u64;
        old.iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: &BlockKey) {
        if let Some(block) = self.blocks.remove(key) {
            self.order.remove(&block.used);
            self.bytes -= block.bytes.len() + BLOCK_OVERHEAD;
        }
    }

    pub(super) fn status(&self, now: Instant) -> MemoryCacheStatus {
        let oldest = self.blocks.values().map(|block| block.since).min();
        MemoryCacheStatus {
            bytes: self.bytes as u64,
            blocks: self.blocks.len() as u64,
            high_bytes: self.high as u64,
            low_bytes: self.low as u64,
            oldest_ms: oldest.map(|since| now.saturating_duration_since(since).as_millis() as u64),
            hits: 0,
            evictions: self.evictions,
            expirations: self.expirations,
        }
    }
}
