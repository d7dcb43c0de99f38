//! The benchmarks' echo as an HTTP component, which takes JSON apart itself.

use serde::{Deserialize, Serialize};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

#[derive(Deserialize)]
struct Arguments {
    item: Item,
}

#[derive(Deserialize, Serialize)]
struct Item {
    id: u32,
    text: String,
}

struct Echo;

wasip2::http::proxy::export!(Echo);

impl Guest for Echo {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let Arguments { item } = serde_json::from_slice(&read(&request)).unwrap();
        let answer = serde_json::to_vec(&item).unwrap();
        let fields = Fields::from_list(&[
            ("content-type".to_owned(), b"application/json".to_vec()),
            (
                "content-length".to_owned(),
                answer.len().to_string().into_bytes(),
            ),
        ]);
        let response = OutgoingResponse::new(fields.unwrap());
        let body = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        {
            let to = body.write().unwrap();
            // As much as a stream takes at once.
            for piece in answer.chunks(4096) {
                to.blocking_write_and_flush(piece).unwrap();
            }
        }
        OutgoingBody::finish(body, None).unwrap();
    }
}

fn read(request: &IncomingRequest) -> Vec<u8> {
    let incoming = request.consume().unwrap();
    let mut body = Vec::new();
    {
        let from = incoming.stream().unwrap();
        loop {
            match from.blocking_read(64 << 10) {
                Ok(bytes) => body.extend(bytes),
                Err(StreamError::Closed) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    drop(IncomingBody::finish(incoming));
    body
}
