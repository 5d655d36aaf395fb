//! The certificate of this server.
//!
//! What: `Identity` in `DATA_DIR/tls`: `cert.pem` and `key.pem`, made on the first start, good
//! for this machine's names; or a pair that someone put there. Called by: `node`, `Door`.
//! Invariants: the key is readable by its owner alone and never leaves the folder; TLS 1.3
//! only; no early data. Refuses: a pair of which one half is missing, a key others may read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::reset::ResetKey;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path}: {reason}")]
    Content { path: PathBuf, reason: String },
    #[error(
        "{missing} is not there but its other half is: put it back, or remove both and a new \
         pair is made"
    )]
    Half { missing: PathBuf },
    #[error("{path} may be read by others (mode {mode:o}): run `chmod 600 {path}`")]
    Open { path: PathBuf, mode: u32 },
    #[error("no certificate can be made: {0}")]
    Make(String),
}

/// Certificate chain and key of this server.
pub struct Identity {
    pub certificate_path: PathBuf,
    /// As in the file; what local clients pin.
    pub certificate_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads the pair in `dir`, or makes one.
    pub fn open(dir: &Path) -> Result<Identity, TlsError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        match (certificate.exists(), key.exists()) {
            (false, false) => make(dir, &certificate, &key)?,
            (true, true) => {}
            (false, true) => {
                return Err(TlsError::Half {
                    missing: certificate,
                });
            }
            (true, false) => return Err(TlsError::Half { missing: key }),
        }
        read(certificate, &key)
    }

    /// The same over restarts, as long as the key is.
    pub(super) fn reset_key(&self) -> ResetKey {
        ResetKey::derive(self.key.secret_der())
    }

    pub(super) fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let content = |error: rustls::Error| TlsError::Content {
            path: self.certificate_path.clone(),
            reason: error.to_string(),
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|config| {
                let config = config.with_no_client_auth();
                config.with_single_cert(self.chain.clone(), self.key.clone_key())
            })
            .map_err(content)?;
        config.alpn_protocols = vec![protocol::ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

fn read(certificate_path: PathBuf, key_path: &Path) -> Result<Identity, TlsError> {
    let file = |path: &Path, error| TlsError::File {
        path: path.to_owned(),
        error,
    };
    let content = |path: &Path, reason: String| TlsError::Content {
        path: path.to_owned(),
        reason,
    };
    let meta = fs::metadata(key_path).map_err(|error| file(key_path, error))?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TlsError::Open {
            path: key_path.to_owned(),
            mode,
        });
    }
    let certificate_pem =
        fs::read_to_string(&certificate_path).map_err(|error| file(&certificate_path, error))?;
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(&certificate_path, error.to_string()))?;
    if chain.is_empty() {
        return Err(content(
            &certificate_path,
            "there is no certificate in it".to_owned(),
        ));
    }
    let key = fs::read(key_path).map_err(|error| file(key_path, error))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| content(key_path, error.to_string()))?;
    Ok(Identity {
        certificate_path,
        certificate_pem,
        chain,
        key,
    })
}

/// A pair for this machine, signed by itself.
fn make(dir: &Path, certificate: &Path, key: &Path) -> Result<(), TlsError> {
    let failed = |error: rcgen::Error| TlsError::Make(error.to_string());
    let file = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::File { path, error }
    };
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    names.extend(host_name().filter(|name| name != "localhost"));
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "rustmq development certificate");
    let pair = KeyPair::generate().map_err(failed)?;
    let pem = params.self_signed(&pair).map_err(failed)?.pem();
    let mut folder = fs::DirBuilder::new();
    folder
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(file(dir))?;
    write(key, pair.serialize_pem().as_bytes(), 0o600).map_err(file(key))?;
    write(certificate, pem.as_bytes(), 0o644).map_err(file(certificate))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(file(dir))
}

/// Writes a file as a whole: a crash leaves the old one or the new one.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)?;
    // The umask may have taken bits away, an older draft may have had more.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// The name of this machine, where it can stand in a certificate.
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()?
        .trim()
        .to_owned();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    (!name.is_empty() && name.len() <= 253 && name.chars().all(allowed)).then_some(name)
}
