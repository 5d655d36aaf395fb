//! From a record's key to its partition: murmur2, as Kafka does it.
//!
//! Called by producers, sinks and repartitioning. Invariant: the same key goes to the same
//! partition as with Kafka's default partitioner, so data can move between the two.

/// The partition of `key` among `partitions` of them: `(murmur2(key) & 0x7fffffff) % n`.
/// With 0 partitions the answer is 0.
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff)
        .checked_rem(partitions)
        .unwrap_or(0)
}

/// murmur2, 32 bits, with the seed Kafka's clients use.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut h = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values Kafka tests its own murmur2 with (`testMurmur2`).
    #[test]
    fn as_kafka_hashes() {
        let golden: [(&[u8], i32); 7] = [
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58897971,
            ),
            (b"abc", 479470107),
            (b"", 275646681),
        ];
        for (key, hash) in golden {
            assert_eq!(murmur2(key) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn partition_is_in_range() {
        for n in [1u32, 2, 3, 7, 10_000] {
            for key in [&b""[..], b"a", b"21", b"foobar"] {
                assert!(partition_for_key(key, n) < n);
            }
        }
        assert_eq!(
            partition_for_key(b"foobar", 4),
            (-790332482i32 as u32 & 0x7fff_ffff) % 4
        );
        assert_eq!(partition_for_key(b"x", 0), 0);
    }
}
