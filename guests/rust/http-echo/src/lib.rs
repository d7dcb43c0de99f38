//! Answers HTTP itself: returns the request, says who sent it (`/sender`), asks another host
//! (`/relay?HOST:PORT`), answers with a status (`/status?STATUS`), or fails as the last part of the path says.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

struct Echo;

wasip2::http::proxy::export!(Echo);

impl Guest for Echo {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.rsplit('/').next() {
            Some("trap") => panic!("as asked"),
            Some("silent") => {}
            Some("spin") => loop {
                std::hint::spin_loop();
            },
            Some("break") => {
                let body = begin(&path, out);
                let stream = body.write().unwrap();
                stream.blocking_write_and_flush(b"the first part").unwrap();
                panic!("as asked");
            }
            // Answers without having read anything, `/status?STATUS`.
            Some(last) if last.starts_with("status?") => {
                let response = OutgoingResponse::new(Fields::new());
                let status = last["status?".len()..].parse().unwrap();
                response.set_status_code(status).unwrap();
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().unwrap();
                stream.blocking_write_and_flush(b"as asked").unwrap();
                drop(stream);
                OutgoingBody::finish(body, None).unwrap();
            }
            Some("sender") => {
                let body = begin(&path, out);
                let stream = body.write().unwrap();
                stream
                    .blocking_write_and_flush(sender(&request).as_bytes())
                    .unwrap();
                drop(stream);
                OutgoingBody::finish(body, None).unwrap();
            }
            Some(last) if last.starts_with("relay?") => {
                let answer =
                    relay(&last["relay?".len()..]).unwrap_or_else(|error| error.to_string());
                let body = begin(&path, out);
                let stream = body.write().unwrap();
                stream.blocking_write_and_flush(answer.as_bytes()).unwrap();
                drop(stream);
                OutgoingBody::finish(body, None).unwrap();
            }
            _ => echo(&request, &path, out),
        }
    }
}

/// The scheme, and every header that says where the request comes from, a line each.
fn sender(request: &IncomingRequest) -> String {
    let scheme = match request.scheme() {
        Some(Scheme::Https) => "https",
        _ => "http",
    };
    let headers = request.headers().entries().into_iter();
    let said = headers.filter(|(name, _)| name.contains("forwarded") || name == "x-real-ip");
    let lines = said.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(&value)));
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines.insert(0, scheme.to_owned());
    lines.join("\n")
}

/// Sends the head of the response.
fn begin(path: &str, out: ResponseOutparam) -> OutgoingBody {
    let fields = Fields::new();
    fields.append("x-path", path.as_bytes()).unwrap();
    let response = OutgoingResponse::new(fields);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

/// Sends every piece of the request's body back as it comes.
fn echo(request: &IncomingRequest, path: &str, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let body = begin(path, out);
    {
        let (from, to) = (incoming.stream().unwrap(), body.write().unwrap());
        loop {
            match from.blocking_read(4096) {
                Ok(bytes) => to.blocking_write_and_flush(&bytes).unwrap(),
                Err(StreamError::Closed) => break,
                // Dropping the body unfinished breaks the response off.
                Err(StreamError::LastOperationFailed(_)) => return,
            }
        }
    }
    drop(IncomingBody::finish(incoming));
    OutgoingBody::finish(body, None).unwrap();
}

/// What another host answers: the status and the first piece of the body.
fn relay(authority: &str) -> Result<String, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some("/from-a-guest")).unwrap();
    let pending = outgoing_handler::handle(request, None)?;
    pending.subscribe().block();
    let response = pending.get().unwrap().unwrap()?;
    let body = response.consume().unwrap();
    let piece = body.stream().unwrap().blocking_read(4096).unwrap();
    Ok(format!(
        "{} {}",
        response.status(),
        String::from_utf8_lossy(&piece)
    ))
}
