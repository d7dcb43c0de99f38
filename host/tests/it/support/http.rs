//! One HTTP request at a time, as curl makes them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::PATIENCE;

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The status line and the headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Status and body, to compare both at once.
    pub(crate) fn status_and_body(&self) -> (u16, &str) {
        (self.status, &self.body)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// GETs the path, or POSTs the JSON to it. `address` is `host:port`.
///
/// # Errors
///
/// If the connection fails or breaks off.
pub(crate) fn request(
    address: &str,
    path: &str,
    json: Option<&str>,
) -> Result<Response, std::io::Error> {
    match json {
        None => send(address, "GET", path, &[], ""),
        Some(body) => {
            let kind = ("Content-Type", "application/json");
            send(address, "POST", path, &[kind], body)
        }
    }
}

/// Sends any request. `Host` is the address, unless the headers have another.
///
/// # Errors
///
/// If the connection fails or breaks off.
pub(crate) fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response, std::io::Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In HTTP/1.0 the body is all that comes until the connection is closed.
    let mut request = format!("{method} {path} HTTP/1.0\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    request += body;
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let broken = || std::io::Error::other(format!("broken off: {response:?}"));
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        status: status.ok_or_else(broken)?,
        head: head.replace("\r\n", "\n"),
        body: body.to_owned(),
    })
}
