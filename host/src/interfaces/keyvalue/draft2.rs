//! `wasi:keyvalue@0.2.0-draft2`: the same buckets, with a cursor that is a text and sums that have a
//! sign. Its `cas` is not provided.

use wasmtime::component::{Linker, Resource};

use super::bindings::wasi::keyvalue::atomics::Host as FirstAtomics;
use super::bindings::wasi::keyvalue::batch::Host as FirstBatch;
use super::bindings::wasi::keyvalue::store::{self as first, HostBucket as First};
use super::{Bucket, HasKeyValue, KeyValueCtxView, KeyValueView};
use bindings::wasi::keyvalue::store::{Error, KeyResponse};
use bindings::wasi::keyvalue::{atomics, batch, store};

mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package wasmbay:host;
            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
            package wasi:keyvalue@0.2.0-draft2 {
                interface store {
                    variant error { no-such-store, access-denied, other(string) }
                    record key-response { keys: list<string>, cursor: option<string> }
                    open: func(identifier: string) -> result<bucket, error>;
                    resource bucket {
                        get: func(key: string) -> result<option<list<u8>>, error>;
                        set: func(key: string, value: list<u8>) -> result<_, error>;
                        delete: func(key: string) -> result<_, error>;
                        exists: func(key: string) -> result<bool, error>;
                        list-keys: func(cursor: option<string>) -> result<key-response, error>;
                    }
                }
                interface atomics {
                    use store.{bucket, error};
                    increment: func(bucket: borrow<bucket>, key: string, delta: s64) -> result<s64, error>;
                }
                interface batch {
                    use store.{bucket, error};
                    get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
                    set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
                    delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
                }
            }
        ",
        world: "wasmbay:host/keyvalue",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::super::Bucket },
    });
}

pub(super) fn add_to_linker<T: KeyValueView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    store::add_to_linker::<T, HasKeyValue>(linker, T::keyvalue)?;
    atomics::add_to_linker::<T, HasKeyValue>(linker, T::keyvalue)?;
    batch::add_to_linker::<T, HasKeyValue>(linker, T::keyvalue)
}

impl From<first::Error> for Error {
    fn from(error: first::Error) -> Self {
        match error {
            first::Error::NoSuchStore => Self::NoSuchStore,
            first::Error::AccessDenied => Self::AccessDenied,
            first::Error::Other(why) => Self::Other(why),
        }
    }
}

/// What a function returns; the outer error is a trap.
type Outcome<T> = wasmtime::Result<Result<T, Error>>;

impl store::Host for KeyValueCtxView<'_> {
    async fn open(&mut self, identifier: String) -> Outcome<Resource<Bucket>> {
        let opened = first::Host::open(self, identifier).await?;
        Ok(opened.map_err(Into::into))
    }
}

impl store::HostBucket for KeyValueCtxView<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Outcome<Option<Vec<u8>>> {
        Ok(First::get(self, bucket, key).await?.map_err(Into::into))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Outcome<()> {
        let set = First::set(self, bucket, key, value).await?;
        Ok(set.map_err(Into::into))
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Outcome<()> {
        Ok(First::delete(self, bucket, key).await?.map_err(Into::into))
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Outcome<bool> {
        Ok(First::exists(self, bucket, key).await?.map_err(Into::into))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Outcome<KeyResponse> {
        let cursor = match cursor.map(|cursor| cursor.parse()).transpose() {
            Ok(cursor) => cursor,
            Err(_) => return Ok(Err(Error::Other("the cursor is of no page".to_owned()))),
        };
        let page = First::list_keys(self, bucket, cursor).await?;
        let page = page.map(|page| KeyResponse {
            keys: page.keys,
            cursor: page.cursor.map(|cursor| cursor.to_string()),
        });
        Ok(page.map_err(Into::into))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        First::drop(self, bucket).await
    }
}

impl atomics::Host for KeyValueCtxView<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> Outcome<i64> {
        let Ok(delta) = delta.try_into() else {
            let why = "numbers can be added to and not subtracted from";
            return Ok(Err(Error::Other(why.to_owned())));
        };
        let sum = FirstAtomics::increment(self, bucket, key, delta).await?;
        Ok(sum.map_err(Into::into).and_then(|sum| {
            let too_large = |_| Error::Other(format!("the sum {sum} has no place in an s64"));
            i64::try_from(sum).map_err(too_large)
        }))
    }
}

impl batch::Host for KeyValueCtxView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Outcome<Vec<Option<(String, Vec<u8>)>>> {
        let values = FirstBatch::get_many(self, bucket, keys).await?;
        Ok(values.map_err(Into::into))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> Outcome<()> {
        let set = FirstBatch::set_many(self, bucket, key_values).await?;
        Ok(set.map_err(Into::into))
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Outcome<()> {
        let deleted = FirstBatch::delete_many(self, bucket, keys).await?;
        Ok(deleted.map_err(Into::into))
    }
}
