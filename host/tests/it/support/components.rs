//! Small components in the component text format: they need no guest toolchain.

/// Exports `test:guest/api@1.0.0`, imports nothing. Its functions do what their names say.
pub(crate) const GUEST: &str = r#"
(component
  (core module $code
    (memory (export "memory") 1)
    (table $table 1 funcref)
    (global $free (mut i32) (i32.const 4096))
    (global $calls (mut i32) (i32.const 0))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (block $fits
        (loop $more
          (br_if $fits (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
          (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
          (br $more)))
      (local.get $at))
    (func (export "reset") (param i32) (global.set $free (i32.const 4096)))
    (func (export "echo") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0))
      (i32.store (i32.const 20) (local.get 1))
      (i32.const 16))
    (func (export "repeat") (param $length i32) (result i32)
      (local $at i32)
      (local.set $at (call $alloc (local.get $length)))
      (memory.fill (local.get $at) (i32.const 120) (local.get $length))
      (i32.store (i32.const 16) (local.get $at))
      (i32.store (i32.const 20) (local.get $length))
      (i32.const 16))
    (func $alloc (param i32) (result i32)
      (local $at i32)
      (local.set $at (memory.grow (i32.add (i32.shr_u (local.get 0) (i32.const 16)) (i32.const 1))))
      (if (i32.eq (local.get $at) (i32.const -1)) (then unreachable))
      (i32.shl (local.get $at) (i32.const 16)))
    (func (export "count") (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (global.get $calls))
    (func (export "trap") unreachable)
    (func (export "spin") (loop $again (br $again)))
    (func (export "take-memory") (param i32)
      (if (i32.eq (memory.grow (local.get 0)) (i32.const -1)) (then unreachable)))
    (func (export "take-table") (param i32)
      (if (i32.eq (table.grow $table (ref.null func) (local.get 0)) (i32.const -1))
        (then unreachable)))
    (func (export "check") (param i32) (result i32)
      (i32.store8 (i32.const 16) (i32.ge_u (local.get 0) (i32.const 10)))
      (i32.store (i32.const 20) (local.get 0))
      (i32.const 16)))
  (core instance $core (instantiate $code))
  (alias core export $core "memory" (core memory $memory))
  (alias core export $core "realloc" (core func $realloc))
  (func $echo (param "text" string) (result string)
    (canon lift (core func $core "echo") (memory (core memory $memory)) (realloc (core func $realloc))
      (post-return (core func $core "reset"))))
  (func $repeat (param "length" u32) (result string)
    (canon lift (core func $core "repeat") (memory (core memory $memory)) (realloc (core func $realloc))))
  (func $count (result u32) (canon lift (core func $core "count")))
  (func $trap (canon lift (core func $core "trap")))
  (func $spin (canon lift (core func $core "spin")))
  (func $take-memory (param "pages" u32) (canon lift (core func $core "take-memory")))
  (func $take-table (param "elements" u32) (canon lift (core func $core "take-table")))
  (func $check (param "number" u32) (result (result u32 (error u32)))
    (canon lift (core func $core "check") (memory (core memory $memory))))
  (instance $api
    (export "echo" (func $echo))
    (export "repeat" (func $repeat))
    (export "count" (func $count))
    (export "trap" (func $trap))
    (export "spin" (func $spin))
    (export "take-memory" (func $take-memory))
    (export "take-table" (func $take-table))
    (export "check" (func $check)))
  (export "test:guest/api@1.0.0" (instance $api)))
"#;

/// A command that ends well.
pub(crate) const COMMAND: &str = r#"
(component
  (core module $code (func (export "run") (result i32) (i32.const 0)))
  (core instance $core (instantiate $code))
  (func $run (result (result)) (canon lift (core func $core "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
"#;

/// Exports `test:caller/api@1.0.0` and imports `test:other/api@1.0.0`: `try` has a place for a
/// failed import (an error type `string`), `ask` has none.
pub(crate) const CALLER: &str = r#"
(component
  (import "test:other/api@1.0.0" (instance $other
    (export "try" (func (param "n" u32) (result (result u32 (error string)))))
    (export "ask" (func (param "n" u32) (result u32)))))
  (core module $heap
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $heap (instantiate $heap))
  (alias core export $heap "memory" (core memory $memory))
  (alias core export $heap "realloc" (core func $realloc))
  (core func $try-core (canon lower (func $other "try") (memory (core memory $memory)) (realloc (core func $realloc))))
  (core func $ask-core (canon lower (func $other "ask")))
  (core module $code
    (import "other" "try" (func $try (param i32 i32)))
    (import "other" "ask" (func $ask (param i32) (result i32)))
    (func (export "try") (param i32) (result i32)
      (call $try (local.get 0) (i32.const 64))
      (i32.const 64))
    (func (export "ask") (param i32) (result i32) (call $ask (local.get 0))))
  (core instance $core (instantiate $code
    (with "other" (instance
      (export "try" (func $try-core))
      (export "ask" (func $ask-core))))))
  (func $try (param "n" u32) (result (result u32 (error string)))
    (canon lift (core func $core "try") (memory (core memory $memory)) (realloc (core func $realloc))))
  (func $ask (param "n" u32) (result u32) (canon lift (core func $core "ask")))
  (instance $api (export "try" (func $try)) (export "ask" (func $ask)))
  (export "test:caller/api@1.0.0" (instance $api)))
"#;

/// Exports `test:logger/api@1.0.0`, whose `log` logs so many records of 1,000 bytes.
pub(crate) const LOGGER: &str = r#"
(component
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $levels (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $levels)))
    (export "log" (func
      (param "level" $level) (param "context" string) (param "message" string)))))
  (core module $heap (memory (export "memory") 1))
  (core instance $heap (instantiate $heap))
  (alias core export $heap "memory" (core memory $memory))
  (core func $log (canon lower (func $logging "log") (memory $memory)))
  (core module $code
    (import "heap" "memory" (memory 1))
    (import "wasi" "log" (func $log (param i32 i32 i32 i32 i32)))
    (func (export "log") (param $times i32)
      (memory.fill (i32.const 1024) (i32.const 120) (i32.const 1000))
      (loop $again
        (if (i32.eqz (local.get $times)) (then (return)))
        (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 1000))
        (local.set $times (i32.sub (local.get $times) (i32.const 1)))
        (br $again))))
  (core instance $core (instantiate $code
    (with "heap" (instance $heap))
    (with "wasi" (instance (export "log" (func $log))))))
  (func $log-times (param "times" u32) (canon lift (core func $core "log")))
  (instance $api (export "log" (func $log-times)))
  (export "test:logger/api@1.0.0" (instance $api)))
"#;

/// Exports `test:sleeper/api@1.0.0`, whose `sleep` waits on a clock of WASI's.
pub(crate) const SLEEPER: &str = r#"
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type $p (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $drop (canon resource.drop $pollable))
  (core module $code
    (import "wasi" "block" (func $block (param i32)))
    (import "wasi" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "wasi" "drop" (func $drop (param i32)))
    (func (export "sleep") (param i64)
      (local $pollable i32)
      (local.set $pollable (call $subscribe (i64.mul (local.get 0) (i64.const 1000000))))
      (call $block (local.get $pollable))
      (call $drop (local.get $pollable))))
  (core instance $core (instantiate $code
    (with "wasi" (instance
      (export "block" (func $block))
      (export "subscribe" (func $subscribe))
      (export "drop" (func $drop))))))
  (func $sleep (param "milliseconds" u64) (canon lift (core func $core "sleep")))
  (instance $api (export "sleep" (func $sleep)))
  (export "test:sleeper/api@1.0.0" (instance $api)))
"#;

/// Exports `test:other/api@1.0.0`: `ask` returns the next number, `try` too but for 0.
pub(crate) const OTHER: &str = r#"
(component
  (core module $code
    (memory (export "memory") 1)
    (data (i32.const 32) "zero")
    (func (export "try") (param $n i32) (result i32)
      (if (result i32) (local.get $n)
        (then
          (i32.store8 (i32.const 64) (i32.const 0))
          (i32.store (i32.const 68) (i32.add (local.get $n) (i32.const 1)))
          (i32.const 64))
        (else
          (i32.store8 (i32.const 64) (i32.const 1))
          (i32.store (i32.const 68) (i32.const 32))
          (i32.store (i32.const 72) (i32.const 4))
          (i32.const 64))))
    (func (export "ask") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1))))
  (core instance $core (instantiate $code))
  (func $try (param "n" u32) (result (result u32 (error string)))
    (canon lift (core func $core "try") (memory (core memory $core "memory"))))
  (func $ask (param "n" u32) (result u32) (canon lift (core func $core "ask")))
  (instance $api (export "try" (func $try)) (export "ask" (func $ask)))
  (export "test:other/api@1.0.0" (instance $api)))
"#;

/// Exports `test:other/api@1.0.0` and imports it too: `ask` returns what another service says to it.
pub(crate) const PASSES_ON: &str = r#"
(component
  (import "test:other/api@1.0.0" (instance $other (export "ask" (func (param "n" u32) (result u32)))))
  (core func $again (canon lower (func $other "ask")))
  (core module $code
    (import "other" "ask" (func $ask (param i32) (result i32)))
    (func (export "ask") (param i32) (result i32) (call $ask (local.get 0))))
  (core instance $core (instantiate $code
    (with "other" (instance (export "ask" (func $again))))))
  (func $ask (param "n" u32) (result u32) (canon lift (core func $core "ask")))
  (instance $api (export "ask" (func $ask)))
  (export "test:other/api@1.0.0" (instance $api)))
"#;

/// Exports `test:events/sink@1.0.0`, whose `happened(key, n)` does what `judge-NAME` of
/// `test:judge/verdict@1.0.0` says to the same arguments: 0 returns ok, 1 returns an error, 2
/// traps, 3 spins.
pub(crate) const SINK: &str = r#"
(component
  (import "test:judge/verdict@1.0.0" (instance $verdict
    (export "judge-NAME" (func (param "key" u32) (param "n" u32) (result u32)))))
  (core func $judge (canon lower (func $verdict "judge-NAME")))
  (core module $code
    (import "verdict" "judge" (func $judge (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 32) "refused")
    (func (export "happened") (param $key i32) (param $n i32) (result i32)
      (local $verdict i32)
      (local.set $verdict (call $judge (local.get $key) (local.get $n)))
      (if (i32.eq (local.get $verdict) (i32.const 2)) (then unreachable))
      (if (i32.eq (local.get $verdict) (i32.const 3)) (then (loop $again (br $again))))
      (i32.store8 (i32.const 64) (local.get $verdict))
      (i32.store (i32.const 68) (i32.const 32))
      (i32.store (i32.const 72) (i32.const 7))
      (i32.const 64)))
  (core instance $core (instantiate $code
    (with "verdict" (instance (export "judge" (func $judge))))))
  (func $happened (param "key" u32) (param "n" u32) (result (result (error string)))
    (canon lift (core func $core "happened") (memory (core memory $core "memory"))))
  (instance $sink (export "happened" (func $happened)))
  (export "test:events/sink@1.0.0" (instance $sink)))
"#;

/// Exports `test:events/sink@1.0.0`, whose `happened(key, n)` calls `received(NAME, n)` of
/// `test:counter/api@1.0.0`, NAME being a number.
pub(crate) const COUNTS_CALLS: &str = r#"
(component
  (import "test:counter/api@1.0.0" (instance $counter
    (export "received" (func (param "by" u32) (param "n" u32)))))
  (core func $received (canon lower (func $counter "received")))
  (core module $code
    (import "counter" "received" (func $received (param i32 i32)))
    (memory (export "memory") 1)
    (func (export "happened") (param $key i32) (param $n i32) (result i32)
      (call $received (i32.const NAME) (local.get $n))
      (i32.const 64)))
  (core instance $core (instantiate $code
    (with "counter" (instance (export "received" (func $received))))))
  (func $happened (param "key" u32) (param "n" u32) (result (result (error string)))
    (canon lift (core func $core "happened") (memory (core memory $core "memory"))))
  (instance $sink (export "happened" (func $happened)))
  (export "test:events/sink@1.0.0" (instance $sink)))
"#;

/// Exports `test:events/sink@1.0.0`, whose `happened` returns an error for the number 13.
pub(crate) const RETURNS_ERROR: &str = r#"
(component
  (core module $code
    (memory (export "memory") 1)
    (data (i32.const 32) "unlucky")
    (func (export "happened") (param $key i32) (param $n i32) (result i32)
      (i32.store8 (i32.const 64) (i32.eq (local.get $n) (i32.const 13)))
      (i32.store (i32.const 68) (i32.const 32))
      (i32.store (i32.const 72) (i32.const 7))
      (i32.const 64)))
  (core instance $core (instantiate $code))
  (func $happened (param "key" u32) (param "n" u32) (result (result (error string)))
    (canon lift (core func $core "happened") (memory (core memory $core "memory"))))
  (instance $sink (export "happened" (func $happened)))
  (export "test:events/sink@1.0.0" (instance $sink)))
"#;

/// Exports `test:publisher/api@1.0.0`, whose `publish` calls `happened` of `test:events/sink@1.0.0` and
/// returns its result.
pub(crate) const PUBLISHES: &str = r#"
(component
  (import "test:events/sink@1.0.0" (instance $sink
    (export "happened" (func (param "key" u32) (param "n" u32) (result (result (error string)))))))
  (core module $heap
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $heap (instantiate $heap))
  (alias core export $heap "memory" (core memory $memory))
  (alias core export $heap "realloc" (core func $realloc))
  (core func $happened (canon lower (func $sink "happened") (memory (core memory $memory)) (realloc (core func $realloc))))
  (core module $code
    (import "sink" "happened" (func $happened (param i32 i32 i32)))
    (func (export "publish") (param i32 i32) (result i32)
      (call $happened (local.get 0) (local.get 1) (i32.const 64))
      (i32.const 64)))
  (core instance $core (instantiate $code
    (with "sink" (instance (export "happened" (func $happened))))))
  (func $publish (param "key" u32) (param "n" u32) (result (result (error string)))
    (canon lift (core func $core "publish") (memory (core memory $memory)) (realloc (core func $realloc))))
  (instance $api (export "publish" (func $publish)))
  (export "test:publisher/api@1.0.0" (instance $api)))
"#;

/// Exports `test:probe/api@1.0.0`, whose functions each ask the host for one thing, as much of it as
/// their arguments say: what a guest can reach that is granted nothing.
pub(crate) const PROBE: &str = r#"
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type $p (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $level')))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (import "wasi:http/types@0.2.0" (instance $http
    (export "fields" (type $fields (sub resource)))
    (type $error' (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $error (eq $error')))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[static]fields.from-list" (func (param "entries" (list (tuple string (list u8))))
      (result (result (own $fields) (error $error)))))
    (export "[method]fields.append" (func (param "self" (borrow $fields)) (param "name" string)
      (param "value" (list u8)) (result (result (error $error)))))))
  (core module $heap
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 65536))
    (func (export "reset") (global.set $free (i32.const 65536)))
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (block $fits
        (loop $more
          (br_if $fits (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
          (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
          (br $more)))
      (local.get $at)))
  (core instance $heap (instantiate $heap))
  (alias core export $heap "memory" (core memory $memory))
  (alias core export $heap "realloc" (core func $realloc))
  (core func $poll-core (canon lower (func $poll "poll") (memory (core memory $memory)) (realloc (core func $realloc))))
  (core func $subscribe-core (canon lower (func $clock "subscribe-duration")))
  (core func $random-core (canon lower (func $random "get-random-bytes") (memory (core memory $memory)) (realloc (core func $realloc))))
  (core func $log-core (canon lower (func $logging "log") (memory (core memory $memory))))
  (core func $new-core (canon lower (func $http "[constructor]fields")))
  (core func $from-core (canon lower (func $http "[static]fields.from-list") (memory (core memory $memory))))
  (core func $append-core (canon lower (func $http "[method]fields.append") (memory (core memory $memory))))
  (core module $code
    (import "heap" "memory" (memory 1))
    (import "heap" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
    (import "heap" "reset" (func $reset))
    (import "host" "poll" (func $poll (param i32 i32 i32)))
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "host" "random" (func $random (param i64 i32)))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "host" "new" (func $new (result i32)))
    (import "host" "from" (func $from (param i32 i32 i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (data (i32.const 32) "x-long")
    (func $alloc (param i32) (result i32)
      (call $reset)
      (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (local.get 0)))
    (func (export "random") (param i32)
      (call $reset)
      (call $random (i64.extend_i32_u (local.get 0)) (i32.const 64)))
    (func (export "log") (param i32)
      (local $at i32)
      (local.set $at (call $alloc (local.get 0)))
      (call $log (i32.const 0) (i32.const 32) (i32.const 6) (local.get $at) (local.get 0)))
    (func (export "poll") (param i32)
      (local $at i32) (local $end i32) (local $next i32) (local $handle i32)
      (local.set $handle (call $subscribe (i64.const 0)))
      (local.set $at (call $alloc (i32.mul (local.get 0) (i32.const 4))))
      (local.set $next (local.get $at))
      (local.set $end (i32.add (local.get $at) (i32.mul (local.get 0) (i32.const 4))))
      (loop $more
        (i32.store (local.get $next) (local.get $handle))
        (local.set $next (i32.add (local.get $next) (i32.const 4)))
        (br_if $more (i32.lt_u (local.get $next) (local.get $end))))
      (call $poll (local.get $at) (local.get 0) (i32.const 64)))
    (func (export "handles") (param i32)
      (loop $more
        (drop (call $subscribe (i64.const 0)))
        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
        (br_if $more (local.get 0))))
    (func (export "list-fields") (param i32)
      (local $at i32) (local $end i32) (local $next i32)
      (local.set $at (call $alloc (i32.mul (local.get 0) (i32.const 16))))
      (local.set $next (local.get $at))
      (local.set $end (i32.add (local.get $at) (i32.mul (local.get 0) (i32.const 16))))
      (loop $more
        (i32.store offset=0 (local.get $next) (i32.const 32))
        (i32.store offset=4 (local.get $next) (i32.const 6))
        (i32.store offset=8 (local.get $next) (i32.const 32))
        (i32.store offset=12 (local.get $next) (i32.const 6))
        (local.set $next (i32.add (local.get $next) (i32.const 16)))
        (br_if $more (i32.lt_u (local.get $next) (local.get $end))))
      (call $from (local.get $at) (local.get 0) (i32.const 64)))
    (func (export "keep-fields") (param i32)
      (local $at i32)
      (local.set $at (call $alloc (i32.const 100000)))
      (memory.fill (local.get $at) (i32.const 120) (i32.const 100000))
      (loop $more
        (call $append (call $new) (i32.const 32) (i32.const 6) (local.get $at) (i32.const 100000) (i32.const 64))
        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
        (br_if $more (local.get 0))))
    (func (export "spin") (loop $again (br $again))))
  (core instance $core (instantiate $code
    (with "heap" (instance $heap))
    (with "host" (instance
      (export "poll" (func $poll-core))
      (export "subscribe" (func $subscribe-core))
      (export "random" (func $random-core))
      (export "log" (func $log-core))
      (export "new" (func $new-core))
      (export "from" (func $from-core))
      (export "append" (func $append-core))))))
  (func $random (param "n" u32) (canon lift (core func $core "random")))
  (func $log (param "n" u32) (canon lift (core func $core "log")))
  (func $poll (param "n" u32) (canon lift (core func $core "poll")))
  (func $handles (param "n" u32) (canon lift (core func $core "handles")))
  (func $list-fields (param "n" u32) (canon lift (core func $core "list-fields")))
  (func $keep-fields (param "n" u32) (canon lift (core func $core "keep-fields")))
  (func $spin (canon lift (core func $core "spin")))
  (instance $api
    (export "random" (func $random))
    (export "log" (func $log))
    (export "poll" (func $poll))
    (export "handles" (func $handles))
    (export "list-fields" (func $list-fields))
    (export "keep-fields" (func $keep-fields))
    (export "spin" (func $spin)))
  (export "test:probe/api@1.0.0" (instance $api)))
"#;

/// A component whose `told` returns what an imported function does.
pub(crate) fn teller(import: &str, function: &str, export: &str) -> String {
    format!(
        r#"
(component
  (import "{import}" (instance $of
    (export "{function}" (func (result (option string))))))
  {MEMORY}
  (core func $ask (canon lower (func $of "{function}")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $code
    (import "of" "ask" (func $ask (param i32)))
    (func (export "told") (result i32)
      (call $ask (i32.const 16))
      (i32.const 16)))
  (core instance $code (instantiate $code
    (with "of" (instance (export "ask" (func $ask))))))
  (func $told (result (option string)) (canon lift (core func $code "told")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (instance $api (export "told" (func $told)))
  (export "{export}" (instance $api)))
"#
    )
}

/// A core instance `$memory` that allocates, with `name` at 512.
pub(crate) const MEMORY: &str = r#"
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (data (i32.const 512) "name")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
"#;
