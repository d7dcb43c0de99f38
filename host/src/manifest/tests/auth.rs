//! Who may call.

use std::path::Path;

use super::{accepted, problem};
use crate::manifest::{Auth, JwksSource, Manifest, ManifestError};

const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fn jwt(jwks: &str) -> String {
    format!("[gateway.auth.jwt]\nissuer = 'https://id.example'\njwks = '{jwks}'\n")
}

fn key() -> String {
    format!("[gateway.auth.key.till]\nsha256 = '{DIGEST}'\n")
}

fn route(lines: &str) -> String {
    format!("[[route]]\nmethod = 'GET'\npath = '/a'\ncall = 'a:b/c.d'\n{lines}\n")
}

#[test]
fn nothing_is_asked_for_unless_it_is_said() {
    let app = accepted(&route(""));
    assert_eq!((app.gateway.auth, app.routes[0].auth), (None, None));
    let app =
        accepted(&(jwt("https://id.example/keys") + &route("auth = 'jwt'\nscopes = ['a:b']")));
    let auth = app.gateway.auth.unwrap();
    assert_eq!(
        (auth.default, app.routes[0].auth),
        (Auth::None, Some(Auth::Jwt))
    );
    assert_eq!(app.routes[0].scopes, ["a:b"]);
    let jwt = auth.jwt.unwrap();
    assert_eq!(jwt.algorithms, ["RS256", "ES256", "EdDSA"]);
    assert_eq!((jwt.skew.as_secs(), jwt.refresh.as_secs()), (30, 600));
    assert_eq!(jwt.scope_claim, "scope");
    let app = accepted(&(key() + "scopes = ['x']\n"));
    assert_eq!(app.gateway.auth.unwrap().keys["till"].scopes, ["x"]);
}

#[test]
fn what_is_asked_for_has_to_be_known() {
    for (lines, why) in [
        (
            "[gateway.auth]\ndefault = 'jwt'\n".to_owned(),
            "5:1: gateway: auth: `default` takes tokens, and `[gateway.auth.jwt]` does not say which",
        ),
        (
            "[gateway.auth]\ndefault = 'any'\n".to_owned() + &jwt("https://a"),
            "5:1: gateway: auth: `default` takes keys, and there are none; add `[gateway.auth.key.NAME]` or `key-file`",
        ),
        (
            "[gateway.auth]\ndefault = 'basic'\n".to_owned(),
            "5:11: gateway: auth: `default` is 'basic'; accepted: none, jwt, key, any, cert",
        ),
        (
            route("auth = 'jwt'"),
            "8:1: route \"GET /a\": `auth` needs `[gateway.auth]`, which says how clients are known",
        ),
        (
            route("auth = 'key'") + &jwt("https://a"),
            "8:1: route \"GET /a\": `auth` takes keys, and there are none; add `[gateway.auth.key.NAME]` or `key-file`",
        ),
        (
            route("scopes = ['a']") + &key(),
            "8:1: route \"GET /a\": `scopes` are those of a token or key, and the route asks for neither: say `auth = \"jwt\"` or `\"key\"`",
        ),
        (
            route("auth = 'cert'\nscopes = ['a']") + &key(),
            "9:1: route \"GET /a\": `scopes` are those of a token or key, and the route asks for neither: say `auth = \"jwt\"` or `\"key\"`",
        ),
        (
            route("auth = 'key'\nscopes = ['a b']") + &key(),
            "9:11: route \"GET /a\": `scopes`: `a b` is no scope; accepted: 1 to 63 visible ASCII characters without quotes and backslashes",
        ),
        (
            "[gateway.auth]\nscopes = ['a']\n".to_owned(),
            "5:1: gateway: auth: `scopes` are those of a token or key, and `default` asks for neither: say `default = \"jwt\"` or `\"key\"`",
        ),
        (
            "[gateway.auth]\ndefalt = 'none'\n".to_owned(),
            "5:1: gateway: auth: unknown key `defalt`; did you mean `default`? (accepted: default, scopes, jwt, key, key-file)",
        ),
    ] {
        assert_eq!(problem(&lines), why);
    }
}

#[test]
fn keys_of_an_issuer_come_a_safe_way() {
    for good in [
        "https://id.example/keys",
        "http://127.0.0.1:8/keys",
        "http://localhost/k",
        "http://[::1]/k",
    ] {
        let auth = accepted(&jwt(good)).gateway.auth.unwrap();
        assert_eq!(auth.jwt.unwrap().jwks, JwksSource::Url(good.to_owned()));
    }
    let auth = accepted(&jwt("keys/jwks.json")).gateway.auth.unwrap();
    let JwksSource::File(path) = auth.jwt.unwrap().jwks else {
        panic!("no file");
    };
    // From the manifest's folder.
    assert_eq!(path, Path::new("shop/keys/jwks.json"));
    for bad in [
        "",
        "http://id.example/keys",
        "ftp://id.example",
        "https://",
        "https:// x",
    ] {
        let refused = problem(&jwt(bad));
        assert!(refused.contains("`jwks` is '"), "{bad}: {refused}");
    }
}

#[test]
fn tokens_and_keys_are_checked() {
    let with = |lines: &str| problem(&(jwt("https://a") + lines));
    for (refused, why) in [
        (
            with("algorithms = ['none']"),
            "7:15: gateway: auth: jwt: `algorithms`: `none` is none; accepted: RS256, ",
        ),
        (
            with("algorithms = []"),
            "7:1: gateway: auth: jwt: `algorithms` has none, so no token would be taken",
        ),
        (
            with("skew = '10m'"),
            "7:8: gateway: auth: jwt: `skew` is '10m'; accepted: ",
        ),
        (
            with("refresh = '0s'"),
            "7:11: gateway: auth: jwt: `refresh` is '0s'; accepted: ",
        ),
        (
            problem("[gateway.auth.jwt]\njwks = 'https://a'\n"),
            "4:15: gateway: auth: jwt: `issuer` is missing; accepted: ",
        ),
        (
            problem("[gateway.auth.key.till]\nsha256 = 'abc'\n"),
            "5:10: key \"till\": `sha256` is 'abc'; accepted: 64 hexadecimal digits",
        ),
        (
            problem("[gateway.auth.key.till]\n"),
            "4:19: key \"till\": `sha256` is missing; accepted: 64 hexadecimal digits",
        ),
        (
            problem(&format!("[gateway.auth.key.'a b']\nsha256 = '{DIGEST}'\n")),
            "4:19: key \"a b\": this is no name of a key; ",
        ),
    ] {
        assert!(refused.starts_with(why), "{refused}");
    }
    let many: String = (0..=1_000)
        .map(|n| format!("[gateway.auth.key.k{n}]\nsha256 = '{DIGEST}'\n"))
        .collect();
    assert_eq!(
        problem(&many),
        "4:15: gateway: auth: `key` has 1001 keys; accepted: 1000"
    );
}

#[test]
fn files_have_to_be_there_when_a_manifest_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wasmbay.toml");
    let text = format!(
        "name = 'shop'\n[service.a]\ncomponent = 'a.wasm'\n[gateway.auth]\nkey-file = 'keys.toml'\n{}",
        jwt("jwks.json")
    );
    for (name, text) in [("wasmbay.toml", text.as_str()), ("a.wasm", "")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let Err(ManifestError::Refused(problems)) = Manifest::load(&path) else {
        panic!("loaded");
    };
    let said: Vec<_> = problems
        .iter()
        .map(|problem| (problem.line, &problem.message))
        .collect();
    let at = |name: &str| folder.path().join(name).display().to_string();
    assert_eq!(
        said,
        [
            (
                5,
                &format!(
                    "gateway: auth: `key-file`: there is no file {}",
                    at("keys.toml")
                )
            ),
            (
                8,
                &format!(
                    "gateway: auth: jwt: `jwks`: there is no file {}",
                    at("jwks.json")
                )
            ),
        ]
    );
    for name in ["keys.toml", "jwks.json"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let auth = Manifest::load(&path).unwrap().app.gateway.auth.unwrap();
    assert!(auth.key_file.unwrap().is_absolute());
}
