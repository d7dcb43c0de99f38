//! Pages of other origins, limits for clients, and compressed answers.

use super::{accepted, problem};
use crate::manifest::{RateBy, RateSpec};

#[test]
fn origins_are_what_browsers_send() {
    let cors = |lines: &str| format!("[gateway.cors]\n{lines}\n");
    let read = accepted(&cors(
        "origins = ['https://a.example', 'http://[::1]:3000']",
    ));
    let read = read.gateway.cors.unwrap();
    assert_eq!((read.methods.len(), read.headers.len()), (7, 12));
    assert_eq!((read.credentials, read.max_age.as_secs()), (false, 600));
    for bad in [
        "https://a.example/",
        "https://",
        "a.example",
        "https://A.example",
        "https://u@a.example",
        "ftp://a",
        "null",
        "",
    ] {
        assert_eq!(
            problem(&cors(&format!("origins = ['{bad}']"))),
            format!(
                "5:12: gateway: cors: `origins`: `{bad}` is none; accepted: `https://app.example.com`, with a port where it has one, or `*`"
            )
        );
    }
    for (lines, why) in [
        (
            "methods = ['GET']",
            "4:10: gateway: cors: `origins` is missing; ",
        ),
        (
            "origins = ['*']\nmethods = ['get']",
            "6:12: gateway: cors: `methods`: `get` is none; accepted: GET, HEAD, ",
        ),
        (
            "origins = ['*']\nheaders = ['a b']",
            "6:12: gateway: cors: `headers`: `a b` is none; accepted: names of headers",
        ),
        (
            "origins = ['*']\ncredentials = true",
            "6:1: gateway: cors: `credentials` is for origins that are named",
        ),
        (
            "origins = ['*']\nmax-age = '2d'",
            "6:11: gateway: cors: `max-age` is '2d'; ",
        ),
    ] {
        let refused = problem(&cors(lines));
        assert!(refused.starts_with(why), "{refused}");
    }
}

#[test]
fn proxies_are_networks() {
    let trusting = |networks: &str| format!("[gateway]\ntrusted-proxies = [{networks}]\n");
    let read = accepted(&trusting("'10.0.0.0/8', '::1', '2001:db8::/32'"));
    let trusted = read.gateway.trusted_proxies.unwrap();
    for (address, expected) in [
        ("10.255.0.1", true),
        ("11.0.0.1", false),
        ("::1", true),
        ("::2", false),
        ("2001:db8:ffff::1", true),
    ] {
        assert_eq!(
            trusted.contain(address.parse().unwrap()),
            expected,
            "{address}"
        );
    }
    assert_eq!(accepted(&trusting("")).gateway.trusted_proxies, None);
    for (bad, why) in [
        ("10.0.0.0/33", "is no network; accepted: `10.0.0.0/8`, "),
        ("10.0.0", "is no network; "),
        ("proxy.example", "is no network; "),
        ("", "is no network; "),
        ("::1/129", "is no network; "),
        (
            "10.0.0.1/8",
            "has bits beyond its prefix; the network is `10.0.0.0/8`",
        ),
        ("::ffff:10.0.0.0/104", "is IPv4 in the form of IPv6; "),
    ] {
        let refused = problem(&trusting(&format!("'::1', '{bad}'")));
        let expected = format!("5:27: gateway: `trusted-proxies`: `{bad}` {why}");
        assert!(refused.starts_with(&expected), "{refused}");
    }
    let many = |count: usize| trusting(&vec!["'::1'"; count].join(", "));
    accepted(&many(256));
    let refused = problem(&many(257));
    assert!(
        refused.contains("has 257 networks; accepted: 256"),
        "{refused}"
    );
}

#[test]
fn a_limit_is_for_the_gateway_or_a_route() {
    let rate = |lines: &str| {
        accepted(&format!("[gateway]\nrate = {{ {lines} }}\n"))
            .gateway
            .rate
            .unwrap()
    };
    let read = rate("requests = 7");
    let RateSpec {
        requests,
        window,
        burst,
        by,
    } = read;
    assert_eq!(
        (requests, window.as_secs(), burst, by),
        (7, 60, 7, RateBy::Address)
    );
    let read = rate("requests = 7, burst = 2, by = 'claim:tenant', window = '1h'");
    assert_eq!(
        (read.burst, read.by),
        (2, RateBy::Claim("tenant".to_owned()))
    );
    for (lines, why) in [
        (
            "window = '1s'",
            "5:1: gateway: rate: `requests` is missing; accepted: 1 to 1000000",
        ),
        ("requests = 0", "`requests` is 0; accepted: 1 to 1000000"),
        (
            "requests = 2, burst = 3",
            "`burst` is more than the 2 of `requests`",
        ),
        (
            "requests = 2, by = 'key'",
            "`by` is 'key'; accepted: address, client, `claim:NAME`",
        ),
        (
            "requests = 2, by = 'claim:'",
            "`by` is 'claim:'; accepted: ",
        ),
        (
            "requests = 2, window = '0s'",
            "`window` is '0s'; accepted: ",
        ),
    ] {
        let refused = problem(&format!("[gateway]\nrate = {{ {lines} }}\n"));
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn answers_are_compressed_from_a_size_on() {
    let compress = |value: &str| {
        accepted(&format!("[gateway]\ncompress = {value}\n"))
            .gateway
            .compress
    };
    assert_eq!(accepted("").gateway.compress, Some(1_024));
    assert_eq!(
        (compress("false"), compress("'64KiB'")),
        (None, Some(64 << 10))
    );
    for bad in ["true", "1", "'1MB'"] {
        let refused = problem(&format!("[gateway]\ncompress = {bad}\n"));
        assert!(refused.ends_with("64B to 64MiB; false"), "{refused}");
    }
}
