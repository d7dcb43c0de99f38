//! `wasi:http/outgoing-handler`: HTTP to the hosts that the manifest grants.

use std::future::Future;
use std::sync::Arc;

use http::HeaderValue;
use wasmtime::component::{Linker, Resource, WasmList, WasmStr};
use wasmtime::{AsContext, StoreContextMut};
use wasmtime_wasi_http::p2::HeaderResult;
use wasmtime_wasi_http::p2::bindings::http::types::{self, Host as _, HostFields as _};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use crate::manifest::ServiceSpec;
use crate::text::shown;

/// Outgoing HTTP of one instance.
pub(crate) struct GuestHttp {
    service: Arc<ServiceSpec>,
}

impl GuestHttp {
    pub(crate) fn new(service: Arc<ServiceSpec>) -> Self {
        Self { service }
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        let default = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let port = uri.port_u16().unwrap_or(default);
        uri.host()
            .is_some_and(|host| self.service.grants.allows_http(host, port))
    }
}

type WasiBody = wasmtime_wasi_http::WasiBody;
type Transfer = Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>;
type Response = Result<(http::Response<WasiBody>, Transfer), wasmtime_wasi_http::Error>;

impl WasiHttpHooks for GuestHttp {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Transfer,
    ) -> Box<dyn Future<Output = Response> + Send> {
        let allowed = self.allows(request.uri());
        if !allowed {
            let service = &*self.service.name;
            let host = shown(request.uri().host().unwrap_or_default());
            tracing::warn!(service, %host, "outgoing HTTP refused; `grants = {{ http = [\"{host}\"] }}` would allow it");
        }
        Box::new(async move {
            if !allowed {
                return Err(wasmtime_wasi_http::Error::HttpRequestDenied);
            }
            let (response, transfer) =
                wasmtime_wasi_http::default_send_request(request, options).await?;
            let response = response.map(http_body_util::BodyExt::boxed_unsync);
            Ok((response, Box::new(transfer) as Transfer))
        })
    }
}
/// `wasi:http`, with the two functions that take lists of fields bounded before they copy them.
/// wasmtime's own copy all of a list, two allocations for each field, before the limit on its size is
/// looked at: a tenth of a second.
pub(crate) fn add_to_linker<T: WasiHttpView + 'static>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: StoreContextMut<'_, T>, (entries,): (WasmList<(WasmStr, WasmList<u8>)>,)| {
            let mut room = Room::for_fields(entries.len())?;
            let mut fields = Vec::with_capacity(entries.len());
            for at in 0..entries.len() {
                let Some(entry) = entries.get(&mut store, at) else {
                    break;
                };
                let (name, value) = entry?;
                let value = room.copy(&value, &store)?;
                let name = name.to_str(&store)?;
                room.take(name.len())?;
                fields.push((name.into_owned(), value));
            }
            let mut view = store.data_mut().http();
            let fields = view.from_list(fields);
            Ok((or_header_error(view, fields)?,))
        },
    )?;
    types.func_wrap(
        "[method]fields.set",
        |mut store: StoreContextMut<'_, T>,
         (fields, name, values): (Resource<FieldMap>, String, WasmList<WasmList<u8>>)| {
            let mut room = Room::for_fields(values.len())?;
            let mut copies = Vec::with_capacity(values.len());
            for at in 0..values.len() {
                let Some(value) = values.get(&mut store, at) else {
                    break;
                };
                copies.push(room.copy(&value?, &store)?);
            }
            let mut view = store.data_mut().http();
            let set = view.set(fields, name, copies);
            Ok((or_header_error(view, set)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn or_header_error<T>(
    mut view: WasiHttpCtxView<'_>,
    result: HeaderResult<T>,
) -> wasmtime::Result<Result<T, types::HeaderError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(view.convert_header_error(error)?)),
    }
}

/// Bytes that a list of header fields may still have.
struct Room(usize);

impl Room {
    fn for_fields(fields: usize) -> wasmtime::Result<Self> {
        if fields > MAX_FIELDS {
            wasmtime::bail!("{fields} header fields are more than the limit of {MAX_FIELDS}");
        }
        Ok(Self(MAX_FIELD_BYTES))
    }

    fn take(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.0.checked_sub(bytes) {
            Some(left) => self.0 = left,
            None => {
                wasmtime::bail!(
                    "header fields have more than their limit of {MAX_FIELD_BYTES} bytes"
                )
            }
        }
        Ok(())
    }

    fn copy(&mut self, value: &WasmList<u8>, store: &impl AsContext) -> wasmtime::Result<Vec<u8>> {
        self.take(value.len())?;
        Ok(value.as_le_slice(store).to_vec())
    }
}

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

