//! A certificate authority of a test's own, and everything that can be wrong with a certificate.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::TempDir;

/// What a server's certificate is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quality {
    /// It names `localhost` and 127.0.0.1, and is valid.
    Good,
    /// It was valid once.
    Expired,
    /// It names another host.
    WrongName,
    /// Another authority signed it.
    UnknownAuthority,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// An authority whose files go when it is dropped.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let folder = TempDir::with_prefix("outbox-authority-")?;
        // Servers that run as another user read it as well.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))?;
        let mut params = CertificateParams::default();
        // Another authority has another name; one that only had another key would be found out by its signature.
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key)?.pem())?;
        Ok(Self { folder, issuer: Issuer::new(params, key) })
    }

    /// Returns the file with its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Makes a certificate for a server.
    pub fn server(&self, quality: Quality) -> Result<Certificate> {
        let names: &[&str] = match quality {
            Quality::WrongName => &["elsewhere.example"],
            _ => &["localhost", "127.0.0.1"],
        };
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if quality == Quality::Expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        match quality {
            Quality::UnknownAuthority => write(self.folder.path(), "server", &params, &Self::new()?.issuer),
            _ => write(self.folder.path(), "server", &params, &self.issuer),
        }
    }

    /// Makes a certificate for a client whose name is `name`.
    pub fn client(&self, name: &str) -> Result<Certificate> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        write(self.folder.path(), "client", &params, &self.issuer)
    }
}

fn write(
    folder: &Path,
    name: &str,
    params: &CertificateParams,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<Certificate> {
    let pair = KeyPair::generate()?;
    let files = Certificate { cert: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
    std::fs::write(&files.cert, params.signed_by(&pair, issuer)?.pem())?;
    std::fs::write(&files.key, pair.serialize_pem())?;
    std::fs::set_permissions(&files.key, PermissionsExt::from_mode(0o600))?;
    Ok(files)
}
