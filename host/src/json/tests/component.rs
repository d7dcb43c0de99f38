//! A component returns the value that it was called with.

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store};

use super::*;
use crate::value::ResultPath;

/// More than sixteen values wide, so that both its parameter and its result stand in memory, in
/// the same way: the core function only returns the pointer.
const ECHO: &str = r#"(component
    (core module $m
        (memory (export "memory") 1)
        (global $free (mut i32) (i32.const 1024))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
            (global.get $free)
            (global.set $free (i32.add (global.get $free) (local.get 3))))
        (func (export "echo") (param i32) (result i32) (local.get 0)))
    (core instance $i (instantiate $m))
    (type $state' (variant (case "open") (case "shut" (list f32))))
    (export $state "state" (type $state'))
    (type $colour' (enum "red" "deep-blue"))
    (export $colour "colour" (type $colour'))
    (type $rights' (flags "read" "write" "may-run"))
    (export $rights "rights" (type $rights'))
    (type $all' (record
        (field "flag" bool) (field "tiny" u8) (field "small" s16) (field "big-one" u64)
        (field "narrow" f32) (field "ratio" f64) (field "letter" char) (field "name" string)
        (field "blob" (list u8)) (field "pair" (tuple s8 (option u16))) (field "state" $state)
        (field "colour" $colour) (field "deep" (option (option string)))
        (field "outcome" (result (tuple s64 s32) (error string))) (field "bare" (result))
        (field "rights" $rights) (field "many" (list (tuple u16 u32)))
        (field "fixed" (list u16 3))))
    (export $all "all" (type $all'))
    (func (export "echo") (param "all" $all) (result $all)
        (canon lift (core func $i "echo") (memory (core memory $i "memory"))
            (realloc (core func $i "realloc")))))"#;

#[tokio::test]
async fn a_component_takes_the_values_that_are_read_and_returns_those_that_are_written() {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .wasm_component_model_fixed_length_lists(true);
    let engine = Engine::new(&config).unwrap();
    let component = Component::new(&engine, ECHO).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Linker::new(&engine)
        .instantiate_async(&mut store, &component)
        .await
        .unwrap();
    let echo = instance.get_func(&mut store, "echo").unwrap();
    let signature = Signature::of(&echo.ty(&store)).unwrap();
    let limits = Limits::default();

    for (given, written) in [
        (
            concat!(
                r#"{"all":{"flag":true,"tiny":255,"small":-32768,"bigOne":"18446744073709551615","#,
                r#""narrow":0.1,"ratio":-1.5e-9,"letter":"é","name":"a\"\\\u0001\n🦀","#,
                r#""blob":"+/8=","pair":[-1,7],"state":{"tag":"shut","val":[0.1,"NaN"]},"#,
                r#""colour":"deep-blue","deep":{"tag":"some","val":"x"},"outcome":{"ok":[-1,2]},"#,
                r#""bare":{"ok":null},"rights":["read","may-run"],"many":[[1,2],[3,4]],"#,
                r#""fixed":[1,2,3]}}"#
            ),
            None,
        ),
        (
            concat!(
                r#"[{"fixed":[1.0,2,3],"many":[],"rights":{"write":true},"bare":{"err":null},"#,
                r#""outcome":{"err":"no"},"deep":{"tag":"some","val":null},"colour":"red","#,
                r#""state":"open","pair":[0,null],"blob":[1,2,3],"name":"","letter":"\u0000","#,
                r#""ratio":"-Infinity","narrow":3,"big_one":7,"small":0,"tiny":0,"flag":false}]"#
            ),
            Some(concat!(
                r#"{"flag":false,"tiny":0,"small":0,"bigOne":7,"narrow":3.0,"ratio":"-Infinity","#,
                r#""letter":"\u0000","name":"","blob":"AQID","pair":[0,null],"#,
                r#""state":{"tag":"open"},"colour":"red","deep":{"tag":"some","val":null},"#,
                r#""outcome":{"err":"no"},"bare":{"err":null},"rights":["write"],"many":[],"#,
                r#""fixed":[1,2,3]}"#
            )),
        ),
    ] {
        let args = decode_arguments(given.as_bytes(), &signature, &limits).unwrap();
        let called = crate::value::call(echo, &mut store, &args, ResultPath::PLAIN).await;
        let result = called.unwrap();
        assert_eq!(result.as_ref(), args.first());
        let result = encode_result(result.as_ref(), &signature, &limits).unwrap();
        let result = String::from_utf8(result).unwrap();
        // What is written as arguments is the same under the parameter's name.
        match written {
            Some(written) => assert_eq!(result, written),
            None => assert_eq!(format!("{{\"all\":{result}}}"), given),
        }
    }
}
