//! What is read of a module's file before any of it is compiled: sections, names, what it says of itself, who
//! signed it.
//!
//! Called by `file.rs` for cargo-fuzz, and by `tests/fuzz_seeds` in every test run.
//! Invariants: the host does not panic, and what it says is bounded; what was read of a description is
//! written and read again as it was; a file that is taken can be signed, is the same module then, and no
//! byte of it can change.

use rustmq_wasm::{Description, Grants, Host, InspectError, LoadError, ModuleInfo, SigningKey};

#[path = "section.rs"]
pub mod section;

/// The section that `wit/README.md` names.
pub const DESCRIBE: &str = "rustmq:describe";
/// A component without anything.
pub const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
/// Between a description and params that are checked by it: a byte that no text has.
pub const BREAK: u8 = 0xff;
/// The most faults of params, as the host has it, and bytes of a fault beside the texts that are in it.
const FAULTS: usize = 10;
const FAULT_BYTES: usize = 4 << 10;

/// Looks at a file; answers what it is, if it is one.
pub fn file(bytes: &[u8]) -> Option<ModuleInfo> {
    let seen = Host::inspect(bytes);
    let admitted = Host::check(bytes, &Grants::http());
    let info = match seen {
        Ok(info) => info,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(admitted, Err(LoadError::Inspect(error)));
            return None;
        }
    };
    assert_eq!(info.size, bytes.len());
    serde_json::to_string(&info).expect("`module inspect` can show it");
    match &admitted {
        Ok(same) => assert_eq!(*same, info),
        Err(LoadError::Inspect(error)) => panic!("{error}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    signed(bytes, &info);
    Some(info)
}

/// The file, signed; and changed in one place after that.
fn signed(bytes: &[u8], info: &ModuleInfo) {
    const SECRET: &str = "rustmq-secret-ed25519:";
    let key = SigningKey::parse(&format!("{SECRET}{}", "07".repeat(32))).expect("a key");
    let mut signed = bytes.to_vec();
    if let Err(error) = key.sign(&mut signed) {
        // what is told as it is, without its signatures, or has as many as fit
        assert!(
            !info.grants_needed.is_empty() || error.contains("no more fit"),
            "{error}"
        );
        return;
    }
    let again = Host::inspect(&signed).expect("it is what it was");
    let mut signers = info.signers.clone();
    signers.push(key.public());
    signers.sort();
    signers.dedup();
    assert_eq!(again.imports, info.imports);
    assert_eq!(again.describe, info.describe);
    if again.signers.is_empty() {
        // refused for its imports before signatures are looked at
        assert!(!info.grants_needed.is_empty());
        return;
    }
    assert_eq!(again.signers, signers);
    let sum: usize = bytes.iter().map(|byte| usize::from(*byte)).sum();
    let at = 8 + sum % bytes.len().saturating_sub(8).max(1);
    if at < bytes.len() {
        signed[at] ^= 1;
        let changed = Host::inspect(&signed).map(|info| info.signers);
        assert!(!changed.is_ok_and(|signers| signers.contains(&key.public())));
    }
}

/// Takes the bytes for a module's description, and those behind [`BREAK`] for a node's params; answers
/// whether it is one, and whether they fit.
pub fn described(data: &[u8]) -> Option<bool> {
    let (text, params) = match data.iter().position(|byte| *byte == BREAK) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"{}"[..]),
    };
    let mut component = EMPTY.to_vec();
    section::append(&mut component, DESCRIBE, text);
    let description = match Host::inspect(&component) {
        Ok(info) => info.describe.expect("it is there"),
        Err(error) => {
            assert!(matches!(error, InspectError::Describe(_)), "{error}");
            return None;
        }
    };
    let mut again = EMPTY.to_vec();
    description.append_to(&mut again);
    let read = Host::inspect(&again).expect("what was written can be read");
    assert_eq!(read.describe.as_ref(), Some(&description));
    description.append_to(&mut again);
    let twice = Host::inspect(&again).expect_err("two of them");
    assert!(matches!(twice, InspectError::Describe(_)), "{twice}");
    Some(params_fit(
        &description,
        text.len(),
        &String::from_utf8_lossy(params),
    ))
}

/// Whether params are what the module takes; what is told of them is bounded by the texts that it is about.
fn params_fit(description: &Description, text: usize, params: &str) -> bool {
    let Err(faults) = description.check_params(params) else {
        return true;
    };
    assert!(
        faults.starts_with("params") || faults.starts_with("not JSON"),
        "{faults}"
    );
    // a text is longer where it is written with escapes
    let most = FAULTS * (6 * (text + params.len()) + FAULT_BYTES);
    assert!(
        faults.len() <= most,
        "{} bytes of faults: {faults:.200}",
        faults.len()
    );
    false
}
