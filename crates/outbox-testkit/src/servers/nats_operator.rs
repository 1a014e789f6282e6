use anyhow::Result;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// A NATS operator with one account, as `nsc` would make them: users show a JWT that the account signed.
#[derive(Debug)]
pub struct NatsOperator {
    operator: String,
    account: String,
    account_name: String,
    account_seed: String,
    system: String,
    system_name: String,
}

impl NatsOperator {
    /// Makes new keys.
    pub fn new() -> Result<Self> {
        let (operator, account, system) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let claims = json!({ "type": "operator", "version": 2 });
        let operator_jwt = sign(&operator, &operator.public_key(), "operator", &claims, None)?;
        // JetStream is off without limits; -1 is no limit.
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1
        });
        let claims = json!({ "type": "account", "version": 2, "limits": limits });
        let account_jwt = sign(&operator, &account.public_key(), "account", &claims, None)?;
        // The server talks to itself in this one, and then JetStream must be off.
        let limits = json!({ "subs": -1, "data": -1, "payload": -1, "wildcards": true, "conn": -1 });
        let claims = json!({ "type": "account", "version": 2, "limits": limits });
        let system_jwt = sign(&operator, &system.public_key(), "SYS", &claims, None)?;
        Ok(Self {
            operator: operator_jwt,
            account: account_jwt,
            account_name: account.public_key(),
            account_seed: account.seed()?,
            system: system_jwt,
            system_name: system.public_key(),
        })
    }

    /// Returns the lines of a server's configuration that make it serve this operator's accounts.
    pub fn configuration(&self) -> String {
        let Self { operator, account, account_name, system, system_name, .. } = self;
        format!(
            "operator: {operator}\nsystem_account: {system_name}\nresolver: MEMORY\n\
             resolver_preload: {{ {account_name}: {account}, {system_name}: {system} }}\n"
        )
    }

    /// Returns the text of a `.creds` file for a new user, valid until `expires` (seconds since 1970) if that is given.
    pub fn credentials(&self, expires: Option<i64>) -> Result<String> {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let jwt = sign(&KeyPair::from_seed(&self.account_seed)?, &user.public_key(), "user", &claims, expires)?;
        Ok(format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.seed()?
        ))
    }
}

fn sign(issuer: &KeyPair, subject: &str, name: &str, nats: &Value, expires: Option<i64>) -> Result<String> {
    let mut claims = json!({
        "jti": subject, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": name, "nats": nats
    });
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let body = format!("{}.{}", encode(&header), encode(&claims));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(body.as_bytes())?);
    Ok(format!("{body}.{signature}"))
}
