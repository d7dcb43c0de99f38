//! Stores keys in the service's own bucket: tests of `wasi:keyvalue` call it.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "stores-keys",
    generate_all,
});

use exports::bay::stores_keys::bucket::Guest;
use wasi::keyvalue::store::{self, Bucket, Error};
use wasi::keyvalue::{atomics, batch};

struct StoresKeys;

export!(StoresKeys);

impl Guest for StoresKeys {
    fn open(identifier: String) -> Result<(), String> {
        store::open(&identifier).map(drop).map_err(why)
    }

    fn get(key: String) -> Result<Option<String>, String> {
        let value = bucket()?.get(&key).map_err(why)?;
        value
            .map(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()))
            .transpose()
    }

    fn set(key: String, value: String) -> Result<(), String> {
        bucket()?.set(&key, value.as_bytes()).map_err(why)
    }

    fn delete(key: String) -> Result<(), String> {
        bucket()?.delete(&key).map_err(why)
    }

    fn exists(key: String) -> Result<bool, String> {
        bucket()?.exists(&key).map_err(why)
    }

    fn keys() -> Result<Vec<String>, String> {
        let bucket = bucket()?;
        let (mut keys, mut cursor) = (Vec::new(), None);
        loop {
            let page = bucket.list_keys(cursor).map_err(why)?;
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }

    fn increment(key: String, delta: u64) -> Result<u64, String> {
        atomics::increment(&bucket()?, &key, delta).map_err(why)
    }

    fn set_many(keys: Vec<String>) -> Result<(), String> {
        let pair = |key: String| (key.clone(), key.into_bytes());
        let pairs: Vec<_> = keys.into_iter().map(pair).collect();
        batch::set_many(&bucket()?, &pairs).map_err(why)
    }

    fn get_many(keys: Vec<String>) -> Result<Vec<String>, String> {
        let values = batch::get_many(&bucket()?, &keys).map_err(why)?;
        let text = |(key, value): (String, Vec<u8>)| {
            let value = String::from_utf8(value).map_err(|error| error.to_string())?;
            if key == value {
                Ok(value)
            } else {
                Err(format!("{key} has the value of {value}"))
            }
        };
        values.into_iter().flatten().map(text).collect()
    }

    fn delete_many(keys: Vec<String>) -> Result<(), String> {
        batch::delete_many(&bucket()?, &keys).map_err(why)
    }
}

fn bucket() -> Result<Bucket, String> {
    store::open("").map_err(why)
}

fn why(error: Error) -> String {
    match error {
        Error::NoSuchStore => "no-such-store".to_owned(),
        Error::AccessDenied => "access-denied".to_owned(),
        Error::Other(why) => why,
    }
}
