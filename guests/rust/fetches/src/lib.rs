//! Asks others by HTTP, for tests of that within durable functions.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "fetches",
    generate_all,
});

use exports::bay::fetches::client::Guest;
use wasip2::http::outgoing_handler::{self, FutureIncomingResponse};
use wasip2::http::types::{Fields, IncomingBody, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::poll;

struct Fetches;

export!(Fetches);

impl Guest for Fetches {
    fn charge(address: String, order: String) -> Result<String, String> {
        let (request, body) = begin(&address, "/charge", Method::Post);
        let charging = outgoing_handler::handle(request, None).map_err(|e| format!("{e:?}"))?;
        write(body, order.as_bytes());
        let charged = answer(&charging)?;
        let (request, body) = begin(&address, "/receipt", Method::Get);
        let getting = outgoing_handler::handle(request, None).map_err(|e| format!("{e:?}"))?;
        write(body, b"");
        Ok(format!("{charged}, {}", answer(&getting)?))
    }

    fn all(address: String) -> Result<String, String> {
        let mut answers = Vec::new();
        let (request, last) = begin(&address, "/c", Method::Put);
        let third = outgoing_handler::handle(request, None);
        let mut open = vec![third.map_err(|e| format!("{e:?}"))?];
        for path in ["/a", "/b"] {
            let (request, body) = begin(&address, path, Method::Get);
            open.push(outgoing_handler::handle(request, None).map_err(|e| format!("{e:?}"))?);
            write(body, b"");
        }
        write(last, b"late");
        while !open.is_empty() {
            let pollables: Vec<_> = open.iter().map(|one| one.subscribe()).collect();
            let ready = poll::poll(&pollables.iter().collect::<Vec<_>>());
            drop(pollables);
            for at in ready.into_iter().rev() {
                answers.push(answer(&open.remove(at as usize))?);
            }
        }
        Ok(answers.join(" "))
    }
}

fn begin(address: &str, path: &str, method: Method) -> (OutgoingRequest, OutgoingBody) {
    let fields = Fields::new();
    fields.append("authorization", b"Bearer 1234").unwrap();
    fields.append("x-own", b"\xe4").unwrap();
    let request = OutgoingRequest::new(fields);
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(address)).unwrap();
    request.set_path_with_query(Some(path)).unwrap();
    request.set_method(&method).unwrap();
    let body = request.body().unwrap();
    (request, body)
}

fn write(body: OutgoingBody, bytes: &[u8]) {
    let stream = body.write().unwrap();
    for part in bytes.chunks(4_096) {
        stream.blocking_write_and_flush(part).unwrap();
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// Status, a header and body, once they are there.
fn answer(asked: &FutureIncomingResponse) -> Result<String, String> {
    asked.subscribe().block();
    let answer = asked
        .get()
        .unwrap()
        .unwrap()
        .map_err(|e| format!("{e:?}"))?;
    let secret = answer.headers().get("set-cookie").concat();
    let body = answer.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut read = Vec::new();
    while let Ok(part) = stream.blocking_read(64 << 10) {
        read.extend(part);
    }
    drop(stream);
    IncomingBody::finish(body);
    Ok(format!(
        "{} {}{}",
        answer.status(),
        String::from_utf8_lossy(&read),
        String::from_utf8_lossy(&secret)
    ))
}
