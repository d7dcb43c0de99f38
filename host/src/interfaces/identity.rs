//! `wasmbay:call/identity`: who the call that a guest works on is made for.

use std::borrow::Cow;

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::CallerView;
use crate::claims::Claims;

/// `wasmbay:call/identity`.
pub(crate) fn add_to_linker<T: CallerView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    let mut identity = linker.instance("wasmbay:call/identity@0.1.0")?;
    identity.func_wrap("subject", |mut store: StoreContextMut<'_, T>, ()| {
        let subject = of_call(&mut store, |claims| claims.subject.map(Cow::into_owned));
        Ok((subject.flatten(),))
    })?;
    identity.func_wrap("scopes", |mut store: StoreContextMut<'_, T>, ()| {
        let scopes = of_call(&mut store, |claims| {
            let scopes = claims.scopes.into_iter();
            scopes.map(Cow::into_owned).collect::<Vec<String>>()
        });
        Ok((scopes.unwrap_or_default(),))
    })?;
    identity.func_wrap(
        "claim",
        |mut store: StoreContextMut<'_, T>, (name,): (String,)| {
            let claim = of_call(&mut store, |claims| {
                claims.claims.get(&name).map(ToString::to_string)
            });
            Ok((claim.flatten(),))
        },
    )?;
    identity.func_wrap("caller", |mut store: StoreContextMut<'_, T>, ()| {
        let call = store.data_mut().caller().call.as_ref();
        let claims = call.and_then(|call| call.claims.as_deref());
        Ok((claims.map(str::to_owned),))
    })
}

/// What the claims of the current call say; `None` if there are none.
fn of_call<T: CallerView, V>(
    store: &mut StoreContextMut<'_, T>,
    read: impl FnOnce(Claims<'_>) -> V,
) -> Option<V> {
    let call = store.data_mut().caller().call.as_ref()?;
    Claims::read(call.claims.as_deref()?).map(read)
}
