//! The interfaces that a host provides, and what is said of an import that is none of them.

use std::fmt;

use crate::interface::InterfaceId;

/// Every interface that the linker has. A version stands for the compatible ones, newer ones too.
pub(crate) const PROVIDED: [&str; 56] = [
    "fermyon:spin/key-value@2.0.0",
    "fermyon:spin/variables@2.0.0",
    "wasi:blobstore/blobstore@0.2.0-draft",
    "wasi:blobstore/container@0.2.0-draft",
    "wasi:blobstore/types@0.2.0-draft",
    "wasi:cli/environment@0.2.12",
    "wasi:cli/exit@0.2.12",
    "wasi:cli/stderr@0.2.12",
    "wasi:cli/stdin@0.2.12",
    "wasi:cli/stdout@0.2.12",
    "wasi:cli/terminal-input@0.2.12",
    "wasi:cli/terminal-output@0.2.12",
    "wasi:cli/terminal-stderr@0.2.12",
    "wasi:cli/terminal-stdin@0.2.12",
    "wasi:cli/terminal-stdout@0.2.12",
    "wasi:clocks/monotonic-clock@0.2.12",
    "wasi:clocks/wall-clock@0.2.12",
    "wasi:config/runtime@0.2.0-draft",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:filesystem/preopens@0.2.12",
    "wasi:filesystem/types@0.2.12",
    "wasi:http/outgoing-handler@0.2.12",
    "wasi:http/types@0.2.12",
    "wasi:io/error@0.2.12",
    "wasi:io/poll@0.2.12",
    "wasi:io/streams@0.2.12",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:logging/logging",
    "wasi:logging/logging@0.1.0-draft",
    "wasi:messaging/producer@0.2.0-draft",
    "wasi:messaging/request-reply@0.2.0-draft",
    "wasi:messaging/types@0.2.0-draft",
    "wasi:otel/logs@0.2.0-rc.2",
    "wasi:otel/metrics@0.2.0-rc.2",
    "wasi:otel/tracing@0.2.0-rc.2",
    "wasi:otel/types@0.2.0-rc.2",
    "wasi:random/insecure@0.2.12",
    "wasi:random/insecure-seed@0.2.12",
    "wasi:random/random@0.2.12",
    "wasi:sockets/instance-network@0.2.12",
    "wasi:sockets/ip-name-lookup@0.2.12",
    "wasi:sockets/network@0.2.12",
    "wasi:sockets/tcp@0.2.12",
    "wasi:sockets/tcp-create-socket@0.2.12",
    "wasi:sockets/udp@0.2.12",
    "wasi:sockets/udp-create-socket@0.2.12",
    "wasmbay:call/context@0.1.0",
    "wasmbay:call/identity@0.1.0",
    "wasmcloud:messaging/consumer@0.2.0",
];

/// What to use instead of the interfaces of other hosts. The first that fits is said.
const INSTEAD: [(&str, &str); 15] = [
    (
        "spin:key-value/",
        "of Spin's SDK 6 and later, whose functions are async; use fermyon:spin/key-value@2.0.0, which SDK 5 has",
    ),
    (
        "spin:variables/",
        "of Spin's SDK 6 and later, whose functions are async; use fermyon:spin/variables@2.0.0, which SDK 5 has",
    ),
    (
        "fermyon:spin/config",
        "of Spin; use wasi:config/store@0.2.0-rc.1",
    ),
    (
        "fermyon:spin/http",
        "of Spin; use wasi:http/outgoing-handler@0.2.0",
    ),
    (
        "fermyon:spin/",
        "of Spin; let a service of the app answer for it, by an interface of your own",
    ),
    (
        "spin:",
        "of Spin; let a service of the app answer for it, by an interface of your own",
    ),
    (
        "fermyon:",
        "of Fermyon's hosts; let a service of the app answer for it, by an interface of your own",
    ),
    (
        "wasmcloud:bus/",
        "of wasmCloud; links are wires in the manifest and need no import",
    ),
    (
        "wasmcloud:secrets/",
        "of wasmCloud; use wasi:config/store@0.2.0-rc.1",
    ),
    (
        "wasmcloud:messaging/",
        "of wasmCloud in another version; use wasmcloud:messaging/consumer@0.2.0",
    ),
    (
        "wasmcloud:",
        "of wasmCloud; let a service of the app answer for it, by an interface of your own",
    ),
    (
        "wasi:sql/",
        "not provided; let a service of the app answer for it, by an interface of your own",
    ),
    (
        "wasi:nn/",
        "not provided; let a service of the app answer for it, by an interface of your own",
    ),
    (
        "wasi:tls/",
        "not provided; use wasi:http/outgoing-handler@0.2.0, which speaks TLS",
    ),
    (
        "wasi:threads",
        "not provided; a host runs calls side by side, each in an instance of its own",
    ),
];

/// An import that no host provides and no service can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The interface, as it is imported.
    pub interface: String,
    /// What it is, and what to use instead.
    pub instead: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.interface, self.instead)
    }
}

/// Whether an import is for the host to satisfy, be it this one or another.
pub(crate) fn is_for_hosts(import: &str) -> bool {
    ["wasi:", "wasmbay:call/", "wasmcloud:", "fermyon:", "spin:"]
        .iter()
        .any(|namespace| import.starts_with(namespace))
}

/// What there is to say of an import for hosts if this one does not provide it.
pub(crate) fn missing(import: &str) -> Option<Missing> {
    let missing = || Missing {
        interface: import.to_owned(),
        instead: instead_of(import),
    };
    (!is_provided(import)).then(missing)
}

fn is_provided(import: &str) -> bool {
    let Ok(import) = import.parse::<InterfaceId>() else {
        return false;
    };
    ids().any(|provided| provided.compatible(&import))
}

fn ids() -> impl Iterator<Item = InterfaceId> {
    PROVIDED.iter().filter_map(|name| name.parse().ok())
}

fn instead_of(import: &str) -> String {
    let (path, version) = import.split_once('@').unwrap_or((import, ""));
    if import.starts_with("wasi:") && version.starts_with("0.3") {
        return "of WASI 0.3, which this host does not run; build for WASI 0.2".to_owned();
    }
    let same_path = |name: &&&str| name.split_once('@').map_or(**name, |(path, _)| path) == path;
    let others: Vec<_> = PROVIDED.iter().filter(same_path).copied().collect();
    if !others.is_empty() {
        return format!("this host provides {}", others.join(" and "));
    }
    let instead = INSTEAD.iter().find(|(start, _)| import.starts_with(start));
    if let Some((_, instead)) = instead {
        return (*instead).to_owned();
    }
    let distance = |name: &&&str| strsim::damerau_levenshtein(name, import);
    match PROVIDED.iter().min_by_key(distance) {
        Some(nearest) => format!("not provided; the nearest that is: {nearest}"),
        None => "not provided".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead(import: &str) -> Option<String> {
        missing(import).map(|missing| missing.instead)
    }

    #[test]
    fn compatible_versions_are_provided() {
        for import in [
            "wasi:io/poll@0.2.0",
            "wasi:io/poll@0.2.99",
            "wasi:config/store@0.2.0-draft",
            "wasi:config/runtime@0.2.0-draft",
            "wasi:logging/logging",
            "wasi:logging/logging@0.1.0-draft",
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasmcloud:messaging/consumer@0.2.0",
        ] {
            assert_eq!(instead(import), None, "{import}");
        }
    }

    #[test]
    fn what_is_missing_has_a_word_on_what_to_use() {
        for (import, said) in [
            ("wasi:io/poll@0.3.0", "WASI 0.3"),
            ("wasi:config/store@0.3.0-draft", "WASI 0.3"),
            (
                "wasi:config/store@0.2.0-rc.2",
                "wasi:config/store@0.2.0-draft-2024-09-27 and wasi:config/store@0.2.0-rc.1",
            ),
            ("wasi:keyvalue/store", "wasi:keyvalue/store@0.2.0-draft and"),
            (
                "wasi:keyvalue/stor@0.2.0-draft",
                "nearest that is: wasi:keyvalue/store@0.2.0-draft",
            ),
            (
                "wasi:blobstore/container@0.1.0",
                "this host provides wasi:blobstore/container@0.2.0-draft",
            ),
            (
                "fermyon:spin/key-value@1.0.0",
                "this host provides fermyon:spin/key-value@2.0.0",
            ),
            ("spin:key-value/key-value@3.0.0", "which SDK 5 has"),
            ("fermyon:spin/llm@2.0.0", "of Spin; let a service"),
            ("spin:postgres/postgres@3.0.0", "of Spin; let a service"),
            ("wasmcloud:bus/lattice@1.0.0", "links are wires"),
            (
                "wasmcloud:postgres/query@0.1.0",
                "of wasmCloud; let a service",
            ),
            (
                "wasmcloud:messaging/consumer@0.3.0",
                "this host provides wasmcloud:messaging/consumer@0.2.0",
            ),
        ] {
            let instead = instead(import).unwrap_or_else(|| panic!("{import} is provided"));
            assert!(instead.contains(said), "{import}: {instead}");
        }
    }
}
