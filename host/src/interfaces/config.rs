//! `wasi:config/store`: the configuration of a service in the manifest.

use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

use crate::manifest::ServiceSpec;

/// The configuration of one service, shared by its instances.
pub(crate) type ConfigCtx = Arc<WasiConfigVariables>;

/// The configuration of a service in the manifest.
pub(crate) fn context(spec: &ServiceSpec) -> ConfigCtx {
    let pairs = spec.config.iter();
    Arc::new(
        pairs
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    )
}

/// Gives the host access to the configuration in a store.
pub(crate) trait ConfigView: Send + 'static {
    fn config(&mut self) -> &ConfigCtx;
}

/// `wasi:config/store`.
pub(crate) fn add_to_linker<T: ConfigView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wasmtime_wasi_config::add_to_linker(linker, |state| WasiConfig::new(state.config()))
}
