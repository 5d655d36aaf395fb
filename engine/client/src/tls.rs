//! Whom the client trusts.
//!
//! What: TLS 1.3 client configuration from a `Trust`. Called by: `link`.
//! Invariants: `Pinned` accepts exactly one certificate, whatever names it carries; `Ca` checks
//! the chain and the name as usual. There is no way to trust everybody.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::error::ConnectError;

#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// This certificate and no other: it came from the state folder.
    Pinned(CertificateDer<'static>),
    /// Whatever these roots vouch for, under the right name.
    Ca(Vec<CertificateDer<'static>>),
}

impl Trust {
    pub(crate) fn ca_file(path: &Path) -> Result<Trust, ConnectError> {
        let broken = |reason: String| ConnectError::CaFile {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
        let roots = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| broken(error.to_string()))?;
        match roots.is_empty() {
            true => Err(broken("there is no PEM certificate in it".to_owned())),
            false => Ok(Trust::Ca(roots)),
        }
    }

    pub(crate) fn pinned(pem: &str, path: &Path) -> Result<Trust, ConnectError> {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map(Trust::Pinned)
            .map_err(|error| ConnectError::StateFile {
                path: path.to_owned(),
                reason: error.to_string(),
            })
    }

    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = match self {
            Trust::Pinned(certificate) => {
                let pin = Pin {
                    certificate: certificate.clone(),
                    provider,
                };
                let verifiers = versions.dangerous();
                verifiers
                    .with_custom_certificate_verifier(Arc::new(pin))
                    .with_no_client_auth()
            }
            Trust::Ca(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate.clone())?;
                }
                versions.with_root_certificates(roots).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![protocol::ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Accepts one certificate, byte for byte, from whoever proves to hold its key.
#[derive(Debug)]
struct Pin {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.as_ref() == self.certificate.as_ref() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
