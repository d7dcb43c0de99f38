//! `wasmbay push`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::json;
use time::OffsetDateTime;
use wasmbay::fleet::write_signatures;
use wasmbay::manifest::{Digest, Reference};
use wasmbay::runtime::{ComponentError, MAX_BYTES};

use super::inspect::component_file;
use super::sign::Signing;
use crate::args::Cache;
use crate::progress::Progress;
use crate::registries::{Reach, reference};
use crate::report::{Exit, Terminal, count, misconfigured, size};

/// The time that a build says it is made at, so that it can be made again.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Push a component to a registry
///
/// Pushes it as other tools for WebAssembly do, with the signatures in the file beside it (see `wasmbay sign`), and
/// prints its name with its digest. The login is that of `docker login`.
///
/// The same bytes under the same name have the same digest, at the time that SOURCE_DATE_EPOCH says, or at none.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay push payment.wasm ghcr.io/acme/payment:1.2.0
  wasmbay push payment ghcr.io/acme/payment:1.2.0      a service of this folder's app, built first
  wasmbay push payment.wasm localhost:5000/payment:dev --sign-key release.nk")]
pub(crate) struct Push {
    /// A component's file, a guest's folder, or a service of the manifest
    #[arg(value_name = "FILE|FOLDER|SERVICE", value_hint = ValueHint::AnyPath)]
    target: PathBuf,
    /// Where it goes: REGISTRY/NAME:TAG
    #[arg(value_parser = reference)]
    reference: Reference,
    /// What is said of it besides, such as `org.opencontainers.image.licenses=MIT`; may be given several times
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// The manifest that has the service
    #[arg(long, value_name = "FILE", default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Push, terminal: &Terminal) -> anyhow::Result<Exit> {
    let signer = args.signing.signer()?;
    let created = created()?;
    let progress = Progress::new(*terminal);
    let pulls = args.reach.with(&args.cache, &progress);
    let file = component_file(&args.target, &args.manifest, &pulls, terminal).await?;
    let named = || file.display().to_string();
    let cannot = || format!("cannot read {}", file.display());
    let length = std::fs::metadata(&file).with_context(cannot)?.len();
    if length > MAX_BYTES {
        return Err(ComponentError::TooLarge { size: length }).with_context(named);
    }
    let bytes = std::fs::read(&file).with_context(cannot)?;
    let component = Digest::of(&bytes);
    let signatures = signer.signatures_of(&file, &component)?;
    let annotations: BTreeMap<_, _> = args.annotations.into_iter().collect();

    let registries = pulls.registries()?;
    let reference = args.reference;
    let mut task = progress.task(reference.to_string());
    task.begin("pushing");
    let moved = task.moved();
    let pushed = registries.push(&reference, bytes, &annotations, created, moved.as_ref());
    let digest = pushed.await.with_context(named)?;
    if !signatures.is_empty() {
        let text = write_signatures(&signatures);
        registries
            .push_signatures(&reference, &digest, &text)
            .await?;
    }
    task.end(&format!("pushed {} of", size(length)));
    if terminal.json() {
        terminal.result_json(&json!({
            "reference": reference,
            "digest": format!("sha256:{digest}"),
            "component": component,
            "size": length,
            "signatures": signatures.len(),
        }))?;
    } else {
        if !signatures.is_empty() {
            let signatures = count(signatures.len(), "signature");
            terminal.note(format_args!("with {signatures}"));
        }
        terminal.result(pinned(&reference, &digest))?;
    }
    Ok(Exit::Done)
}

/// The reference with its digest.
pub(super) fn pinned(reference: &Reference, digest: &Digest) -> String {
    match reference.digest() {
        Some(_) => reference.to_string(),
        None => format!("{reference}@sha256:{digest}"),
    }
}

fn annotation(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("accepted: KEY=VALUE"),
    }
}

fn created() -> anyhow::Result<Option<OffsetDateTime>> {
    let Some(text) = std::env::var_os(SOURCE_DATE_EPOCH) else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let wrong = || {
        let text = text.to_string_lossy();
        misconfigured(format!(
            "{SOURCE_DATE_EPOCH} is `{text}`; accepted: seconds since 1970"
        ))
    };
    time.map(Some).ok_or_else(wrong)
}
