//! What the host holds for one instance behind its handles: header fields, requests, bodies, timers.
//!
//! It is the host's memory and not the guest's, so the memory limit does not see it. A guest can only
//! add to it while it runs, so it is counted whenever a running guest's tick is over and before an
//! instance is kept for another call: what is held beyond the bound is what a guest can copy in one
//! tick.

use std::any::Any;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::p3;

use super::http::BODY_CHUNK;

/// Handles of host resources (streams, pollables, HTTP bodies) that one instance can hold. A guest
/// whose language collects its garbage leaves one for each chunk of a body that it reads: a body of
/// 100 MB in chunks of 8 KiB needs fewer than this. The same number bounds what one call lends, which
/// costs half a microsecond each.
pub(crate) const MAX_HANDLES: usize = 16_384;

/// Bytes that the host holds for one instance.
pub(crate) const MAX_HELD: usize = 16 << 20;

/// What an open file or folder counts for. It takes little memory, but all instances together have as many
/// of them as the process may have open.
const OPEN_FILE: usize = MAX_HELD / 64;

/// An entry of the table with what most resources keep: a box, a task, a timer.
const ENTRY: usize = 160;

/// Bytes that the host holds for the instance that this table belongs to: exact for headers and
/// text, an upper bound for bodies that are being written. Counts no further than a little over
/// [`MAX_HELD`].
///
/// # Cost
///
/// A few nanoseconds for each entry and each header field, so below a millisecond at [`MAX_HELD`].
pub(crate) fn held_bytes(table: &mut ResourceTable) -> usize {
    let mut held = 0;
    for entry in table.iter_mut() {
        held += ENTRY + size_of_resource(entry);
        if held > MAX_HELD {
            break;
        }
    }
    held
}

fn size_of_resource(resource: &(dyn Any + Send)) -> usize {
    if let Some(fields) = resource.downcast_ref::<FieldMap>() {
        size_of_fields(fields)
    } else if let Some(request) = resource.downcast_ref::<HostOutgoingRequest>() {
        use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
        let method = match &request.method {
            Method::Other(name) => name.len(),
            _ => 0,
        };
        let scheme = match &request.scheme {
            Some(Scheme::Other(name)) => name.len(),
            _ => 0,
        };
        let texts = [&request.authority, &request.path_with_query];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        size_of_fields(&request.headers) + method + scheme + texts
    } else if let Some(response) = resource.downcast_ref::<HostOutgoingResponse>() {
        size_of_fields(&response.headers)
    } else if resource.is::<HostOutgoingBody>() {
        BODY_CHUNK
    } else if let Some(request) = resource.downcast_ref::<p3::Request>() {
        let path = request.path_with_query.as_ref();
        let texts = [
            request
                .authority
                .as_ref()
                .map(|authority| authority.as_str()),
            path.map(|path| path.as_str()),
        ];
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        size_of_fields(&request.headers) + texts + BODY_CHUNK
    } else if let Some(response) = resource.downcast_ref::<p3::Response>() {
        size_of_fields(&response.headers) + BODY_CHUNK
    } else if resource.is::<Descriptor>() {
        OPEN_FILE
    } else {
        0
    }
}

/// Clones of one map count each: the first change makes them differ.
fn size_of_fields(fields: &FieldMap) -> usize {
    let field = size_of::<http::HeaderName>() + size_of::<http::HeaderValue>();
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        field + name.as_str().len() + value.len()
    };
    fields.iter().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn fields(bytes: usize) -> FieldMap {
        let mut fields = FieldMap::new_mutable(128 << 10);
        let value = http::HeaderValue::from_maybe_shared(vec![b'x'; bytes]).unwrap();
        let name = http::HeaderName::from_static("x-long");
        fields.append_raw(name, value).unwrap();
        fields
    }

    #[test]
    fn fields_count_with_what_they_hold() {
        let mut table = ResourceTable::new();
        assert_eq!(held_bytes(&mut table), 0);
        let first = table.push(fields(100_000)).unwrap();
        let one = held_bytes(&mut table);
        assert!((100_000..101_000).contains(&one), "{one}");
        table.push(fields(100_000)).unwrap();
        assert_eq!(held_bytes(&mut table), 2 * one);
        table.delete(first).unwrap();
        assert_eq!(held_bytes(&mut table), one);
    }

    #[test]
    fn counting_ends_soon_after_the_bound() {
        let mut table = ResourceTable::new();
        for _ in 0..10_000 {
            let mut many = FieldMap::new_mutable(128 << 10);
            for _ in 0..1_000 {
                let name = http::HeaderName::from_static("x");
                let value = http::HeaderValue::from_static("y");
                many.append_raw(name, value).unwrap();
            }
            table.push(many).unwrap();
        }
        let started = Instant::now();
        let held = held_bytes(&mut table);
        let took = started.elapsed();
        assert!((MAX_HELD..MAX_HELD + (1 << 20)).contains(&held), "{held}");
        // All of it has ten million fields, which takes some hundred times as long.
        assert!(took < Duration::from_millis(100), "{took:?}");
    }
}
