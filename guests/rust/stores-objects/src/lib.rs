//! Stores objects of the service's own: tests of `wasi:blobstore` call it.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "stores-objects",
    generate_all,
});

use exports::bay::stores_objects::objects::Guest;
use wasi::blobstore::blobstore;
use wasi::blobstore::container::Container;
use wasi::blobstore::types::{IncomingValue, ObjectId, OutgoingValue};
use wasi::io::streams::StreamError;

/// Bytes that a stream takes at once.
const PIECE: u64 = 4_096;

struct StoresObjects;

export!(StoresObjects);

impl Guest for StoresObjects {
    fn create(container: String) -> Result<(), String> {
        blobstore::create_container(&container).map(drop)
    }

    fn delete_container(container: String) -> Result<(), String> {
        blobstore::delete_container(&container)
    }

    fn exists(container: String) -> Result<bool, String> {
        blobstore::container_exists(&container)
    }

    fn about(container: String) -> Result<(String, u64), String> {
        let container = open(&container)?;
        Ok((container.name()?, container.info()?.created_at))
    }

    fn clear(container: String) -> Result<(), String> {
        open(&container)?.clear()
    }

    fn write(container: String, name: String, text: String, before: bool) -> Result<(), String> {
        let container = open(&container)?;
        let value = OutgoingValue::new_outgoing_value();
        if !before {
            container.write_data(&name, &value)?;
        }
        fill(&container, &name, &value, text.len() as u64, |from, to| {
            text.as_bytes()[from as usize..to as usize].to_vec()
        })?;
        if before {
            container.write_data(&name, &value)?;
        }
        OutgoingValue::finish(value)
    }

    fn write_large(container: String, name: String, size: u64) -> Result<(), String> {
        let container = open(&container)?;
        let value = OutgoingValue::new_outgoing_value();
        container.write_data(&name, &value)?;
        fill(&container, &name, &value, size, numbered)?;
        OutgoingValue::finish(value)
    }

    fn write_half(container: String, name: String, size: u64) -> Result<(), String> {
        let container = open(&container)?;
        let value = OutgoingValue::new_outgoing_value();
        container.write_data(&name, &value)?;
        fill(&container, &name, &value, size, numbered)
    }

    fn read(container: String, name: String, start: u64, end: u64) -> Result<String, String> {
        let value = open(&container)?.get_data(&name, start, end)?;
        let bytes = IncomingValue::incoming_value_consume_sync(value)?;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    fn read_large(container: String, name: String, start: u64, end: u64) -> Result<u64, String> {
        let value = open(&container)?.get_data(&name, start, end)?;
        let size = value.size();
        let stream = IncomingValue::incoming_value_consume_async(value)?;
        let mut read = 0;
        loop {
            match stream.blocking_read(64 << 10) {
                Ok(bytes) => {
                    for byte in bytes {
                        let at = start + read;
                        if byte != (at / PIECE) as u8 {
                            return Err(format!("byte {at} is {byte}"));
                        }
                        read += 1;
                    }
                }
                Err(StreamError::Closed) if read == size => return Ok(read),
                Err(StreamError::Closed) => return Err(format!("{read} of {size} bytes")),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(error.to_debug_string());
                }
            }
        }
    }

    fn read_many(container: String, name: String, count: u32) -> Result<(), String> {
        let container = open(&container)?;
        let mut streams = Vec::new();
        for _ in 0..count {
            let value = container.get_data(&name, 0, u64::MAX)?;
            streams.push(IncomingValue::incoming_value_consume_async(value)?);
        }
        Ok(())
    }

    fn write_many(container: String, count: u32) -> Result<(), String> {
        let container = open(&container)?;
        let mut values = Vec::new();
        for number in 0..count {
            let value = OutgoingValue::new_outgoing_value();
            let Ok(stream) = value.outgoing_value_write_body() else {
                return container.write_data(&number.to_string(), &value);
            };
            values.push((stream, value));
        }
        Ok(())
    }

    fn names(container: String, len: u64, skip: u64) -> Result<Vec<String>, String> {
        let names = open(&container)?.list_objects()?;
        let mut all = Vec::new();
        if skip > 0 {
            let (skipped, _) = names.skip_stream_object_names(skip)?;
            if skipped != skip {
                return Err(format!("{skipped} were skipped"));
            }
        }
        loop {
            let (some, was_last) = names.read_stream_object_names(len)?;
            all.extend(some);
            if was_last {
                return Ok(all);
            }
        }
    }

    fn has(container: String, name: String) -> Result<bool, String> {
        open(&container)?.has_object(&name)
    }

    fn size(container: String, name: String) -> Result<u64, String> {
        Ok(open(&container)?.object_info(&name)?.size)
    }

    fn delete(container: String, names: Vec<String>) -> Result<(), String> {
        let container = open(&container)?;
        match &names[..] {
            [name] => container.delete_object(name),
            names => container.delete_objects(names),
        }
    }

    fn copy(
        container: String,
        object: String,
        to_container: String,
        to_object: String,
    ) -> Result<(), String> {
        let (from, to) = ids(container, object, to_container, to_object);
        blobstore::copy_object(&from, &to)
    }

    fn move_(
        container: String,
        object: String,
        to_container: String,
        to_object: String,
    ) -> Result<(), String> {
        let (from, to) = ids(container, object, to_container, to_object);
        blobstore::move_object(&from, &to)
    }
}

fn open(container: &str) -> Result<Container, String> {
    blobstore::get_container(container)
}

fn ids(
    container: String,
    object: String,
    to_container: String,
    to_object: String,
) -> (ObjectId, ObjectId) {
    let to = ObjectId {
        container: to_container,
        object: to_object,
    };
    (ObjectId { container, object }, to)
}

/// The bytes of `write-large` in a range within one piece.
fn numbered(from: u64, to: u64) -> Vec<u8> {
    vec![(from / PIECE) as u8; (to - from) as usize]
}

fn fill(
    container: &Container,
    name: &str,
    value: &OutgoingValue,
    size: u64,
    bytes: impl Fn(u64, u64) -> Vec<u8>,
) -> Result<(), String> {
    let Ok(stream) = value.outgoing_value_write_body() else {
        // It says why.
        return container.write_data(name, value);
    };
    let mut from = 0;
    while from < size {
        let to = (from + PIECE).min(size);
        let written = stream.blocking_write_and_flush(&bytes(from, to));
        written.map_err(|error| match error {
            StreamError::LastOperationFailed(error) => error.to_debug_string(),
            StreamError::Closed => "closed".to_owned(),
        })?;
        from = to;
    }
    Ok(())
}
