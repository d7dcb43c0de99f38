//! A component of Spin, as its SDK makes them: tests run it unmodified.

use spin_sdk::http::{IntoResponse, Method, Request, Response};
use spin_sdk::http_component;
use spin_sdk::key_value::Store;
use spin_sdk::variables;

#[http_component]
fn handle(request: Request) -> anyhow::Result<impl IntoResponse> {
    let path = request.path().trim_start_matches('/').to_owned();
    let (what, name) = path.split_once('/').unwrap_or((&path, ""));
    Ok(match answer(request.method(), what, name, request.body()) {
        Ok(Some(body)) => Response::new(200, body),
        Ok(None) => Response::new(404, ()),
        Err(why) => Response::new(500, format!("{why:?}")),
    })
}

fn answer(method: &Method, what: &str, name: &str, body: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    if what == "variables" {
        return Ok(Some(variables::get(name)?.into_bytes()));
    }
    if what == "open" {
        Store::open(name)?;
        return Ok(Some(Vec::new()));
    }
    let store = Store::open_default()?;
    Ok(match (method, what) {
        (Method::Get, "keys") => Some(store.get_keys()?.join("\n").into_bytes()),
        (Method::Get, "key") => store.get(name)?,
        (Method::Put, "key") => {
            store.set(name, body)?;
            Some(Vec::new())
        }
        (Method::Delete, "key") => {
            store.delete(name)?;
            Some(Vec::new())
        }
        (Method::Get, "exists") => Some(store.exists(name)?.to_string().into_bytes()),
        _ => None,
    })
}
