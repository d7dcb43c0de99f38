//! The interfaces that a host provides, and what is said of an import that is none of them.

use std::fmt;

use crate::interface::InterfaceId;

/// Interfaces that the linker has, of one package and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Provided {
    package: &'static str,
    /// Stands for the compatible ones, newer ones too; empty if there is none.
    version: &'static str,
    interfaces: &'static [&'static str],
    state: State,
    /// The keys of `grants` that it needs, if it needs any.
    grant: &'static str,
    about: &'static str,
}

/// How much a package is going to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// WASI 0.2, which does not change.
    Wasi2,
    /// WASI 0.3, for asynchronous components.
    Wasi3,
    /// A draft of WASI, as others use it.
    Draft,
    Spin,
    WasmCloud,
    /// Of wasmbay's own.
    Own,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wasi2 => "WASI 0.2",
            Self::Wasi3 => "WASI 0.3",
            Self::Draft => "a draft of WASI",
            Self::Spin => "of Spin",
            Self::WasmCloud => "of wasmCloud",
            Self::Own => "wasmbay's own",
        })
    }
}

/// Every interface that the linker has.
pub(crate) const PROVIDED: [Provided; 31] = [
    Provided {
        package: "fermyon:spin",
        version: "2.0.0",
        interfaces: &["key-value"],
        state: State::Spin,
        grant: "keyvalue",
        about: "the service's own data; its one store is `default`",
    },
    Provided {
        package: "fermyon:spin",
        version: "2.0.0",
        interfaces: &["variables"],
        state: State::Spin,
        grant: "",
        about: "`config` of the service",
    },
    Provided {
        package: "wasi:blobstore",
        version: "0.2.0-draft",
        interfaces: &["blobstore", "container", "types"],
        state: State::Draft,
        grant: "blobstore",
        about: "the service's own objects, of any size",
    },
    Provided {
        package: "wasi:cli",
        version: "0.2.12",
        interfaces: &["environment"],
        state: State::Wasi2,
        grant: "",
        about: "`env` and `args` of the service",
    },
    Provided {
        package: "wasi:cli",
        version: "0.2.12",
        interfaces: &[
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
        state: State::Wasi2,
        grant: "",
        about: "what is printed becomes log records; there is no input",
    },
    Provided {
        package: "wasi:cli",
        version: "0.3.0",
        interfaces: &["environment"],
        state: State::Wasi3,
        grant: "",
        about: "`env` and `args` of the service",
    },
    Provided {
        package: "wasi:cli",
        version: "0.3.0",
        interfaces: &[
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
            "types",
        ],
        state: State::Wasi3,
        grant: "",
        about: "what is printed becomes log records; there is no input",
    },
    Provided {
        package: "wasi:clocks",
        version: "0.2.12",
        interfaces: &["monotonic-clock", "wall-clock"],
        state: State::Wasi2,
        grant: "",
        about: "in a durable function the time of its run",
    },
    Provided {
        package: "wasi:clocks",
        version: "0.3.0",
        interfaces: &["monotonic-clock", "system-clock", "types"],
        state: State::Wasi3,
        grant: "",
        about: "the time, and waiting",
    },
    Provided {
        package: "wasi:config",
        version: "0.2.0-draft",
        interfaces: &["runtime", "store"],
        state: State::Draft,
        grant: "",
        about: "`config` of the service",
    },
    Provided {
        package: "wasi:config",
        version: "0.2.0-draft-2024-09-27",
        interfaces: &["store"],
        state: State::Draft,
        grant: "",
        about: "the same, as Spin has it",
    },
    Provided {
        package: "wasi:config",
        version: "0.2.0-rc.1",
        interfaces: &["store"],
        state: State::Draft,
        grant: "",
        about: "the same",
    },
    Provided {
        package: "wasi:filesystem",
        version: "0.2.12",
        interfaces: &["preopens", "types"],
        state: State::Wasi2,
        grant: "files",
        about: "files of folders of the app, to be read",
    },
    Provided {
        package: "wasi:filesystem",
        version: "0.3.0",
        interfaces: &["preopens", "types"],
        state: State::Wasi3,
        grant: "files",
        about: "files of folders of the app, to be read",
    },
    Provided {
        package: "wasi:http",
        version: "0.2.12",
        interfaces: &["outgoing-handler"],
        state: State::Wasi2,
        grant: "http",
        about: "requests to other hosts",
    },
    Provided {
        package: "wasi:http",
        version: "0.2.12",
        interfaces: &["types"],
        state: State::Wasi2,
        grant: "",
        about: "requests, responses and their bodies",
    },
    Provided {
        package: "wasi:http",
        version: "0.3.0",
        interfaces: &["client"],
        state: State::Wasi3,
        grant: "http",
        about: "requests to other hosts",
    },
    Provided {
        package: "wasi:http",
        version: "0.3.0",
        interfaces: &["types"],
        state: State::Wasi3,
        grant: "",
        about: "requests, responses and their bodies",
    },
    Provided {
        package: "wasi:io",
        version: "0.2.12",
        interfaces: &["error", "poll", "streams"],
        state: State::Wasi2,
        grant: "",
        about: "streams of the other interfaces",
    },
    Provided {
        package: "wasi:keyvalue",
        version: "0.2.0-draft",
        interfaces: &["atomics", "batch", "store"],
        state: State::Draft,
        grant: "keyvalue",
        about: "the service's own data",
    },
    Provided {
        package: "wasi:keyvalue",
        version: "0.2.0-draft2",
        interfaces: &["atomics", "batch", "store"],
        state: State::Draft,
        grant: "keyvalue",
        about: "the same, without `cas`",
    },
    Provided {
        package: "wasi:logging",
        version: "",
        interfaces: &["logging"],
        state: State::Draft,
        grant: "",
        about: "log records with a level",
    },
    Provided {
        package: "wasi:logging",
        version: "0.1.0-draft",
        interfaces: &["logging"],
        state: State::Draft,
        grant: "",
        about: "the same",
    },
    Provided {
        package: "wasi:messaging",
        version: "0.2.0-draft",
        interfaces: &["producer", "request-reply", "types"],
        state: State::Draft,
        grant: "publish",
        about: "messages to subjects of NATS",
    },
    Provided {
        package: "wasi:otel",
        version: "0.2.0-rc.2",
        interfaces: &["logs", "metrics", "tracing", "types"],
        state: State::Draft,
        grant: "",
        about: "spans, log records and metrics of the component's own",
    },
    Provided {
        package: "wasi:random",
        version: "0.2.12",
        interfaces: &["insecure", "insecure-seed", "random"],
        state: State::Wasi2,
        grant: "",
        about: "in a durable function random of its run",
    },
    Provided {
        package: "wasi:random",
        version: "0.3.0",
        interfaces: &["insecure", "insecure-seed", "random"],
        state: State::Wasi3,
        grant: "",
        about: "random numbers",
    },
    Provided {
        package: "wasi:sockets",
        version: "0.2.12",
        interfaces: &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
        state: State::Wasi2,
        grant: "tcp, udp",
        about: "connections and datagrams to endpoints",
    },
    Provided {
        package: "wasi:sockets",
        version: "0.3.0",
        interfaces: &["ip-name-lookup", "types"],
        state: State::Wasi3,
        grant: "tcp, udp",
        about: "connections and datagrams to endpoints",
    },
    Provided {
        package: "wasmbay:call",
        version: "0.1.0",
        interfaces: &["context", "identity"],
        state: State::Own,
        grant: "",
        about: "the step of a run that a call is for, and who it is made for",
    },
    Provided {
        package: "wasmcloud:messaging",
        version: "0.2.0",
        interfaces: &["consumer"],
        state: State::WasmCloud,
        grant: "publish",
        about: "messages to subjects of NATS",
    },
];

impl Provided {
    /// Its interfaces, as they are imported.
    fn names(&self) -> impl Iterator<Item = String> {
        let Self {
            package, version, ..
        } = *self;
        let at = if version.is_empty() { "" } else { "@" };
        let names = self.interfaces.iter();
        names.map(move |interface| format!("{package}/{interface}{at}{version}"))
    }
}

/// The names of all of them.
pub(crate) fn names() -> impl Iterator<Item = String> {
    PROVIDED.iter().flat_map(Provided::names)
}

/// The keys of `grants` without which an imported interface refuses what it is asked, such as `tcp, udp`.
#[must_use]
pub fn grant_of(import: &str) -> Option<&'static str> {
    let import = import.parse::<InterfaceId>().ok()?;
    let is = |name: String| {
        let provided = name.parse::<InterfaceId>();
        provided.is_ok_and(|provided| provided.compatible(&import))
    };
    let mut all = PROVIDED.iter();
    let provided = all.find(|provided| provided.names().any(is))?;
    Some(provided.grant).filter(|grant| !grant.is_empty())
}

/// All of them as a table of Markdown.
#[must_use]
pub fn reference() -> String {
    let mut table =
        "| interfaces | version | state | grant | what |\n|---|---|---|---|---|\n".to_owned();
    for Provided {
        package,
        version,
        interfaces,
        state,
        grant,
        about,
    } in PROVIDED
    {
        let interfaces = match interfaces {
            [one] => (*one).to_owned(),
            several => format!("{{{}}}", several.join(", ")),
        };
        let version = if version.is_empty() { "none" } else { version };
        let grants: Vec<_> = grant
            .split(", ")
            .map(|grant| format!("`{grant}`"))
            .collect();
        let grant = match grant {
            "" => "none".to_owned(),
            _ => grants.join(" or "),
        };
        table.push_str(&format!(
            "| `{package}/{interfaces}` | {version} | {state} | {grant} | {about} |\n"
        ));
    }
    table
}

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
    names().filter_map(|name| name.parse().ok())
}

fn instead_of(import: &str) -> String {
    let path = import.split_once('@').map_or(import, |(path, _)| path);
    let same_path = |name: &String| name.split_once('@').map_or(&**name, |(path, _)| path) == path;
    let others: Vec<_> = names().filter(same_path).collect();
    if !others.is_empty() {
        return format!("this host provides {}", others.join(" and "));
    }
    let instead = INSTEAD.iter().find(|(start, _)| import.starts_with(start));
    if let Some((_, instead)) = instead {
        return (*instead).to_owned();
    }
    let distance = |name: &String| strsim::damerau_levenshtein(name, import);
    match names().min_by_key(distance) {
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
    fn a_grant_is_known_by_what_is_imported() {
        for (import, grant) in [
            ("wasi:keyvalue/store@0.2.0-draft2", Some("keyvalue")),
            ("wasi:sockets/tcp@0.2.3", Some("tcp, udp")),
            ("wasi:http/outgoing-handler@0.2.0", Some("http")),
            ("wasi:http/types@0.2.0", None),
            ("wasi:io/poll@0.2.0", None),
            ("wasi:nn/tensor", None),
        ] {
            assert_eq!(grant_of(import), grant, "{import}");
        }
    }

    #[test]
    fn every_grant_is_a_key_of_the_manifest() {
        let known = &crate::manifest::grant_names();
        for provided in PROVIDED
            .iter()
            .filter(|provided| !provided.grant.is_empty())
        {
            for grant in provided.grant.split(", ") {
                assert!(known.contains(&grant), "{grant}");
            }
        }
    }

    #[test]
    fn what_is_missing_has_a_word_on_what_to_use() {
        for (import, said) in [
            (
                "wasi:io/poll@0.3.0",
                "this host provides wasi:io/poll@0.2.12",
            ),
            (
                "wasi:config/store@0.3.0-draft",
                "this host provides wasi:config/store@0.2.0-draft",
            ),
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
