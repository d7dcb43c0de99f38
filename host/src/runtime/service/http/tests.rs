use std::time::Duration;

use http_body_util::Full;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::*;
use crate::interfaces::memory::MemoryBackend;
use crate::manifest::ServiceSpec;
use crate::runtime::{Component, Engine, EngineOptions, Runtime};

/// A component that counts the requests of its instance and runs `then` on the second and later ones.
fn component(then: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
          (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
          (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $new (param i32) (result i32)))
          (import "wasi:http/types@0.2.0" "[static]response-outparam.set"
            (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
          (import "wasi:http/types@0.2.0" "[resource-drop]response-outparam" (func $drop (param i32)))
          (import "test:other/api" "act" (func $act))
          (memory (export "memory") 1)
          (global $served (mut i32) (i32.const 0))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
          (func $answer (param i32)
            (call $set (local.get 0) (i32.const 0) (call $new (call $fields))
              (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
          (func (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $out i32)
            (global.set $served (i32.add (global.get $served) (i32.const 1)))
            (if (i32.eq (global.get $served) (i32.const 1))
              (then (call $answer (local.get $out)))
              (else {then}))))"#
    );
    let mut resolve = Resolve::default();
    resolve
        .push_str("http.wit", include_str!("tests.wit"))
        .unwrap();
    let world = "package test:other; interface api { act: func(); }
        world other { import api; import wasi:http/types@0.2.0; export wasi:http/incoming-handler@0.2.0; }";
    let package = resolve.push_str("other.wit", world).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .encode()
        .unwrap()
}

const ANSWER: &str = "(call $answer (local.get $out))";
const TRAP: &str = "unreachable";
const NOTHING: &str = "";
const LET_GO: &str = "(call $drop (local.get $out))";

struct Served {
    service: Arc<Service>,
    backend: Arc<dyn Backend>,
}

fn service(then: &str) -> Served {
    let engine = Engine::new(EngineOptions {
        instances: 5,
        cache: None,
    });
    let runtime = Runtime::new(engine.unwrap()).unwrap();
    let component = Component::new(runtime.engine(), &component(then)).unwrap();
    let spec = ServiceSpec::new("site");
    let service = Service::new(&runtime, "app", Arc::new(component), Arc::new(spec));
    let backend = MemoryBackend::default();
    backend.answer("bay.app.test.other.api.unversioned.act", "");
    Served {
        service: Arc::new(service.unwrap()),
        backend: Arc::new(backend),
    }
}

impl Served {
    async fn request(&self) -> Result<u16, CallError> {
        self.request_with(Bytes::new()).await
    }

    async fn request_with(&self, body: Bytes) -> Result<u16, CallError> {
        let body = Full::new(body).map_err(|never| match never {});
        let request = http::Request::post("http://site/").body(body.boxed_unsync());
        let call = Call::new(Bytes::new(), Duration::from_secs(5));
        let served = self.service.http(request.unwrap(), call, &self.backend);
        let (response, rest) = served.await?;
        let status = response.status().as_u16();
        let (_, body) = tokio::join!(rest, response.into_body().collect());
        body.unwrap();
        Ok(status)
    }

    fn known(&self) -> super::Served {
        self.service.http.as_ref().unwrap().served()
    }

    fn errors(&self) -> u64 {
        let (_, stats) = self.service.http_handler().unwrap();
        stats.read().errors
    }
}

#[tokio::test]
async fn instances_that_serve_one_request_each_serve_all_requests() {
    for then in [TRAP, NOTHING, LET_GO] {
        let served = service(then);
        for _ in 0..6 {
            let body = Bytes::from_static(b"not read by the guest");
            assert_eq!(served.request_with(body).await.unwrap(), 200, "{then}");
        }
        assert_eq!(served.known(), super::Served::One);
        assert_eq!(served.errors(), 0, "{then}");
    }
}

#[tokio::test]
async fn a_failure_of_many_at_once_is_shown_to_none() {
    let served = service(TRAP);
    let warm = tokio::join!(served.request(), served.request());
    let again = tokio::join!(served.request(), served.request());
    for answer in [warm.0, warm.1, again.0, again.1] {
        assert_eq!(answer.unwrap(), 200);
    }
}

#[tokio::test]
async fn instances_that_serve_many_requests_are_used_again() {
    let served = service(ANSWER);
    for _ in 0..3 {
        assert_eq!(served.request().await.unwrap(), 200);
    }
    assert_eq!(served.known(), super::Served::Many);
}

#[tokio::test]
async fn a_failure_after_many_requests_is_one() {
    let fails_at_three =
        format!("(if (i32.eq (global.get $served) (i32.const 2)) (then {ANSWER}) (else {TRAP}))");
    let served = service(&fails_at_three);
    for _ in 0..2 {
        assert_eq!(served.request().await.unwrap(), 200);
    }
    served.request().await.unwrap_err();
    assert_eq!(served.known(), super::Served::Many);
    assert_eq!(served.request().await.unwrap(), 200, "on a fresh instance");
}

#[tokio::test]
async fn a_guest_that_has_acted_is_not_made_to_do_it_twice() {
    let served = service("(call $act) unreachable");
    assert_eq!(served.request().await.unwrap(), 200);
    served.request().await.unwrap_err();
    assert_eq!(served.known(), super::Served::Unknown);
}

#[tokio::test]
async fn a_body_that_was_read_is_not_sent_again() {
    let lend = || {
        let body = Full::new(Bytes::from_static(b"read")).map_err(|never| match never {});
        Lent::new(http::Request::new(body.boxed_unsync()))
    };
    let (mut request, lent) = lend();
    request.body_mut().frame().await.unwrap().unwrap();
    drop(request);
    assert!(lent.take_back().is_none());
    let (request, lent) = lend();
    drop(request);
    let body = lent.take_back().unwrap().into_body().collect().await;
    assert_eq!(body.unwrap().to_bytes(), "read");
}
