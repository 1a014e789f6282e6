use std::path::PathBuf;

use super::{BusError, BusErrorKind};

/// What a TLS connection to a bus needs beyond the certificates of the operating system: PEM files, read again for each
/// new connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The authorities that are believed, instead of those of the operating system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, and those between it and its authority.
    pub cert: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// Says whether there is any: whoever names one wants TLS.
    pub fn wanted(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }

    /// Finds at the start what would otherwise fail at each connection.
    pub fn check(&self) -> Result<(), BusError> {
        let unusable = |problem| Err(BusError::new(BusErrorKind::Unavailable, problem));
        if self.cert.is_some() != self.key.is_some() {
            return unusable("client certificate: expected a certificate and its key, got only one of them".to_owned());
        }
        for file in [&self.ca, &self.cert, &self.key].into_iter().flatten() {
            if let Err(error) = std::fs::read(file) {
                return unusable(format!("cannot read {}: {error}", file.display()));
            }
        }
        Ok(())
    }
}
