use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio_postgres::Config;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::dsn::DsnError;
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

/// Which versions of TLS may be spoken; those before 1.2 never are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum TlsVersions {
    #[default]
    Both,
    Only12,
    Only13,
}

impl TlsVersions {
    /// Reads `ssl_min_protocol_version` and `ssl_max_protocol_version`.
    pub(super) fn of(min: Option<String>, max: Option<String>) -> Result<Self, DsnError> {
        let from_13 = match min.as_deref().unwrap_or_default() {
            "" | "TLSv1" | "TLSv1.1" | "TLSv1.2" => false,
            "TLSv1.3" => true,
            _ => return Err(DsnError::Value { keyword: "ssl_min_protocol_version", expected: "TLSv1.2 or TLSv1.3" }),
        };
        match (from_13, max.as_deref().unwrap_or_default()) {
            (false, "" | "TLSv1.3") => Ok(Self::Both),
            (true, "" | "TLSv1.3") => Ok(Self::Only13),
            (false, "TLSv1.2") => Ok(Self::Only12),
            _ => {
                let expected = "TLSv1.2 or TLSv1.3, and no less than the least";
                Err(DsnError::Value { keyword: "ssl_max_protocol_version", expected })
            }
        }
    }

    fn allowed(self) -> &'static [&'static SupportedProtocolVersion] {
        static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
        static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];
        match self {
            Self::Both => rustls::DEFAULT_VERSIONS,
            Self::Only12 => &ONLY_12,
            Self::Only13 => &ONLY_13,
        }
    }
}

/// What a client says at once that speaks PostgreSQL inside TLS without asking for it first.
const ALPN: &[u8] = b"postgresql";

#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) verify: Verify,
    /// Trusted authorities, PEM; those of the system without it.
    pub(super) root_cert: Option<PathBuf>,
    /// The client's own certificate and its key, PEM.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    pub(super) versions: TlsVersions,
}

impl Tls {
    /// Prepares TLS as `session` negotiates it.
    pub(super) fn connector(&self, session: &Config) -> Result<MakeRustlsConnect, StoreError> {
        let mut config = self.client_config()?;
        if session.get_ssl_negotiation() == SslNegotiation::Direct {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    fn client_config(&self) -> Result<ClientConfig, StoreError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions.allowed())
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
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("sslcert", certificate)?;
        let problem = || unusable(format!("sslkey: cannot read a key from {}", key.display()));
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| problem().with_source(error))?;
        let config = builder.with_client_auth_cert(chain, key);
        config.map_err(|error| unusable("sslcert and sslkey do not belong together").with_source(error))
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
