//! Messages by another implementation of Protocol Buffers, and bytes that are none.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorSet;

use super::types::{Body, Declared};
use super::*;
use crate::manifest::ProtoLock;
use crate::value::arbitrary::{arbitrary_shape, arbitrary_value};

const LIMIT: usize = 1 << 20;

/// The API of one interface with these functions, of a package in which types have these names.
fn api_with(functions: &[(&str, &str)], types: &[(&str, &str)], lock: &ProtoLock) -> Api {
    let interface: InterfaceId = "shop:orders/orders@1.2.0".parse().unwrap();
    let functions = functions
        .iter()
        .map(|(name, ty)| (interface.function(*name), ty.parse().unwrap()));
    let types = types
        .iter()
        .map(|(name, ty)| ((*name).to_owned(), ty.parse().unwrap()));
    let key = (package_of(&interface), interface.name.clone());
    let named = BTreeMap::from([(key, types.collect())]);
    Api::of(functions.collect(), &named, lock)
}

fn api(functions: &[(&str, &str)]) -> Api {
    api_with(functions, &[], &ProtoLock::default())
}

fn method<'a>(api: &'a Api, name: &str) -> &'a Method {
    let path = format!("/shop.orders.v1.Orders/{name}");
    api.method(&path).unwrap_or_else(|| panic!("{path}"))
}

/// All files, checked by another implementation.
fn pool(api: &Api) -> DescriptorPool {
    let mut file = vec![descriptors::empty_file()];
    file.extend(own::files());
    file.extend(api.files());
    DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file }).unwrap()
}

fn proto(api: &Api) -> String {
    let protos = api.protos(&BTreeMap::new());
    let (path, text) = protos.first_key_value().unwrap();
    assert_eq!(path, "shop/orders/v1/orders.proto");
    text.clone()
}

const LINE: &str = "record { sku: string, quantity: u16 }";
const WHY: &str = "enum { empty, too-many }";

#[test]
fn types_become_messages_that_read_like_them() {
    let place = format!(
        "func(lines: list<{LINE}>, note: option<string>, at: tuple<f64, s8>, raw: list<u8>, \
         grid: list<list<u32>>, maybe: option<option<{LINE}>>, may: flags {{ read, write-all }}) \
         -> result<{LINE}, variant {{ why({WHY}), none, all(list<char>) }}>"
    );
    let types = [("line", LINE), ("order-error", WHY)];
    let functions = [
        ("place", &*place),
        ("ping", "func()"),
        ("count", "func() -> u64"),
    ];
    let api = api_with(&functions, &types, &ProtoLock::default());
    assert_eq!(
        proto(&api),
        r#"// Made from WIT by `wasmbay proto`.

syntax = "proto3";

package shop.orders.v1;

import "google/protobuf/empty.proto";

service Orders {
  rpc Count(CountRequest) returns (CountResponse);
  rpc Ping(PingRequest) returns (PingResponse);
  rpc Place(PlaceRequest) returns (PlaceResponse);
}

message CountRequest {}

message CountResponse {
  uint64 value = 1;
}

message PingRequest {}

message PingResponse {}

message Line {
  string sku = 1;
  uint32 quantity = 2;
}

message PlaceRequest {
  message At {
    double f0 = 1;
    sint32 f1 = 2;
  }

  message Grid {
    repeated uint32 values = 1;
  }

  message Maybe {
    Line value = 1;
  }

  message May {
    bool read = 1;
    bool write_all = 2;
  }

  repeated Line lines = 1;
  optional string note = 2;
  At at = 3;
  bytes raw = 4;
  repeated Grid grid = 5;
  Maybe maybe = 6;
  May may = 7;
}

message PlaceResponse {
  message Err {
    message All {
      repeated string values = 1;
    }

    oneof case {
      OrderError why = 1;
      google.protobuf.Empty none = 2;
      All all = 3;
    }
  }

  oneof result {
    Line ok = 1;
    Err err = 2;
  }
}

enum OrderError {
  ORDER_ERROR_UNSPECIFIED = 0;
  ORDER_ERROR_EMPTY = 1;
  ORDER_ERROR_TOO_MANY = 2;
}
"#
    );
    pool(&api);
}

#[test]
fn numbers_of_a_lock_stay() {
    let functions = |fields: &str| format!("func(line: record {{ {fields} }})");
    let before = functions("sku: string, quantity: u16");
    let types = [("line", "record { sku: string, quantity: u16 }")];
    let old = api_with(&[("put", &before)], &types, &ProtoLock::default());
    let lock = old.lock(&ProtoLock::default());
    let after = functions("note: string, quantity: u16");
    let types = [("line", "record { note: string, quantity: u16 }")];
    let new = api_with(&[("put", &after)], &types, &lock);
    let lock = new.lock(&lock);
    let new = api_with(&[("put", &after)], &types, &lock);
    assert!(
        proto(&new).contains(
            "message Line {\n  reserved 1;\n  string note = 3;\n  uint32 quantity = 2;\n}"
        ),
        "{}",
        proto(&new)
    );
    assert_eq!(new.lock(&lock), lock);
    pool(&new);
}

#[test]
fn names_that_meet_are_told_apart() {
    let interface: InterfaceId = "a:b/orders".parse().unwrap();
    let other: InterfaceId = "a:b/stock".parse().unwrap();
    let get: Signature = "func(error: enum { a }) -> variant { case(u8), result(u8) }"
        .parse()
        .unwrap();
    let put: Signature = "func(error: enum { b })".parse().unwrap();
    let functions = [
        (interface.function("get"), get.clone()),
        (other.function("get"), put),
    ];
    let types = |text: &str| BTreeMap::from([("error".to_owned(), text.parse().unwrap())]);
    let package = package_of(&interface);
    let named = BTreeMap::from([
        ((package.clone(), "orders".to_owned()), types("enum { a }")),
        ((package.clone(), "stock".to_owned()), types("enum { b }")),
    ]);
    let api = Api::of(functions.into(), &named, &ProtoLock::default());
    let files = api.protos(&BTreeMap::new());
    let text = &files["a/b/unversioned/b.proto"];
    for part in [
        "rpc Get(OrdersGetRequest) returns (OrdersGetResponse);",
        "rpc Get(StockGetRequest) returns (StockGetResponse);",
        "OrdersError error = 1;",
        "StockError error = 1;",
        "oneof case2 {",
        "enum StockError {\n  STOCK_ERROR_UNSPECIFIED = 0;",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    pool(&api);
}

fn refused(signature: &str, bytes: &[u8]) -> String {
    let api = api(&[("f", signature)]);
    let error = method(&api, "F").decode_request(bytes, LIMIT).unwrap_err();
    error.to_string()
}

#[test]
fn hostile_bytes_are_refused_where_they_go_wrong() {
    for (signature, bytes, error) in [
        (
            "func(a: u8)",
            &[0x08, 0x80, 0x02][..],
            "a: expected u8 (0 to 255), found 256",
        ),
        (
            "func(a: s8)",
            &[0x08, 0x81, 0x02],
            "a: expected s8 (-128 to 127), found -129",
        ),
        (
            "func(a: u32)",
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
            "a: expected u32 (0 to 4294967295), found 18446744073709551615",
        ),
        (
            "func(a: u8)",
            &[0x0a, 0x00],
            "a: expected u8 (0 to 255), found a length and bytes",
        ),
        (
            "func(a: string)",
            &[0x08, 0x01],
            "a: expected a string, found a varint",
        ),
        (
            "func(a: string)",
            &[0x0a, 0x05, b'x'],
            "a: expected more bytes, found the end",
        ),
        (
            "func(a: string)",
            &[0x0a, 0x01, 0xff],
            "a: expected a string, found bytes that are no UTF-8",
        ),
        (
            "func(a: char)",
            &[],
            "a: expected a string of one character, found nothing",
        ),
        (
            "func(a: char)",
            &[0x0a, 0x02, b'x', b'y'],
            "a: expected a string of one character, found \"xy\"",
        ),
        (
            "func(a: f64)",
            &[0x09, 0x00],
            "a: expected more bytes, found the end",
        ),
        (
            "func(a: u8)",
            &[0x08],
            "a: expected a varint, found bytes that are none",
        ),
        (
            "func(a: u8)",
            &[0x00, 0x00],
            "message: expected a field, found bytes that begin none",
        ),
        (
            "func(a: u8)",
            &[0x7f],
            "message: expected a field, found bytes that begin none",
        ),
        (
            "func(a: u8)",
            &[0x12, 0x05, 0x00],
            "#2: expected a field, found bytes that end too soon",
        ),
        (
            "func(a: record { b: record { c: u8 } })",
            &[0x0a, 0x00],
            "a.b: expected a shop.orders.v1.FRequest.A.B, found nothing",
        ),
        (
            "func(a: record { b: record { c: u8 } })",
            &[],
            "a: expected a shop.orders.v1.FRequest.A, found nothing",
        ),
        (
            "func(a: list<record { c: u8 }>)",
            &[0x0a, 0x00, 0x0a, 0x02, 0x0a, 0x00],
            "a[1].c: expected u8 (0 to 255), found a length and bytes",
        ),
        (
            "func(a: list<u8, 2>)",
            &[0x0a, 0x01, 0x07],
            "a: expected 2 items, found 1",
        ),
        (
            "func(a: variant { x, y(u8) })",
            &[0x0a, 0x00],
            "a: expected one of x, y, found none",
        ),
        (
            "func(a: enum { x })",
            &[0x08, 0x00],
            "a: expected a value of shop.orders.v1.FRequest.A, found A_UNSPECIFIED",
        ),
        (
            "func(a: enum { x })",
            &[],
            "a: expected a value of shop.orders.v1.FRequest.A, found nothing",
        ),
        (
            "func(a: enum { x })",
            &[0x08, 0x09],
            "a: expected a value of shop.orders.v1.FRequest.A, found 9",
        ),
    ] {
        assert_eq!(refused(signature, bytes), error, "{signature}");
    }
}

#[test]
fn what_a_type_does_not_have_is_skipped() {
    let api = api(&[("f", "func(a: list<u8, 0>, b: list<bool>)")]);
    // A varint, a string, a group with a group in it, four bytes and eight.
    let unknown = [
        &[0x50, 0x01][..],
        &[0x52, 0x01, b'x'],
        &[0x53, 0x5b, 0x5c, 0x54],
        &[0x55, 0, 0, 0, 0],
        &[0x51, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    // Packed and not, one after the other.
    let bools = [&[0x12, 0x02, 0x01, 0x00][..], &[0x10, 0x01]].concat();
    let bytes = [&unknown.concat()[..], &bools].concat();
    let args = method(&api, "F").decode_request(&bytes, LIMIT).unwrap();
    let bools = [true, false, true].map(Value::Bool);
    assert_eq!(args, [Value::FixedList(vec![]), Value::List(bools.into())]);
}

#[test]
fn parts_of_one_message_are_one_and_the_last_case_counts() {
    let api = api(&[
        ("f", "func(a: record { b: u8, c: list<u8> })"),
        (
            "g",
            "func(a: variant { x(u8), y(record { b: u8, c: u8 }) })",
        ),
    ]);
    let parts = [0x0a, 0x02, 0x08, 0x01, 0x0a, 0x03, 0x12, 0x01, 0x09];
    let args = method(&api, "F").decode_request(&parts, LIMIT).unwrap();
    let whole = Value::Record(vec![Value::U8(1), Value::Bytes(vec![9])]);
    assert_eq!(args, [whole]);
    let y = |number: u8| [0x12, 0x02, number, 0x05];
    let x = [0x08, 0x07];
    let cases = |inner: &[u8]| {
        let bytes = [&[0x0a, u8::try_from(inner.len()).unwrap()], inner].concat();
        let mut args = method(&api, "G").decode_request(&bytes, LIMIT).unwrap();
        args.pop().unwrap()
    };
    let record = |b, c| {
        let fields = Value::Record(vec![Value::U8(b), Value::U8(c)]);
        Value::Variant(1, Some(Box::new(fields)))
    };
    assert_eq!(cases(&[y(0x08), y(0x10)].concat()), record(5, 5));
    assert_eq!(cases(&[&y(0x08)[..], &x, &y(0x10)].concat()), record(0, 5));
    assert_eq!(
        cases(&[&y(0x08)[..], &x].concat()),
        Value::Variant(0, Some(Box::new(Value::U8(7))))
    );
}

#[test]
fn a_message_has_bounds() {
    let api = api(&[
        ("many", "func(a: list<record { b: u8 }>)"),
        ("flags", "func(a: list<bool>)"),
        ("big", "func(a: string)"),
    ]);
    let many = [0x0a, 0x00].repeat(60_000);
    let error = method(&api, "Many")
        .decode_request(&many, LIMIT)
        .unwrap_err();
    assert!(
        error.too_large && error.to_string().contains("node limit"),
        "{error}"
    );
    let mut packed = vec![0x0a, 0xc1, 0x9a, 0x0c];
    packed.resize(4 + 200_001, 1);
    let error = method(&api, "Flags")
        .decode_request(&packed, LIMIT)
        .unwrap_err();
    assert!(error.too_large && error.path.starts_with("a["), "{error}");
    let error = method(&api, "Big")
        .decode_request(&[0x0a, 0x02, 1, 1], 3)
        .unwrap_err();
    assert!(error.too_large, "{error}");
    let deep = format!("func(a: {}u8{})", "option<".repeat(70), ">".repeat(70));
    let api = self::api(&[("deep", &deep)]);
    let mut bytes = vec![0x08, 0x01];
    for _ in 0..69 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    let error = method(&api, "Deep")
        .decode_request(&bytes, LIMIT)
        .unwrap_err();
    assert!(error.to_string().contains("depth limit"), "{error}");
}

#[test]
fn a_response_that_is_too_large_or_no_result_is_none() {
    let api = api(&[("f", "func() -> string"), ("g", "func() -> result<u8>")]);
    let text = Value::String("x".repeat(100));
    let error = method(&api, "F")
        .encode_response(Some(text), 100)
        .unwrap_err();
    assert!(error.too_large);
    for (name, value) in [
        ("F", Some(Value::U8(1))),
        ("F", None),
        ("G", Some(Value::Result(Ok(None)))),
    ] {
        let error = method(&api, name).encode_response(value, 100).unwrap_err();
        assert!(!error.too_large, "{error}");
    }
}

#[test]
fn a_long_string_moves_its_length() {
    let api = api(&[("f", "func(a: record { b: string })")]);
    let value = Value::Record(vec![Value::Record(vec![Value::String("x".repeat(300))])]);
    let bytes = codec::encode(&value, &method(&api, "F").request, LIMIT).unwrap();
    assert_eq!(
        codec::decode(&bytes, &method(&api, "F").request, LIMIT).unwrap(),
        value
    );
}

#[test]
fn reflection_knows_everything_that_is_served() {
    let api = api(&[("place", "func(a: record { b: enum { c } }) -> result<u8>")]);
    let reflected = Reflected::of([&api]);
    // `list_services`, and the answer by another implementation.
    let pool = pool(&api);
    let types = ["Request", "Response"].map(|name| {
        pool.get_message_by_name(&format!("grpc.reflection.v1.ServerReflection{name}"))
            .unwrap()
    });
    let [request, response] = types;
    let ask = |field: &str, value: &str| {
        let mut message = DynamicMessage::new(request.clone());
        message.set_field_by_name(field, prost_reflect::Value::String(value.to_owned()));
        let answer = reflected.answer(&message.encode_to_vec()).unwrap();
        DynamicMessage::decode(response.clone(), &*answer)
            .unwrap()
            .to_string()
    };
    let services = ask("list_services", "*");
    for name in [
        "shop.orders.v1.Orders",
        HEALTH,
        REFLECTION[0],
        REFLECTION[1],
    ] {
        assert!(services.contains(&format!("\"{name}\"")), "{services}");
    }
    for symbol in [
        "shop.orders.v1.Orders",
        "shop.orders.v1.Orders.Place",
        "shop.orders.v1.PlaceRequest.A.B",
        ".shop.orders.v1.PlaceRequest",
    ] {
        let answer = ask("file_containing_symbol", symbol);
        assert!(
            answer.contains("file_descriptor_response"),
            "{symbol}: {answer}"
        );
    }
    for (field, value) in [
        ("file_containing_symbol", "shop.orders.v1.Nothing"),
        ("file_by_filename", "nothing.proto"),
        ("all_extension_numbers_of_type", "x.Y"),
    ] {
        let answer = ask(field, value);
        assert!(answer.contains("error_code:5"), "{value}: {answer}");
    }
    let empty = ask("file_by_filename", "google/protobuf/empty.proto");
    assert!(empty.contains("file_descriptor_response"), "{empty}");
    assert_eq!(reflected.answer(&[0xff]), None);
}

/// The names of all messages and enums.
fn declared(all: &[Declared], names: &mut Vec<String>) {
    for one in all {
        match one {
            Declared::Enum(one) => names.push(one.path.clone()),
            Declared::Message(message) => {
                names.push(message.path.clone());
                declared(&message.nested, names);
            }
        }
    }
}

proptest! {
    /// Bytes that we write are read by another implementation of the descriptors that we make, and the bytes
    /// that it writes of that are the same value to us.
    #[test]
    fn messages_are_those_of_another_implementation(
        (shapes, values) in proptest::collection::vec(arbitrary_shape(), 1..4).prop_flat_map(|shapes| {
            let values: Vec<_> = shapes.iter().map(arbitrary_value).collect();
            (Just(shapes), values)
        })
    ) {
        let params = shapes.iter().enumerate().map(|(at, shape)| format!("p{at}: {shape}"));
        let signature = format!("func({})", params.collect::<Vec<_>>().join(", "));
        let api = api(&[("f", &signature)]);
        let pool = pool(&api);
        let message = &method(&api, "F").request;
        let value = Value::Record(values);
        let bytes = codec::encode(&value, message, usize::MAX).unwrap();
        prop_assert_eq!(&codec::decode(&bytes, message, usize::MAX).unwrap(), &value);
        let known = pool.get_message_by_name("shop.orders.v1.FRequest").unwrap();
        let theirs = DynamicMessage::decode(known, &*bytes).unwrap();
        prop_assert!(theirs.unknown_fields().next().is_none());
        let again = theirs.encode_to_vec();
        prop_assert_eq!(codec::decode(&again, message, usize::MAX).unwrap(), value);
    }

    /// Names are told apart, whatever the types are, and locking changes no number.
    #[test]
    fn a_lock_of_now_changes_nothing(shape in arbitrary_shape()) {
        let signature = format!("func(a: {shape}) -> {shape}");
        let open = api(&[("f", &signature)]);
        let mut names = Vec::new();
        declared(&open.packages[0].declared, &mut names);
        let count = names.len();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), count);
        let lock = open.lock(&ProtoLock::default());
        let locked = api_with(&[("f", &signature)], &[], &lock);
        prop_assert_eq!(proto(&locked), proto(&open));
    }

    /// No bytes make it fail otherwise than by an error.
    #[test]
    fn any_bytes_are_read_or_refused(
        shape in arbitrary_shape(),
        bytes in proptest::collection::vec(any::<u8>(), 0..60)
    ) {
        let api = api(&[("f", &format!("func(a: {shape})"))]);
        let request = method(&api, "F");
        if let Ok(args) = request.decode_request(&bytes, LIMIT) {
            let written = codec::encode(&Value::Record(args.clone()), &request.request, LIMIT).unwrap();
            prop_assert_eq!(request.decode_request(&written, LIMIT).unwrap(), args);
        }
    }
}

#[test]
fn a_result_without_payloads_is_a_choice() {
    let api = api(&[("f", "func() -> result")]);
    assert!(matches!(method(&api, "F").response.body, Body::Result(_)));
    for (value, bytes) in [(Ok(None), [0x0a, 0]), (Err(None), [0x12, 0])] {
        let value = Value::Result(value);
        let written = method(&api, "F")
            .encode_response(Some(value), LIMIT)
            .unwrap();
        assert_eq!(written, bytes);
    }
}

#[test]
fn what_is_said_of_types_is_at_their_names() {
    let ty = format!("func(line: {LINE}) -> result<option<{LINE}>, {WHY}>");
    let types = [("line", LINE), ("why", WHY)];
    let api = api_with(&[("place", &ty)], &types, &ProtoLock::default());
    let docs: crate::shape::Docs = serde_json::from_value(serde_json::json!({
        "functions": { "place": "Places it.\u{b}message X {}" },
        "types": [
            { "shape": LINE, "text": "A line.\n\nOf an order.", "members": { "sku": "Which." } },
            { "shape": WHY, "members": { "too-many": "More than there are." } },
        ],
    }))
    .unwrap();
    let interface: InterfaceId = "shop:orders/orders@1.2.0".parse().unwrap();
    let described = Description {
        exports: vec![crate::shape::InterfaceDescription {
            id: interface.clone(),
            functions: BTreeMap::from([("place".to_owned(), ty.parse().unwrap())]),
            types: BTreeMap::new(),
        }],
        docs: BTreeMap::from([(interface, docs)]),
        ..Description::default()
    };
    let protos = api.protos(&BTreeMap::from([("a".to_owned(), described)]));
    let text = protos.values().next().unwrap();
    for expected in [
        "  // Places it. message X {}\n  rpc Place(",
        "\n// A line.\n//\n// Of an order.\nmessage Line {\n  // Which.\n  string sku = 1;\n  uint32",
        "  // More than there are.\n  WHY_TOO_MANY = 2;\n",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}
