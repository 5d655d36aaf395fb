//! Telling QUIC clients of a server that crashed that their connections are gone.
//!
//! What: the keys of stateless resets (RFC 9000, 10.3), made from the server's private key, so
//! that a server started again on the same port recognises packets of connections it no longer
//! has. Without it a client notices a `kill -9` by silence only, after half a minute.
//! Called by: `quic::endpoint`. Invariants: who lacks the private key cannot make a reset; an
//! answer is smaller than what asked for it, and rate-limited by quinn.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use sha2::{Digest, Sha256};

const BLOCK_BYTES: usize = 64;
const CONNECTION_ID_BYTES: usize = 8;

/// HMAC-SHA256 (RFC 2104).
pub(super) struct ResetKey([u8; BLOCK_BYTES]);

impl ResetKey {
    pub(super) fn derive(private_key: &[u8]) -> ResetKey {
        let digest = Sha256::new()
            .chain_update(b"rustmq quic stateless reset\0")
            .chain_update(private_key)
            .finalize();
        let mut block = [0; BLOCK_BYTES];
        block[..digest.len()].copy_from_slice(&digest);
        ResetKey(block)
    }

    fn mac(&self, data: &[u8]) -> [u8; 32] {
        let inner = Sha256::new()
            .chain_update(self.0.map(|byte| byte ^ 0x36))
            .chain_update(data)
            .finalize();
        let outer = Sha256::new()
            .chain_update(self.0.map(|byte| byte ^ 0x5c))
            .chain_update(inner);
        outer.finalize().into()
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.mac(data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mac = self.mac(data);
        // No early end: how long it takes must not tell where they differ.
        let difference = mac
            .iter()
            .zip(signature)
            .fold(0, |all, (a, b)| all | (a ^ b));
        (signature.len() == mac.len() && difference == 0)
            .then_some(())
            .ok_or(CryptoError)
    }
}

/// Connection ids that nobody can guess. Ids of an earlier process are not told from made-up
/// ones: a reset of a connection that never was harms nobody.
#[derive(Default)]
pub(super) struct ConnectionIds {
    keys: RandomState,
    next: u64,
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.next += 1;
        let id = self.keys.hash_one(self.next);
        ConnectionId::new(&id.to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn mac_is_hmac_sha256() {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(b"Jefe");
        let key = ResetKey(block);
        let mac = key.mac(b"what do ya want for nothing?");
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert!(key.verify(b"what do ya want for nothing?", &mac).is_ok());
        assert!(key.verify(b"what do ya want for something?", &mac).is_err());
        assert!(
            key.verify(b"what do ya want for nothing?", &mac[..31])
                .is_err()
        );
    }
}
