//! Credentials files: a JWT and a seed, on a server whose operator signed the account.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::*;
use crate::support::nats::Configured;

/// A JWT of NATS, signed by this key.
fn jwt(signer: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> String {
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = encode(json!({
        "jti": "x",
        "iat": 1_700_000_000,
        "iss": signer.public_key(),
        "sub": subject.public_key(),
        "name": name,
        "nats": nats,
    }));
    let signed = format!("{header}.{claims}");
    let signature = signer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn credentials(jwt: &str, user: &KeyPair) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    )
}

#[tokio::test]
async fn a_credentials_file_logs_in_and_is_read_anew_at_each_connection() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let of_operator = jwt(
        &operator,
        &operator,
        "operator",
        json!({ "type": "operator", "version": 2 }),
    );
    let of_account = jwt(
        &operator,
        &account,
        "account",
        json!({ "type": "account", "version": 2, "limits": limits }),
    );
    let lines = format!(
        "operator: \"{of_operator}\"\nresolver: MEMORY\nresolver_preload: {{ {}: \"{of_account}\" }}\n",
        account.public_key()
    );
    let server = Configured::start_core(&lines).await;
    let user = |name: &str| {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        credentials(&jwt(&account, &user, name, claims), &user)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user.creds");
    std::fs::write(&path, user("first")).unwrap();
    let options = ConnectOptions {
        credentials: Some(path.clone()),
        ..ConnectOptions::to(server.url())
    };
    let link = options.link().await.unwrap();
    link.settled().await.unwrap();
    settled(&options.connect().await.unwrap()).await.unwrap();

    // Of an account that the server does not know: the file that is there now is the one that counts.
    let (other, stranger) = (KeyPair::new_account(), KeyPair::new_user());
    let claims = json!({ "type": "user", "version": 2 });
    let strange = credentials(&jwt(&other, &stranger, "stranger", claims), &stranger);
    std::fs::write(&path, strange).unwrap();
    let error = options.link().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unauthorized { .. }),
        "{error:?}"
    );
}
