use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{StoreError, StoreErrorKind};

/// How much of the server's certificate is believed: libpq's `sslmode`, as far as it goes beyond encryption.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Verify {
    /// Encrypts, and believes any certificate (`prefer`, `require`).
    #[default]
    Nothing,
    /// The certificate must come from a trusted authority (`verify-ca`).
    Authority,
    /// And it must name the host (`verify-full`).
    Host,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) verify: Verify,
    /// Trusted authorities, PEM; those of the system without it.
    pub(super) root_cert: Option<PathBuf>,
    /// The client's own certificate and its key, PEM.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, StoreError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("cannot set up TLS").with_source(error))?;
        let verifier: Arc<dyn ServerCertVerifier> = match self.verify {
            Verify::Nothing => Arc::new(Lenient { provider, authority: None }),
            Verify::Authority => {
                let authority = Some(self.authority(provider.clone())?);
                Arc::new(Lenient { provider, authority })
            }
            Verify::Host => self.authority(provider)?,
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let Some((certificate, key)) = &self.client else {
            return Ok(MakeRustlsConnect::new(builder.with_no_client_auth()));
        };
        let chain = certificates("sslcert", certificate)?;
        let problem = || unusable(format!("sslkey: cannot read a key from {}", key.display()));
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| problem().with_source(error))?;
        let config = builder.with_client_auth_cert(chain, key);
        let config =
            config.map_err(|error| unusable("sslcert and sslkey do not belong together").with_source(error))?;
        Ok(MakeRustlsConnect::new(config))
    }

    fn authority(&self, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, StoreError> {
        let mut roots = RootCertStore::empty();
        match &self.root_cert {
            Some(path) => {
                for certificate in certificates("sslrootcert", path)? {
                    roots.add(certificate).map_err(|error| unreadable("sslrootcert", path).with_source(error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .map_err(|error| unusable("no trusted certificates; hint: set sslrootcert").with_source(error))
    }
}

fn certificates(keyword: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read = CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    read.map_err(|error| unreadable(keyword, path).with_source(error))
}

fn unreadable(keyword: &str, path: &Path) -> StoreError {
    unusable(format!("{keyword}: cannot read certificates from {}", path.display()))
}

/// Believes any certificate, or, with an authority, any that it signed, whichever host that names.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            // The name is the last thing that the authority's verifier looks at.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn unusable(problem: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Unusable, problem)
}
