//! Answers HTTP itself, as a component of WASI 0.3: returns the request's body while it comes, says who sent it (`/sender`), asks another host
//! (`/relay?HOST:PORT`), answers with a status (`/status?STATUS`), or fails as the last part of the path says.

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct Concurrent;

wasip3::http::service::export!(Concurrent);

impl wasip3::exports::http::handler::Guest for Concurrent {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        match path.rsplit('/').next() {
            Some("trap") => panic!("as asked"),
            Some("error") => Err(ErrorCode::ConfigurationError),
            Some("spin") => loop {
                std::hint::spin_loop();
            },
            // A part of a body, and then nothing more.
            Some("break") => Ok(writes("the first part".to_owned(), || panic!("as asked"))),
            // Answers without having read anything, `/status?STATUS`.
            Some(last) if last.starts_with("status?") => {
                let response = writes("as asked".to_owned(), || {});
                let status = last["status?".len()..].parse().unwrap();
                response.set_status_code(status).unwrap();
                Ok(response)
            }
            Some("sender") => Ok(writes(sender(&request), || {})),
            Some(last) if last.starts_with("relay?") => {
                let (_, trailers) = wit_future::new(|| Ok(None));
                let (asked, _) = Request::new(Fields::new(), None, trailers, None);
                asked.set_method(&Method::Get).unwrap();
                asked.set_scheme(Some(&Scheme::Http)).unwrap();
                asked.set_authority(Some(&last["relay?".len()..])).unwrap();
                asked.set_path_with_query(Some("/from-a-guest")).unwrap();
                let answered = client::send(asked).await;
                Ok(answered.unwrap_or_else(|error| writes(format!("{error:?}"), || {})))
            }
            _ => {
                let fields = Fields::new();
                fields.append("x-path", path.as_bytes()).unwrap();
                let (_, read) = wit_future::new(|| Ok(()));
                let (body, trailers) = Request::consume_body(request, read);
                let (response, _) = Response::new(fields, Some(body), trailers);
                Ok(response)
            }
        }
    }
}

/// The scheme, and every header that says where the request comes from, a line each.
fn sender(request: &Request) -> String {
    let scheme = match request.get_scheme() {
        Some(Scheme::Https) => "https",
        _ => "http",
    };
    let headers = request.get_headers().copy_all().into_iter();
    let said = headers.filter(|(name, _)| name.contains("forwarded") || name == "x-real-ip");
    let lines = said.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(&value)));
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines.insert(0, scheme.to_owned());
    lines.join("\n")
}

/// A response whose body is written when it is on its way.
fn writes(text: String, then: fn()) -> Response {
    let (mut writer, body) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(body), trailers);
    wit_bindgen::spawn_local(async move {
        writer.write_all(text.into_bytes()).await;
        then();
    });
    response
}
