//! `wasi:config`: the configuration that the manifest gives a service.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use super::CallerView;

/// The interface under every name that it has had. Its functions never changed.
const NAMES: [&str; 4] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/runtime@0.2.0-draft",
];

/// Why a value could not be read. It is there before the guest is, so it always can.
#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "the type of the function has them")]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// `wasi:config/store`, and what it was called before.
pub(crate) fn add_to_linker<T: CallerView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    for name in NAMES {
        let mut store = linker.instance(name)?;
        store.func_wrap(
            "get",
            |mut store: StoreContextMut<'_, T>, (key,): (String,)| {
                let config = &store.data_mut().caller().service.config;
                Ok((Ok::<_, Error>(config.get(&key).cloned()),))
            },
        )?;
        store.func_wrap("get-all", |mut store: StoreContextMut<'_, T>, ()| {
            let config = &store.data_mut().caller().service.config;
            let pairs = config.iter();
            let pairs = pairs.map(|(key, value)| (key.clone(), value.clone()));
            Ok((Ok::<Vec<_>, Error>(pairs.collect()),))
        })?;
    }
    Ok(())
}
