//! `wasmbay pull`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::json;
use wasmbay::manifest::{Digest, Reference};

use super::push::pinned;
use super::{shown, sign};
use crate::args::Cache;
use crate::progress::Progress;
use crate::registries::{Pulled, Reach, reference};
use crate::report::{Exit, Terminal, count, failure, size};

/// Pull a component from a registry
///
/// Writes it into a file, with its signatures in FILE.sig, and prints its name with its digest. What was pushed by
/// other tools is accepted if it is one component. The login is that of `docker login`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay pull ghcr.io/acme/payment:1.2.0
  wasmbay pull ghcr.io/acme/payment:1.2.0 -o guests/payment.wasm
  wasmbay pull ghcr.io/acme/payment@sha256:… --output json | jq -r .file")]
pub(crate) struct Pull {
    /// Where it is: REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST
    #[arg(value_parser = reference)]
    reference: Reference,
    /// The file that is written; otherwise the last part of the name, in this folder
    #[arg(short = 'o', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Pull, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Pull {
        reference, file, ..
    } = args;
    let progress = Progress::new(*terminal);
    let pulls = args.reach.with(&args.cache, &progress);
    let Pulled { digest, fetched } = pulls.pull(&reference).await?;
    let chosen = file.is_some();
    let file = file.unwrap_or_else(|| format!("{}.wasm", reference.name()).into());
    if !chosen && file.exists() && !is(&file, &fetched.component) {
        return Err(failure(
            format!("{} is there already, and is something else", shown(&file)),
            "`-o FILE` names another file, or this one to replace it",
        ));
    }
    let signatures = sign::signatures_of(&fetched.file, &fetched.component)?;
    copy(&fetched.file, &file).with_context(|| format!("cannot write {}", file.display()))?;
    sign::write(&file, &signatures)?;
    if terminal.json() {
        terminal.result_json(&json!({
            "reference": reference,
            "digest": format!("sha256:{digest}"),
            "component": fetched.component,
            "file": file,
            "size": fetched.bytes,
            "signatures": signatures.len(),
        }))?;
    } else {
        let signed = match signatures.len() {
            0 => String::new(),
            number => format!(", {}", count(number, "signature")),
        };
        let size = size(fetched.bytes);
        terminal.note(format_args!("{} ({size}{signed})", shown(&file)));
        terminal.result(pinned(&reference, &digest))?;
    }
    Ok(Exit::Done)
}

/// Whether a file has these bytes.
fn is(file: &Path, digest: &Digest) -> bool {
    fs::read(file).is_ok_and(|bytes| Digest::of(&bytes) == *digest)
}

/// Writes a file in one step, like any file: one of the cache is readable by its owner alone.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().make_in(folder, |path| fs::File::create_new(path))?;
    io::copy(&mut fs::File::open(from)?, &mut file)?;
    file.persist(to).map_err(|error| error.error)?;
    Ok(())
}
