use std::fmt;

use async_nats::{Auth, AuthError};
use nkeys::{KeyPair, KeyPairType};

/// Who the relay is to the server.
#[derive(Clone)]
pub(super) enum Login {
    None,
    Password {
        user: String,
        password: String,
    },
    Token(String),
    /// An nkey; with a JWT, the one that the JWT is about.
    Key {
        jwt: Option<String>,
        seed: String,
    },
}

impl Login {
    /// Reads a `.creds` file, or the seed of a user's nkey.
    pub(super) fn from_credentials(text: &str) -> Option<Self> {
        let jwt = block(text, "USER JWT").map(str::to_owned);
        let seed = block(text, "NKEY SEED").or_else(|| jwt.is_none().then_some(text.trim()))?;
        let key = KeyPair::from_seed(seed).ok()?;
        (key.key_pair_type() == KeyPairType::User).then(|| Self::Key { jwt, seed: seed.to_owned() })
    }

    /// Answers the server's challenge.
    pub(super) fn answer(self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        match self {
            Self::None => {}
            Self::Password { user, password } => {
                auth.username = Some(user);
                auth.password = Some(password);
            }
            Self::Token(token) => auth.token = Some(token),
            Self::Key { jwt, seed } => {
                let key = KeyPair::from_seed(&seed).map_err(AuthError::new)?;
                auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
                // The JWT names the key.
                auth.nkey = jwt.is_none().then(|| key.public_key());
                auth.jwt = jwt;
            }
        }
        Ok(auth)
    }
}

/// Finds the line after `-----BEGIN ... <name>-----`.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(name))?;
    lines.next()
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_a_jwt_with_its_key_or_a_key_alone() {
        let seed = KeyPair::new_user().seed().unwrap();
        let file = format!(
            "-----BEGIN NATS USER JWT-----\r\nhead.body.signature\r\n------END NATS USER JWT------\r\n\r\n\
             ************************* IMPORTANT *************************\r\n\r\n\
             -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
        );
        let Some(Login::Key { jwt, seed: found }) = Login::from_credentials(&file) else { panic!("expected a key") };
        assert_eq!((jwt.as_deref(), found.as_str()), (Some("head.body.signature"), seed.as_str()));

        let Some(login) = Login::from_credentials(&format!("{seed}\n")) else { panic!("expected a key") };
        let auth = login.answer(b"nonce").unwrap();
        assert!(auth.jwt.is_none() && auth.nkey.is_some() && auth.signature.is_some());

        let account = KeyPair::new_account().seed().unwrap();
        let jwt_alone = file.split_once("\r\n\r\n").unwrap().0;
        for wrong in ["", "SUAB", account.as_str(), jwt_alone] {
            assert!(Login::from_credentials(wrong).is_none(), "{wrong}");
        }
    }
}
