//! A plain quinn stream inside this process: what moving the same bytes costs without us.
//!
//! Called by: `fetch`. TLS 1.3 with a certificate made for the run, default transport settings,
//! one stream, writes of `CHUNK_BYTES`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::rig::Result;

/// Bytes of one write.
pub const CHUNK_BYTES: usize = 256 << 10;

/// A connection between two endpoints of this process.
pub struct PlainQuic {
    here: quinn::Connection,
    there: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

impl PlainQuic {
    pub async fn connect() -> Result<PlainQuic> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()])?;
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())?;
        let server = QuicServerConfig::try_from(server)?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = quinn::ServerConfig::with_crypto(Arc::new(server));
        let listening = quinn::Endpoint::server(server, any)?;

        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate)?;
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        let dialing = quinn::Endpoint::client(any)?;
        let dial = dialing.connect_with(client, listening.local_addr()?, "localhost")?;
        let accept = async {
            Ok(listening
                .accept()
                .await
                .ok_or("no connection came")?
                .await?)
        };
        let (here, there): (_, Result<quinn::Connection>) = tokio::join!(dial, accept);
        Ok(PlainQuic {
            here: here?,
            there: there?,
            _endpoints: [listening, dialing],
        })
    }

    /// Sends `bytes` zeros over a new stream and takes how long it was until all had arrived.
    pub async fn transfer(&self, bytes: u64) -> Result<Duration> {
        let begun = Instant::now();
        let there = self.there.clone();
        let sending = tokio::spawn(async move {
            let mut stream = there.open_uni().await?;
            let chunk = Bytes::from(vec![0u8; CHUNK_BYTES]);
            let mut left = bytes;
            while left > 0 {
                let now = (left as usize).min(CHUNK_BYTES);
                stream.write_chunk(chunk.slice(..now)).await?;
                left -= now as u64;
            }
            stream.finish()?;
            Result::Ok(())
        });
        let mut stream = self.here.accept_uni().await?;
        let mut got = 0;
        while let Some(chunk) = stream.read_chunk(CHUNK_BYTES, true).await? {
            got += chunk.bytes.len() as u64;
        }
        sending.await??;
        if got != bytes {
            return Err(format!("{got} of {bytes} bytes arrived").into());
        }
        Ok(begun.elapsed())
    }
}
