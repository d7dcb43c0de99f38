use std::collections::BTreeSet;

use super::*;
use crate::interfaces::provided;
use crate::runtime::{Engine, EngineOptions};

/// A function or resource of each interface that is provided.
const KNOWN: [(&str, &str); 76] = [
    ("fermyon:spin/key-value@2.0.0", "[static]store.open"),
    ("fermyon:spin/variables@2.0.0", "get"),
    ("wasi:blobstore/blobstore@0.2.0-draft", "create-container"),
    ("wasi:blobstore/container@0.2.0-draft", "container"),
    ("wasi:blobstore/types@0.2.0-draft", "outgoing-value"),
    ("wasi:cli/environment@0.2.12", "get-environment"),
    ("wasi:cli/environment@0.3.0", "get-environment"),
    ("wasi:cli/exit@0.2.12", "exit"),
    ("wasi:cli/exit@0.3.0", "exit"),
    ("wasi:cli/stderr@0.2.12", "get-stderr"),
    ("wasi:cli/stderr@0.3.0", "write-via-stream"),
    ("wasi:cli/stdin@0.2.12", "get-stdin"),
    ("wasi:cli/stdin@0.3.0", "read-via-stream"),
    ("wasi:cli/stdout@0.2.12", "get-stdout"),
    ("wasi:cli/stdout@0.3.0", "write-via-stream"),
    ("wasi:cli/terminal-input@0.2.12", "terminal-input"),
    ("wasi:cli/terminal-input@0.3.0", "terminal-input"),
    ("wasi:cli/terminal-output@0.2.12", "terminal-output"),
    ("wasi:cli/terminal-output@0.3.0", "terminal-output"),
    ("wasi:cli/terminal-stderr@0.2.12", "get-terminal-stderr"),
    ("wasi:cli/terminal-stderr@0.3.0", "get-terminal-stderr"),
    ("wasi:cli/terminal-stdin@0.2.12", "get-terminal-stdin"),
    ("wasi:cli/terminal-stdin@0.3.0", "get-terminal-stdin"),
    ("wasi:cli/terminal-stdout@0.2.12", "get-terminal-stdout"),
    ("wasi:cli/terminal-stdout@0.3.0", "get-terminal-stdout"),
    ("wasi:clocks/monotonic-clock@0.2.12", "now"),
    ("wasi:clocks/monotonic-clock@0.3.0", "wait-for"),
    ("wasi:clocks/system-clock@0.3.0", "now"),
    ("wasi:clocks/wall-clock@0.2.12", "now"),
    ("wasi:config/runtime@0.2.0-draft", "get"),
    ("wasi:config/store@0.2.0-draft", "get"),
    ("wasi:config/store@0.2.0-draft-2024-09-27", "get"),
    ("wasi:config/store@0.2.0-rc.1", "get"),
    ("wasi:filesystem/preopens@0.2.12", "get-directories"),
    ("wasi:filesystem/preopens@0.3.0", "get-directories"),
    ("wasi:filesystem/types@0.2.12", "descriptor"),
    ("wasi:filesystem/types@0.3.0", "descriptor"),
    ("wasi:http/client@0.3.0", "send"),
    ("wasi:http/outgoing-handler@0.2.12", "handle"),
    ("wasi:http/types@0.2.12", "fields"),
    ("wasi:http/types@0.3.0", "fields"),
    ("wasi:io/error@0.2.12", "error"),
    ("wasi:io/poll@0.2.12", "poll"),
    ("wasi:io/streams@0.2.12", "input-stream"),
    ("wasi:keyvalue/atomics@0.2.0-draft", "increment"),
    ("wasi:keyvalue/atomics@0.2.0-draft2", "increment"),
    ("wasi:keyvalue/batch@0.2.0-draft", "get-many"),
    ("wasi:keyvalue/batch@0.2.0-draft2", "get-many"),
    ("wasi:keyvalue/store@0.2.0-draft", "open"),
    ("wasi:keyvalue/store@0.2.0-draft2", "open"),
    ("wasi:logging/logging", "log"),
    ("wasi:logging/logging@0.1.0-draft", "log"),
    ("wasi:messaging/producer@0.2.0-draft", "send"),
    ("wasi:messaging/request-reply@0.2.0-draft", "request"),
    ("wasi:messaging/types@0.2.0-draft", "message"),
    ("wasi:otel/logs@0.2.0-rc.2", "on-emit"),
    ("wasi:otel/metrics@0.2.0-rc.2", "export"),
    ("wasi:otel/tracing@0.2.0-rc.2", "on-end"),
    ("wasi:random/insecure@0.2.12", "get-insecure-random-u64"),
    ("wasi:random/insecure@0.3.0", "get-insecure-random-u64"),
    ("wasi:random/insecure-seed@0.2.12", "insecure-seed"),
    ("wasi:random/insecure-seed@0.3.0", "get-insecure-seed"),
    ("wasi:random/random@0.2.12", "get-random-u64"),
    ("wasi:random/random@0.3.0", "get-random-u64"),
    ("wasi:sockets/instance-network@0.2.12", "instance-network"),
    ("wasi:sockets/ip-name-lookup@0.2.12", "resolve-addresses"),
    ("wasi:sockets/ip-name-lookup@0.3.0", "resolve-addresses"),
    ("wasi:sockets/network@0.2.12", "network"),
    ("wasi:sockets/tcp@0.2.12", "tcp-socket"),
    ("wasi:sockets/tcp-create-socket@0.2.12", "create-tcp-socket"),
    ("wasi:sockets/types@0.3.0", "tcp-socket"),
    ("wasi:sockets/udp@0.2.12", "udp-socket"),
    ("wasi:sockets/udp-create-socket@0.2.12", "create-udp-socket"),
    ("wasmbay:call/context@0.1.0", "step"),
    ("wasmbay:call/identity@0.1.0", "subject"),
    ("wasmcloud:messaging/consumer@0.2.0", "publish"),
];

#[test]
fn what_is_said_to_be_provided_is_what_the_linker_has() {
    let engine = Engine::new(EngineOptions {
        instances: 1,
        cache: None,
    });
    let engine = engine.unwrap();
    let mut plain = linker(&engine, Flavor::Plain).unwrap();
    let mut concurrent = linker(&engine, Flavor::Concurrent).unwrap();
    for (interface, item) in KNOWN {
        if !interface.contains("@0.3.") {
            let again = plain
                .instance(interface)
                .unwrap()
                .func_wrap(item, |_, (): ()| Ok(()));
            assert!(again.is_err(), "{interface} has no {item}");
        }
        let mut instance = concurrent.instance(interface).unwrap();
        let again = instance.func_wrap(item, |_, (): ()| Ok(()));
        assert!(again.is_err(), "{interface} has no {item}");
        assert_eq!(provided::missing(interface), None, "{interface}");
    }
    let of_types_alone = [
        "wasi:cli/types@0.3.0",
        "wasi:clocks/types@0.3.0",
        "wasi:otel/types@0.2.0-rc.2",
    ];
    let provided = provided::names().filter(|interface| !of_types_alone.contains(&&**interface));
    let provided: BTreeSet<_> = provided.collect();
    let known: BTreeSet<_> = KNOWN.map(|(interface, _)| interface.to_owned()).into();
    assert_eq!(provided, known);
}
