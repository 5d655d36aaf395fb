//! Who vouches for a module: Ed25519 signatures in custom sections at its end.
//!
//! A section `rustmq:signature` holds the public key (32 bytes) and the signature (64 bytes) of a tag and
//! the SHA-256 of all that stands before the first such section. So a signed file is one file, several may
//! sign it, and none of them signs another's signature.
//!
//! Called by: `check` (reads them), `host` (trust), server (`module keygen`, `module sign`, the config).
//! Invariants: a signature that does not fit refuses the file, whatever is trusted; nothing after a
//! signature counts as signed, because nothing but signatures may stand there.
//! Refuses: keys that are not written as this file writes them.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::section;

/// Name of the section.
pub const SECTION: &str = "rustmq:signature";
/// What is signed begins so: a signature for something else is none for a module.
const TAG: &[u8] = b"rustmq module, signed by its publisher, form 1\n";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// How a public key is written, before its hexadecimal digits.
const PUBLIC: &str = "ed25519:";
/// The same of a secret one.
const SECRET: &str = "rustmq-secret-ed25519:";
/// Most signatures of a file.
const SIGNATURES_MAX: usize = 16;

/// A publisher's public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", hex(&self.0))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicKey, String> {
        let wrong =
            || format!("`{text}` is no public key; it looks like {PUBLIC} and 64 digits, 0 to f");
        let digits = text.trim().strip_prefix(PUBLIC).ok_or_else(wrong)?;
        unhex(digits).map(PublicKey).ok_or_else(wrong)
    }
}

/// A publisher's secret key.
pub struct SigningKey {
    seed: [u8; KEY_BYTES],
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// A new one, of the system's randomness.
    ///
    /// # Errors
    /// The system gives none.
    pub fn generate() -> Result<SigningKey, String> {
        let mut seed = [0; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        SigningKey::of(seed)
    }

    fn of(seed: [u8; KEY_BYTES]) -> Result<SigningKey, String> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| e.to_string())?;
        Ok(SigningKey { seed, pair })
    }

    /// From the text of [`SigningKey::secret`].
    ///
    /// # Errors
    /// It is not such a text; it is not repeated in the message.
    pub fn parse(text: &str) -> Result<SigningKey, String> {
        let digits = text.trim().strip_prefix(SECRET).and_then(unhex);
        let seed = digits.ok_or(
            "it is no secret key made by `rustmq module keygen`; give the file that it wrote",
        )?;
        SigningKey::of(seed)
    }

    /// The text to keep secret.
    pub fn secret(&self) -> String {
        format!("{SECRET}{}\n", hex(&self.seed))
    }

    pub fn public(&self) -> PublicKey {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Appends a signature to a module.
    ///
    /// # Errors
    /// The file is no WebAssembly, has too many signatures, or one that does not fit.
    pub fn sign(&self, file: &mut Vec<u8>) -> Result<(), String> {
        if signers(file)?.len() == SIGNATURES_MAX {
            return Err(format!(
                "it has {SIGNATURES_MAX} signatures, and no more fit"
            ));
        }
        let signature = self.pair.sign(&message(split(file)?.0));
        let content = [&self.public().0[..], signature.as_ref()].concat();
        section::append(file, SECTION, &content);
        Ok(())
    }
}

/// Whose modules a host takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    pub keys: Vec<PublicKey>,
    /// Modules that none of them signed are refused; else they are only logged, if there are keys.
    pub required: bool,
}

/// The keys that signed a file.
pub(crate) fn signers(file: &[u8]) -> Result<Vec<PublicKey>, String> {
    let (content, signatures) = split(file)?;
    if signatures.is_empty() {
        return Ok(Vec::new());
    }
    if signatures.len() > SIGNATURES_MAX {
        return Err(format!("it has more than {SIGNATURES_MAX} signatures"));
    }
    let message = message(content);
    let mut keys = Vec::new();
    for signature in signatures {
        let Some((key, signature)) = signature.split_first_chunk::<KEY_BYTES>() else {
            return Err("a signature is too short".to_owned());
        };
        let public = PublicKey(*key);
        if signature.len() != SIGNATURE_BYTES {
            return Err(format!("the signature of {public} has a wrong length"));
        }
        let verified = UnparsedPublicKey::new(&ED25519, key).verify(&message, signature);
        if verified.is_err() {
            return Err(format!(
                "the signature of {public} does not fit: the file was changed"
            ));
        }
        keys.push(public);
    }
    keys.sort();
    keys.dedup();
    Ok(keys)
}

fn message(content: &[u8]) -> Vec<u8> {
    [TAG, Sha256::digest(content).as_slice()].concat()
}

/// What is signed, and the contents of the sections behind it.
fn split(file: &[u8]) -> Result<(&[u8], Vec<&[u8]>), String> {
    let mut signatures = Vec::new();
    let mut end = file.len();
    for found in section::walk(file)? {
        match found.custom(SECTION) {
            Some(content) => {
                end = end.min(found.start);
                signatures.push(content);
            }
            None if !signatures.is_empty() => {
                return Err("something was added behind a signature".to_owned());
            }
            None => {}
        }
    }
    Ok((&file[..end], signatures))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(digits: &str) -> Option<[u8; KEY_BYTES]> {
    if digits.len() != 2 * KEY_BYTES || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::of([byte; KEY_BYTES]).expect("any seed is a key")
    }

    fn module() -> Vec<u8> {
        wat::parse_str("(component (core module (func (export \"f\"))))").expect("valid")
    }

    #[test]
    fn several_may_sign_and_each_is_found() {
        let mut file = module();
        assert_eq!(signers(&file), Ok(Vec::new()));
        let plain = file.clone();
        for byte in [1, 2, 1] {
            key(byte).sign(&mut file).expect("it signs");
        }
        let mut both = [key(1).public(), key(2).public()];
        both.sort();
        assert_eq!(signers(&file), Ok(both.to_vec()));
        assert!(file.starts_with(&plain));
        wasmparser::Validator::new()
            .validate_all(&file)
            .expect("still a component");
    }

    #[test]
    fn every_changed_byte_is_found() {
        let mut file = module();
        key(7).sign(&mut file).expect("it signs");
        for at in 8..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let found = signers(&changed);
            assert_ne!(found, Ok(vec![key(7).public()]), "byte {at}");
        }
        let mut longer = file.clone();
        section::append(&mut longer, "more", b"code");
        assert!(signers(&longer).is_err_and(|e| e.contains("behind a signature")));
        let half = &file[..file.len() - 1];
        assert!(signers(half).is_err());
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = key(9);
        let again = SigningKey::parse(&key.secret()).expect("it is one");
        assert_eq!(again.public(), key.public());
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        for wrong in ["", "ed25519:", "ed25519:zz", &key.secret(), "ed25519:é"] {
            let error = wrong.parse::<PublicKey>().expect_err("it is refused");
            assert!(error.contains("is no public key"), "{error}");
        }
        let error = SigningKey::parse(&key.public().to_string()).err();
        assert!(error.is_some_and(|e| !e.contains(&hex(&key.public().0))));
    }
}
