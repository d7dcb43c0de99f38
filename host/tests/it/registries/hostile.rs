//! Registries that lie, refuse, send on, or never end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use wasmbay::manifest::Digest;

use super::{letter, logged_in, refused};
use crate::support::cli::Cli;
use crate::support::registry::{Answer, Asked, answering};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A manifest of a layer of this digest and size.
fn manifest_of(digest: &str, size: usize) -> Vec<u8> {
    let layer = json!({ "mediaType": "application/wasm", "digest": digest, "size": size });
    let empty = json!({ "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest, "size": size });
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [layer] });
    manifest.to_string().into_bytes()
}

/// The manifest of the guest with this letter.
fn manifest(character: char) -> Vec<u8> {
    let bytes = letter(character);
    manifest_of(&format!("sha256:{}", Digest::of(&bytes)), bytes.len())
}

/// The usual answers, with the blob of this letter.
fn usual(asked: &Asked, character: char) -> Answer {
    if asked.path.contains("/manifests/1") {
        Answer::of(200, manifest('a')).with("Content-Type", MANIFEST)
    } else if asked.path.contains("/blobs/") {
        Answer::of(200, letter(character))
    } else {
        Answer::of(404, "")
    }
}

/// Pulls from what answers so; fails and says this.
#[track_caller]
fn refused_by(code: u8, said: &[&str], answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
    let cli = Cli::new();
    let address = answering(answer);
    refused(&cli, &["pull", &format!("{address}/guest:1")], code, said);
    assert!(!cli.path("guest.wasm").exists());
    // Nothing of it is kept, under whatever name.
    let cache = cli.path(".cache/wasmbay/registry");
    let kept = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let kept: Vec<_> = kept.map(|file| file.file_name()).collect();
    assert!(
        kept.iter()
            .all(|name| name.to_str().unwrap().ends_with(".json")),
        "{kept:?}"
    );
}

#[test]
fn other_bytes_than_the_digest_says_are_refused() {
    let got = format!("their digest is sha256:{}", Digest::of(&letter('b')));
    refused_by(1, &["sends other bytes for", &got], |asked| {
        usual(asked, 'b')
    });
    // A pinned manifest that is another one.
    let cli = Cli::new();
    let address = answering(|asked| {
        let is_manifest = asked.path.contains("/manifests/");
        if is_manifest {
            Answer::of(200, manifest('a'))
        } else {
            usual(asked, 'a')
        }
    });
    let pinned = format!("{address}/guest@sha256:{}", Digest::of(&manifest('b')));
    let got = format!("their digest is sha256:{}", Digest::of(&manifest('a')));
    refused(
        &cli,
        &["pull", &pinned],
        1,
        &["sends other bytes for guest@sha256:", &got],
    );
}

#[test]
fn what_never_ends_is_not_read_to_its_end() {
    let zeros = || Answer::of(200, vec![b' '; 64 << 10]).endless();
    let size = letter('a').len();
    refused_by(
        1,
        &[
            "guest:1 from 127.0.0.1",
            &format!("has more than {size} bytes"),
        ],
        move |asked| {
            if asked.path.contains("/blobs/") {
                zeros()
            } else {
                usual(asked, 'a')
            }
        },
    );
    refused_by(1, &["has more than 4194304 bytes"], move |asked| {
        if asked.path.contains("/manifests/") {
            zeros()
        } else {
            usual(asked, 'a')
        }
    });
    // It says so before.
    refused_by(
        78,
        &["268435457 bytes are more than a component may have"],
        |asked| {
            let large = manifest_of(&format!("sha256:{}", Digest::of(b"")), (256 << 20) + 1);
            if asked.path.contains("/manifests/") {
                Answer::of(200, large)
            } else {
                usual(asked, 'a')
            }
        },
    );
    // What an error says ends as well.
    refused_by(1, &["answers 500 for guest:1"], move |asked| {
        if asked.path.contains("/manifests/") {
            Answer {
                status: 500,
                ..zeros()
            }
        } else {
            usual(asked, 'a')
        }
    });
    // It ends too early.
    refused_by(1, &["cannot reach 127.0.0.1"], |asked| {
        match asked.path.contains("/blobs/") {
            true => Answer::of(200, &letter('a')[..9])
                .with("Content-Length", letter('a').len().to_string()),
            false => usual(asked, 'a'),
        }
    });
}

#[test]
fn what_is_no_component_is_named() {
    let image = "application/vnd.oci.image.config.v1+json";
    let tar = json!([{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:0", "size": 1 }]);
    let config = json!({ "mediaType": image, "digest": "sha256:0", "size": 1 });
    for (body, said) in [
        (
            json!({ "schemaVersion": 2, "config": config, "layers": tar }).to_string(),
            "it is a container image",
        ),
        (
            json!({ "schemaVersion": 2, "manifests": [] }).to_string(),
            "it is an index of several manifests",
        ),
        ("<html>sign in</html>".to_owned(), "no manifest"),
    ] {
        refused_by(78, &["guest:1 is no component", said], move |_| {
            Answer::of(200, body.clone())
        });
    }
    refused_by(78, &["it is not WebAssembly in binary form"], |asked| {
        let digest = format!("sha256:{}", Digest::of(b"<html></html>"));
        if asked.path.contains("/manifests/1") {
            Answer::of(200, manifest_of(&digest, 13))
        } else {
            Answer::of(200, "<html></html>").with("Content-Type", "text/html")
        }
    });
}

#[test]
fn refusals_are_told_with_what_helps() {
    for (status, headers, body, said) in [
        (
            403,
            None,
            json!({"errors":[{"code":"DENIED","message":"not\u{1b}[2Jyours"}]}),
            vec![
                "refuses to have guest pulled: not\\u{1b}[2Jyours",
                "hint: `docker login",
            ],
        ),
        (
            404,
            None,
            json!({}),
            vec!["there is no guest:1 in 127.0.0.1", "hint: "],
        ),
        (
            429,
            Some("7"),
            json!({}),
            vec!["takes no more requests for guest for 7 s", "counted apart"],
        ),
        (
            429,
            None,
            json!([]),
            vec!["takes no more requests for guest for a while"],
        ),
        (
            503,
            None,
            json!({"errors":[{"code":"UNAVAILABLE"}]}),
            vec!["answers 503 for guest:1: UNAVAILABLE"],
        ),
        (
            401,
            None,
            json!({}),
            vec!["wants a login for guest", "hint: `docker login 127.0.0.1"],
        ),
        (204, None, json!({}), vec!["answers 204 for guest:1"]),
    ] {
        refused_by(1, &said, move |_| {
            let answer = Answer::of(
                status,
                if status == 204 {
                    String::new()
                } else {
                    body.to_string()
                },
            );
            match headers {
                Some(after) => answer.with("Retry-After", after),
                None => answer,
            }
        });
    }
}

#[test]
fn a_request_is_sent_on_a_few_times_and_nowhere_in_the_clear() {
    // Blobs are often elsewhere, where a login has no business.
    let cli = Cli::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let elsewhere = answering(move |asked| {
        let login = asked.header("authorization").map(str::to_owned);
        told.lock().unwrap().push(login);
        Answer::of(200, letter('a'))
    });
    let address = answering(move |asked| {
        if asked.header("authorization").is_none() {
            return Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match asked.path.contains("/blobs/") {
            true => Answer::of(307, "").with("Location", format!("http://{elsewhere}/signed?x=1")),
            false => usual(asked, 'a'),
        }
    });
    logged_in(&cli, &address.to_string(), "secret");
    super::done(&cli, &["pull", &format!("{address}/guest:1")]);
    assert_eq!(*seen.lock().unwrap(), [None]);

    let to = |location: &'static str| {
        move |asked: &Asked| match asked.path.contains("/manifests/") {
            true => Answer::of(302, "").with("Location", location),
            false => Answer::of(404, ""),
        }
    };
    refused_by(
        1,
        &["registry.example is reached without TLS only where"],
        to("http://registry.example/x"),
    );
    refused_by(
        1,
        &["with more than 5 other places"],
        to("/v2/guest/manifests/1"),
    );
    refused_by(1, &["with no place to go on to"], to("http://["));
    refused_by(1, &["with no place to go on to"], to("file:///etc/passwd"));
}

/// A registry whose tokens come from elsewhere.
fn with_tokens(
    issue: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (SocketAddr, SocketAddr) {
    let issuer = answering(issue);
    let registry = answering(move |asked| {
        if asked.header("authorization") == Some("Bearer good") {
            return usual(asked, 'a');
        }
        let challenge = format!(
            "Bearer realm=\"http://{issuer}/token\",service=\"test\",scope=\"repository:guest:pull\""
        );
        Answer::of(401, "").with("WWW-Authenticate", challenge)
    });
    (registry, issuer)
}

#[test]
fn tokens_are_fetched_where_a_registry_says() {
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_for);
    let (registry, _) = with_tokens(move |asked| {
        count.fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            asked.path,
            "/token?scope=repository%3Aguest%3Apull&service=test"
        );
        assert_eq!(asked.header("authorization"), None);
        Answer::of(200, json!({ "token": "good" }).to_string())
    });
    let cli = Cli::new();
    super::done(&cli, &["pull", &format!("{registry}/guest:1")]);
    assert_eq!(asked_for.load(Ordering::Relaxed), 1);

    // With a login, as a password or as a token that is exchanged.
    let (registry, _) = with_tokens(|asked| match asked.header("authorization") {
        Some("Basic c2hvcDpzZWNyZXQ=") => {
            Answer::of(200, json!({ "access_token": "good" }).to_string())
        }
        _ => Answer::of(401, ""),
    });
    let name = format!("{registry}/guest:1");
    refused(
        &cli,
        &["pull", &name, "-o", "x.wasm"],
        1,
        &["wants a login for guest"],
    );
    logged_in(&cli, &registry.to_string(), "wrong");
    refused(
        &cli,
        &["pull", &name, "-o", "x.wasm"],
        1,
        &["wants another login for guest"],
    );
    logged_in(&cli, &registry.to_string(), "secret");
    super::done(&cli, &["pull", &name, "-o", "x.wasm"]);
    let (registry, _) = with_tokens(|asked| {
        let form = String::from_utf8(asked.body.clone()).unwrap();
        let is_right = asked.method == "POST"
            && form.contains("grant_type=refresh_token")
            && form.ends_with("&refresh_token=r");
        Answer::of(
            if is_right { 200 } else { 400 },
            json!({ "access_token": "good" }).to_string(),
        )
    });
    cli.write(
        ".docker/config.json",
        json!({ "auths": { registry.to_string(): { "identitytoken": "r" } } }).to_string(),
    );
    super::done(
        &cli,
        &["pull", &format!("{registry}/guest:1"), "-o", "x.wasm"],
    );
}

#[test]
fn tokens_that_are_none_are_no_end_of_the_program() {
    let large = Answer::of(200, vec![b' '; 64 << 10]).endless();
    for (answer, said) in [
        (
            Answer::of(200, json!({ "token": "a\r\nX: y" }).to_string()),
            "answers for a token for guest with something else",
        ),
        (
            Answer::of(200, "[]"),
            "answers for a token for guest with something else",
        ),
        (Answer::of(500, ""), "answers 500 for a token for guest"),
        (large, "a token for guest from 127.0.0.1"),
    ] {
        let is_asked = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_asked);
        let (registry, _) = with_tokens(move |_| {
            asked.store(true, Ordering::Relaxed);
            let (status, body, endless) = (answer.status, answer.body.clone(), answer.endless);
            Answer {
                endless,
                ..Answer::of(status, body)
            }
        });
        refused(
            &Cli::new(),
            &["pull", &format!("{registry}/guest:1")],
            1,
            &[said],
        );
        assert!(is_asked.load(Ordering::Relaxed));
    }
    // Nobody else's host in the clear, whatever a registry says.
    let registry = answering(|_| {
        Answer::of(401, "").with(
            "WWW-Authenticate",
            "Bearer realm=\"http://tokens.example/\"",
        )
    });
    let said = "tokens.example is reached without TLS only where";
    refused(
        &Cli::new(),
        &["pull", &format!("{registry}/guest:1")],
        1,
        &[said],
    );
}

#[test]
fn without_tls_is_only_where_that_is_asked_for() {
    let cli = Cli::new();
    let address = answering(|asked| usual(asked, 'a'));
    // Another spelling of this machine, which is taken for another one.
    let host = format!("127.1:{}", address.port());
    let name = format!("{host}/guest:1");
    let said = [
        "cannot reach",
        "hint: it answers without TLS: `--insecure-registry",
    ];
    refused(&cli, &["pull", &name], 1, &said);
    super::done(&cli, &["pull", &name, "--insecure-registry", &host]);
    let mut pull = cli.command(&["pull", &name]);
    let hosts = format!("other.example,{host}");
    let output = pull.env("WASMBAY_INSECURE_REGISTRIES", hosts).output();
    assert!(output.unwrap().status.success());
}

#[test]
fn a_proxy_is_asked_for_registries_elsewhere() {
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked_for);
    let proxy = answering(move |asked| {
        let line = format!("{} {}", asked.method, asked.path);
        told.lock().unwrap().push(line);
        Answer::of(403, "")
    });
    let cli = Cli::new();
    let mut pull = cli.command(&["pull", "registry.example/guest:1"]);
    let output = pull.env("HTTPS_PROXY", format!("http://{proxy}")).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("caused by: the proxy 127.0.0.1: "), "{said}");
    assert_eq!(*asked_for.lock().unwrap(), ["CONNECT registry.example:443"]);
}
