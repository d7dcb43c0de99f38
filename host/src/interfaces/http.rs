//! `wasi:http/outgoing-handler`: HTTP to the hosts that the manifest grants.

use std::future::Future;
use std::sync::Arc;

use wasmtime_wasi_http::{RequestOptions, WasiHttpHooks};

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
