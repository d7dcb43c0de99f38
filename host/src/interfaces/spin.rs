//! `fermyon:spin`: what components of Spin import, as other names of the service's own bucket and
//! configuration. Those of its outgoing HTTP are `wasi:http`.

use std::collections::BTreeSet;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower, Resource};

use super::CallerView;
use super::keyvalue::bindings::wasi::keyvalue::store::{self as first, HostBucket as _};
use super::keyvalue::{Bucket, HasKeyValue, KeyValueCtxView, KeyValueView};
use bindings::fermyon::spin::key_value::{self, Error};

mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package wasmbay:host;
            world spin {
                import fermyon:spin/key-value@2.0.0;
            }
            package fermyon:spin@2.0.0 {
                interface key-value {
                    resource store {
                        open: static func(label: string) -> result<store, error>;
                        get: func(key: string) -> result<option<list<u8>>, error>;
                        set: func(key: string, value: list<u8>) -> result<_, error>;
                        delete: func(key: string) -> result<_, error>;
                        exists: func(key: string) -> result<bool, error>;
                        get-keys: func() -> result<list<string>, error>;
                    }
                    variant error { store-table-full, no-such-store, access-denied, other(string) }
                }
            }
        ",
        world: "wasmbay:host/spin",
        imports: { default: async | trappable },
        with: { "fermyon:spin/key-value.store": super::super::keyvalue::Bucket },
    });
}

/// Upper bound of the bytes of all keys that are returned at once.
const MAX_KEYS_BYTES: usize = 1 << 20;

/// Why there is no variable.
#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "the type of the function has them")]
enum NoVariable {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

/// `fermyon:spin/key-value` and `fermyon:spin/variables`.
pub(crate) fn add_to_linker<T: KeyValueView + CallerView>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    key_value::add_to_linker::<T, HasKeyValue>(linker, T::keyvalue)?;
    let mut variables = linker.instance("fermyon:spin/variables@2.0.0")?;
    variables.func_wrap(
        "get",
        |mut store: StoreContextMut<'_, T>, (name,): (String,)| {
            let value = store.data_mut().caller().service.config.get(&name);
            let value = value.cloned().ok_or_else(|| {
                if is_name(&name) {
                    NoVariable::Undefined(format!("`config` of the service has no `{name}`"))
                } else {
                    NoVariable::InvalidName(format!("`{name}` is no name of a variable"))
                }
            });
            Ok((value,))
        },
    )
}

/// Whether Spin would take it as the name of a variable.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
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

impl key_value::Host for KeyValueCtxView<'_> {}

impl key_value::HostStore for KeyValueCtxView<'_> {
    async fn open(&mut self, label: String) -> Outcome<Resource<Bucket>> {
        let opened = first::Host::open(self, label).await?;
        Ok(opened.map_err(Into::into))
    }

    async fn get(&mut self, store: Resource<Bucket>, key: String) -> Outcome<Option<Vec<u8>>> {
        let value = first::HostBucket::get(self, store, key).await?;
        Ok(value.map_err(Into::into))
    }

    async fn set(&mut self, store: Resource<Bucket>, key: String, value: Vec<u8>) -> Outcome<()> {
        let set = first::HostBucket::set(self, store, key, value).await?;
        Ok(set.map_err(Into::into))
    }

    async fn delete(&mut self, store: Resource<Bucket>, key: String) -> Outcome<()> {
        let deleted = first::HostBucket::delete(self, store, key).await?;
        Ok(deleted.map_err(Into::into))
    }

    async fn exists(&mut self, store: Resource<Bucket>, key: String) -> Outcome<bool> {
        let exists = first::HostBucket::exists(self, store, key).await?;
        Ok(exists.map_err(Into::into))
    }

    /// All keys, each once: a page has one again that was set while the pages were read.
    async fn get_keys(&mut self, store: Resource<Bucket>) -> Outcome<Vec<String>> {
        let (mut keys, mut bytes, mut cursor) = (BTreeSet::new(), 0, None);
        loop {
            let store = Resource::new_borrow(store.rep());
            let page = match self.list_keys(store, cursor).await? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error.into())),
            };
            for key in page.keys {
                bytes += size_of::<String>() + key.len();
                keys.insert(key);
            }
            if bytes > MAX_KEYS_BYTES {
                let why = format!(
                    "the keys together exceed {MAX_KEYS_BYTES} bytes; list them in pages by wasi:keyvalue/store"
                );
                return Ok(Err(Error::Other(why)));
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(Ok(keys.into_iter().collect()));
            }
        }
    }

    async fn drop(&mut self, store: Resource<Bucket>) -> wasmtime::Result<()> {
        first::HostBucket::drop(self, store).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_are_those_of_spin() {
        for name in ["a", "api_key", "db2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "2b", "_a", "a-b", "é"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
