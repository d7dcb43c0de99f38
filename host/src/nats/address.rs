//! The addresses of NATS servers, as people write them.

use std::io;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

use super::connect::ConnectError;

/// A URL, or a list of them, without the login before each `@`, for logs and errors. Works on any
/// text, also on one that does not parse.
pub fn redact(url: &str) -> String {
    let parts = url.split(',').map(str::trim).collect::<Vec<_>>();
    let shown = parts.iter().enumerate().map(|(index, part)| {
        let (scheme, rest) = part.split_once("://").map_or(("", *part), |split| split);
        // With an `@` further on and no new URL before it, this may be the start of a password.
        let secret = parts
            .iter()
            .skip(index + 1)
            .take_while(|later| !later.contains("://"))
            .any(|later| later.contains('@'));
        let host = match rest.rsplit_once('@') {
            Some((_, host)) => host,
            None if secret => "…",
            None => rest,
        };
        if scheme.is_empty() {
            host.to_owned()
        } else {
            format!("{scheme}://{host}")
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The login of a URL. Without `Debug`, so that it cannot be logged.
#[derive(PartialEq)]
pub(super) enum Login {
    User { user: String, password: String },
    Token(String),
}

/// Parsed addresses, with their one login.
pub(super) struct Servers {
    pub(super) addrs: Vec<ServerAddr>,
    pub(super) login: Option<Login>,
    /// All of them without logins, for logs and errors.
    pub(super) shown: String,
}

impl Servers {
    /// The client ignores a URL's user and password, and writes URLs to its debug log as they are;
    /// so both are taken out here and given to it apart.
    pub(super) fn parse(urls: &[String]) -> Result<Self, ConnectError> {
        let mut addrs = Vec::new();
        let mut login = None;
        let mut shown = Vec::new();
        for entry in urls {
            for url in entry
                .split(',')
                .map(str::trim)
                .filter(|url| !url.is_empty())
            {
                // The whole entry, since a comma in a password makes one URL look like two.
                let bad = |source| ConnectError::BadUrl {
                    url: redact(entry),
                    source,
                };
                let (addr, own) = parse_one(url).map_err(bad)?;
                if own.is_some() {
                    if login.is_some() && login != own {
                        return Err(ConnectError::TwoLogins { url: redact(url) });
                    }
                    login = own;
                }
                addrs.push(addr);
                shown.push(redact(url));
            }
        }
        if addrs.is_empty() {
            return Err(ConnectError::NoUrl);
        }
        Ok(Self {
            addrs,
            login,
            shown: shown.join(", "),
        })
    }
}

fn parse_one(url: &str) -> io::Result<(ServerAddr, Option<Login>)> {
    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let parsed = url.parse::<ServerAddr>().map_err(|error| {
        if url.contains('@') {
            // `nats://ann:pa/ss@host` has "pa" where a port would be.
            invalid("in a user or password, write : / ? # @ as %3A %2F %3F %23 %40")
        } else {
            error
        }
    });
    let mut url = parsed?.into_inner();
    let login = login_of(url.username(), url.password());
    if matches!(url.scheme(), "ws" | "wss") {
        return Err(invalid(
            "WebSocket is not spoken; use the server's nats:// or tls:// port",
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("it names no host"));
    }
    // Without this check, `nats://ann:1/2@host` would connect to a host called "ann".
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(
            "after the port there is more; in a password, write / ? # as %2F %3F %23",
        ));
    }
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return Err(invalid("it can have no login"));
    }
    Ok((ServerAddr::from_url(url)?, login))
}

fn login_of(user: &str, password: Option<&str>) -> Option<Login> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    match (user, password) {
        ("", None) => None,
        (token, None) => Some(Login::Token(plain(token))),
        (user, Some(password)) => Some(Login::User {
            user: plain(user),
            password: plain(password),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_never_shows() {
        for (given, shown) in [
            ("nats://ann:s3cret@host:4222", "nats://host:4222"),
            ("s3cret@host", "host"),
            ("nats://ann:s3c@ret@host", "nats://host"),
            (
                "nats://a:s3cret@one, tls://a:s3cret@two:1",
                "nats://one, tls://two:1",
            ),
            ("nats://host:4222", "nats://host:4222"),
            ("http//ann:s3cret@", ""),
            ("nats://ann:s3c,ret@host", "nats://…, host"),
            ("one:1,t0ken@two,nats://three", "…, two, nats://three"),
        ] {
            assert_eq!(redact(given), shown);
        }
    }

    #[test]
    fn a_login_is_taken_out_of_the_urls() {
        let servers =
            Servers::parse(&["nats://ann:p%40ss@one:1,two:2".into(), "tls://three".into()])
                .unwrap();
        assert!(
            servers.login
                == Some(Login::User {
                    user: "ann".into(),
                    password: "p@ss".into()
                })
        );
        assert_eq!(servers.shown, "nats://one:1, two:2, tls://three");
        assert!(
            servers
                .addrs
                .iter()
                .all(|addr| !addr.has_user_pass() && addr.password().is_none())
        );
        assert_eq!(
            servers
                .addrs
                .iter()
                .map(ServerAddr::port)
                .collect::<Vec<_>>(),
            [1, 2, 4222]
        );

        let token = Servers::parse(&["nats://t0ken@one".into()]).unwrap();
        assert!(token.login == Some(Login::Token("t0ken".into())));
    }

    #[test]
    fn errors_of_bad_urls_have_the_accepted_form() {
        let text = |urls: &[&str]| {
            let urls = urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
            Servers::parse(&urls)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(
            text(&[]),
            "no NATS server was named; give its address as nats://host:4222"
        );
        assert_eq!(
            text(&["http://ann:s3cret@host"]),
            "\"http://host\" is no address of a NATS server; write it as nats://host:4222 or tls://host:4222"
        );
        assert!(
            text(&["nats://"]).contains("is no address"),
            "{}",
            text(&["nats://"])
        );
        assert!(text(&["nats://ann:s3c,ret@host"]).starts_with("\"nats://…, host\" is no address"));
        assert!(text(&["nats://ann:1/s3cret@host"]).starts_with("\"nats://host\" is no address"));
        assert!(text(&["nats://host:99999"]).contains("is no address"));
        assert!(
            text(&["nats://a:b@one", "nats://a:c@two"])
                .starts_with("the URL nats://two logs in as someone else")
        );
    }
}
