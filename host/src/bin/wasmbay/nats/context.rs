//! Contexts of the `nats` command line: named NATS systems with their logins, in files of the user's
//! configuration folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use wasmbay::nats::{ConnectOptions, Nkey};
use wasmbay::text::one_line;

use crate::args::{domain, inbox_prefix};
use crate::report::misconfigured;

/// Stands for the context that `nats context select` has chosen.
const SELECTED: &str = ".";

/// Where `nats` connects without a URL.
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// Upper bound of a context's file.
const MAX_FILE: u64 = 64 << 10;

/// Fields that change nothing here.
const WITHOUT_EFFECT: [&str; 4] = [
    "name",
    "description",
    "color_scheme",
    "jetstream_event_prefix",
];

/// Reads the context with this name; `.` is the selected one.
///
/// # Errors
///
/// There is none, or it has something that cannot be had here.
pub(super) fn read(name: &str) -> anyhow::Result<ConnectOptions> {
    let folder = folder().ok_or_else(|| {
        misconfigured("contexts of `nats` are in $XDG_CONFIG_HOME or $HOME, and neither is set")
    })?;
    let name = match name {
        SELECTED => selected(&folder)?,
        name => name.to_owned(),
    };
    if name.is_empty() || name == ".." || name.contains(['/', '\\']) {
        return Err(misconfigured(format!("{name:?} is no name of a context")));
    }
    let path = folder.join("context").join(format!("{name}.json"));
    let text =
        text(&path).map_err(|error| misconfigured(missing(&name, &folder, &path, &error)))?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    options(&text, home.as_deref())
        .map_err(|why| misconfigured(format!("context \"{name}\", {}: {why}", path.display())))
}

/// Where `nats` keeps its contexts.
fn folder() -> Option<PathBuf> {
    let of = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    let config = of("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(of("HOME")?).join(".config")));
    Some(config?.join("nats"))
}

fn selected(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("context.txt");
    match text(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => Err(misconfigured(format!(
            "no context is selected in {}; `nats context select` does it",
            path.display()
        ))),
        Err(error) => Err(misconfigured(format!(
            "no context is selected; `nats context select` does it ({}: {error})",
            path.display()
        ))),
    }
}

fn text(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// Why there is no such context, with those that there are.
fn missing(name: &str, folder: &Path, path: &Path, error: &std::io::Error) -> String {
    if error.kind() != std::io::ErrorKind::NotFound {
        return format!("context \"{name}\", {}: {error}", path.display());
    }
    let entries = std::fs::read_dir(folder.join("context"));
    let mut known: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(name.strip_suffix(".json")?.to_owned())
        })
        .collect();
    known.sort();
    let known = match known.is_empty() {
        true => format!("none is in {}", folder.join("context").display()),
        false => format!("there are: {}", one_line(&known.join(", "), 400)),
    };
    format!(
        "there is no NATS context \"{}\" ({known})",
        one_line(name, 100)
    )
}

/// What a context says, as options.
fn options(text: &str, home: Option<&Path>) -> Result<ConnectOptions, String> {
    let mut fields: BTreeMap<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("it is no context: {error}"))?;
    let mut taken = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is no text")),
    };
    let (user, password, token) = (taken("user")?, taken("password")?, taken("token")?);
    let login = match (user, token) {
        (Some(_), Some(_)) => return Err("it has both `user` and `token`".to_owned()),
        (Some(user), None) => {
            let password = password.unwrap_or_default();
            Some(format!("{}:{}", encoded(&user), encoded(&password)))
        }
        (None, Some(token)) => Some(encoded(&token)),
        (None, None) => None,
    };
    let url = taken("url")?.unwrap_or_else(|| DEFAULT_URL.to_owned());
    let mut path = |name: &str| -> Result<Option<PathBuf>, String> {
        let text = taken(name)?;
        Ok(text.map(|text| at_home(&text, home)))
    };
    let (credentials, nkey) = (path("creds")?, path("nkey")?);
    let (tls_ca, tls_cert, tls_key) = (path("ca")?, path("cert")?, path("key")?);
    let checked =
        |name: &str, text: Option<String>, check: fn(&str) -> Result<String, &'static str>| {
            let checked = text.map(|text| check(&text)).transpose();
            checked.map_err(|why| format!("`{name}`: {why}"))
        };
    let js_domain = checked("jetstream_domain", taken("jetstream_domain")?, domain)?;
    let inbox = checked("inbox_prefix", taken("inbox_prefix")?, inbox_prefix)?;
    let tls_first = fields.remove("tls_first") == Some(Value::Bool(true));
    fields.retain(|name, value| {
        let is_set = match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(all) => !all.is_empty(),
            Value::Number(_) | Value::Object(_) | Value::Bool(true) => true,
        };
        is_set && !WITHOUT_EFFECT.contains(&name.as_str())
    });
    if !fields.is_empty() {
        let names: Vec<_> = fields.keys().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        let names = one_line(&names, 400);
        return Err(format!("it sets {names}, which wasmbay does not support"));
    }
    Ok(ConnectOptions {
        credentials,
        nkey: nkey.map(Nkey::File),
        tls_ca,
        tls_cert,
        tls_key,
        js_domain,
        inbox_prefix: inbox,
        tls_first,
        ..ConnectOptions::to(with_login(&url, login.as_deref()))
    })
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The servers, each with the login unless it has one of its own.
fn with_login(urls: &str, login: Option<&str>) -> String {
    let Some(login) = login else {
        return urls.to_owned();
    };
    let urls = urls.split(',').map(str::trim).filter(|url| !url.is_empty());
    let urls = urls.map(|url| {
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        match rest.contains('@') {
            true => url.to_owned(),
            false => format!("{scheme}://{login}@{rest}"),
        }
    });
    urls.collect::<Vec<_>>().join(",")
}

/// A path that may begin with `~`.
fn at_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ConnectOptions, String> {
        options(text, Some(Path::new("/home/ann")))
    }

    #[test]
    fn every_field_becomes_its_option() {
        let options = read(
            r#"{ "description": "x", "url": "nats://one:1,tls://two:2", "user": "ann", "password": "p@ss/w",
                 "token": "", "creds": "~/ann.creds", "nkey": "/keys/ann.nk", "cert": "c.pem", "key": "k.pem",
                 "ca": "ca.pem", "nsc": "", "jetstream_domain": "hub", "inbox_prefix": "_MINE.ann",
                 "tls_first": true, "color_scheme": "yellow", "windows_ca_certs_match": null }"#,
        )
        .unwrap();
        let login = "ann:p%40ss%2Fw@";
        assert_eq!(
            options.urls,
            [format!("nats://{login}one:1,tls://{login}two:2")]
        );
        assert_eq!(
            options.credentials.unwrap(),
            Path::new("/home/ann/ann.creds")
        );
        let Some(Nkey::File(nkey)) = options.nkey else {
            panic!("it is a file")
        };
        assert_eq!(nkey, Path::new("/keys/ann.nk"));
        assert_eq!(options.tls_ca.unwrap(), Path::new("ca.pem"));
        assert_eq!(options.tls_cert.unwrap(), Path::new("c.pem"));
        assert_eq!(options.tls_key.unwrap(), Path::new("k.pem"));
        assert_eq!(options.js_domain.as_deref(), Some("hub"));
        assert_eq!(options.inbox_prefix.as_deref(), Some("_MINE.ann"));
        assert!(options.tls_first);
    }

    #[test]
    fn a_context_without_a_url_is_the_local_server() {
        assert_eq!(read("{}").unwrap().urls, [DEFAULT_URL]);
        let token = read(r#"{ "token": "s3cret" }"#).unwrap();
        assert_eq!(token.urls, ["nats://s3cret@127.0.0.1:4222"]);
        let own = read(r#"{ "url": "a:b@one,two", "user": "x" }"#).unwrap();
        assert_eq!(own.urls, ["a:b@one,nats://x:@two"]);
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let refused = |text: &str| read(text).unwrap_err();
        assert_eq!(
            refused(r#"{ "nsc": "nsc://acme/ann", "socks_proxy": "x", "tls_first": false }"#),
            "it sets `nsc`, `socks_proxy`, which wasmbay does not support"
        );
        assert!(refused("[]").starts_with("it is no context"));
        assert!(refused(r#"{ "user": 1 }"#).contains("`user` is no text"));
        assert!(refused(r#"{ "user": "a", "token": "b" }"#).contains("both"));
        assert!(refused(r#"{ "inbox_prefix": "a.>" }"#).starts_with("`inbox_prefix`"));
        assert!(refused(r#"{ "jetstream_domain": "a.b" }"#).starts_with("`jetstream_domain`"));
    }
}
