//! What the runtime has beside the language: encodings, `console`, random values.

use super::*;

const TOOLBOX: &str = "package t:box@1.0.0;
    interface tools {
        encode: func(text: string) -> list<u8>;
        decode: func(bytes: list<u8>) -> string;
        strict: func(bytes: list<u8>) -> bool;
        parts: func(bytes: list<u8>) -> string;
        say: func(text: string) -> bool;
        random: func() -> f64;
        id: func() -> string;
    }
    world service { export tools; }";

const TOOLS: &str = "
const early = Math.random();
export const tools = {
  encode: (text) => new TextEncoder().encode(text),
  decode: (bytes) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes),
  strict: (bytes) => {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes) !== null;
    } catch {
      return false;
    }
  },
  parts: (bytes) => {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    let text = '';
    for (const byte of bytes) text += decoder.decode(Uint8Array.of(byte), { stream: true });
    return text + decoder.decode();
  },
  say: (text) => {
    console.log(text, 7n, { a: [1n] }, early < 1);
    return true;
  },
  random: () => Math.random(),
  id: () => crypto.randomUUID(),
};";

const BOX: &str = "t:box/tools@1.0.0";

fn list(bytes: &[u8]) -> Val {
    Val::List(bytes.iter().copied().map(Val::U8).collect())
}

#[test]
fn text_is_encoded_and_decoded_as_rust_does_it() {
    let (_root, guest) = guest(TOOLBOX, TOOLS);
    let service = RefCell::new(Service::new(&build(&guest).unwrap()));
    let call = |function: &str, param: Val| service.borrow_mut().call(BOX, function, &[param]);
    // Bytes near those that are UTF-8, which random ones are not for long.
    let piece = prop_oneof![
        any::<Vec<u8>>().prop_map(|bytes| bytes.into_iter().take(3).collect()),
        any::<char>().prop_map(|char| char.to_string().into_bytes()),
        Just(vec![0xed, 0xa0, 0x80]),
        Just(vec![0xf0, 0x80, 0x80]),
        Just(vec![0xf4, 0x90, 0x80, 0x80]),
        Just(vec![0xe2, 0x82]),
        Just(vec![0xef, 0xbb, 0xbf]),
    ];
    let pieces = prop::collection::vec(piece, 0..8);
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let checked = runner.run(&(pieces, ".*"), |(pieces, text)| {
        let bytes = pieces.concat();
        let lossy = Val::String(String::from_utf8_lossy(&bytes).into_owned());
        prop_assert_eq!(call("decode", list(&bytes)), Ok(lossy.clone()));
        prop_assert_eq!(call("parts", list(&bytes)), Ok(lossy));
        let valid = Val::Bool(std::str::from_utf8(&bytes).is_ok());
        prop_assert_eq!(call("strict", list(&bytes)), Ok(valid));
        prop_assert_eq!(
            call("encode", Val::String(text.clone())),
            Ok(list(text.as_bytes()))
        );
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn a_service_says_what_it_logs_and_random_values_differ_between_instances() {
    let (_root, guest) = guest(TOOLBOX, TOOLS);
    let component = build(&guest).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut service = Service::new(&component);
    for _ in 0..3 {
        service.running = None;
        for _ in 0..2 {
            let Ok(Val::Float64(number)) = service.call(BOX, "random", &[]) else {
                panic!("no number");
            };
            assert!((0.0..1.0).contains(&number), "{number}");
            assert!(seen.insert(number.to_string()), "{number} twice");
            let Ok(Val::String(id)) = service.call(BOX, "id", &[]) else {
                panic!("no string");
            };
            assert_eq!(id.len(), 36, "{id}");
            assert_eq!((&id[14..15], &id[23..24]), ("4", "-"), "{id}");
            assert!(seen.insert(id));
        }
    }
    let said = "é".repeat(5000);
    service
        .call(BOX, "say", &[Val::String(said.clone())])
        .unwrap();
    let stderr = String::from_utf8_lossy(&service.stderr.contents()).into_owned();
    assert_eq!(stderr, format!("{said} 7n {{\"a\":[\"1n\"]}} true\n"));
}

#[test]
fn what_would_be_the_same_in_every_instance_is_not_done_at_build_time() {
    let (_root, early) = guest(SHOP, "crypto.randomUUID();");
    let error = build(&early).unwrap_err().to_string();
    assert!(
        error.contains("would be the same in every instance"),
        "{error}"
    );
    let wit = "package a:b@1.0.0; interface dep { f: func(); }
        world service { import dep; export dep; }";
    let source = "import { f } from 'a:b/dep@1.0.0'; f(); export const dep = { f };";
    let (_root, early) = guest(wit, source);
    let error = build(&early).unwrap_err().to_string();
    assert!(error.contains("call it inside functions"), "{error}");
}

#[test]
fn urls_are_taken_apart_as_browsers_do_it() {
    let wit = "package t:links@1.0.0;
        interface links { resolve: func(link: string, base: string) -> string; search: func(query: string) -> string; }
        world service { export links; }";
    let source = "export const links = {
        resolve: (link, base) => new URL(link, base).href,
        search: (query) => [...new URLSearchParams(query)].map(([name, value]) => `${name}: ${value}`).join(', '),
    };";
    let (_root, guest) = guest(wit, source);
    let mut service = Service::new(&build(&guest).unwrap());
    let mut call = |function: &str, texts: &[&str]| {
        let params: Vec<_> = texts
            .iter()
            .map(|text| Val::String((*text).into()))
            .collect();
        match service
            .call("t:links/links@1.0.0", function, &params)
            .unwrap()
        {
            Val::String(text) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        call(
            "resolve",
            &["../b c?q=é#f", "HTTPS://Example.com:443/a/d/e"]
        ),
        "https://example.com/a/b%20c?q=%C3%A9#f"
    );
    assert_eq!(call("search", &["?a=1+2&b=%26&a"]), "a: 1 2, b: &, a: ");
}

#[test]
fn a_source_without_urls_does_not_carry_them() {
    let (_root, guest) = guest(TOOLBOX, TOOLS);
    build(&guest).unwrap();
    let bundle = guest.folder.join(".wasmbay/javascript/bundle.js");
    let bundle = fs::read_to_string(bundle).unwrap();
    assert!(bundle.contains("TextDecoder") && !bundle.contains("URLSearchParams"));
}
