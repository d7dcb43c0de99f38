//! `wasmbay:call/context`: what a guest can know of the call that it works on, beside its arguments.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::CallerView;

/// `wasmbay:call/context`.
pub(crate) fn add_to_linker<T: CallerView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    let mut context = linker.instance("wasmbay:call/context@0.1.0")?;
    context.func_wrap("step", |mut store: StoreContextMut<'_, T>, ()| {
        let call = store.data_mut().caller().call.as_ref();
        let step = call.and_then(|call| call.step.as_deref());
        Ok((step.map(str::to_owned),))
    })
}
