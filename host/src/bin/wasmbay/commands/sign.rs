//! `wasmbay sign`, and what other verbs take of keys and signatures.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::json;
use wasmbay::fleet::{
    PublicKey, Signatures, SigningKey, Store, Trust, read_signatures, write_signatures,
};
use wasmbay::manifest::Digest;

use crate::report::{Exit, Terminal, misconfigured};

/// Sign components
///
/// Writes the signatures of each component into a file beside it, FILE.sig, from where `wasmbay deploy`
/// takes them. Hosts that were started with `--trust` run only what one of their keys has signed.
///
/// A key is the seed of an nkey, in a file that only its owner may read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay sign --generate release.nk        make a key, and print its public part
  wasmbay sign release.nk payment.wasm
  wasmbay deploy --sign-key release.nk      sign all that is deployed
  wasmbay host --trust AB…                  run only what that key has signed")]
pub(crate) struct Sign {
    /// The file with the key
    #[arg(value_hint = ValueHint::FilePath)]
    key: PathBuf,
    /// The components
    #[arg(required_unless_present = "generate", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Make a new key, and write it into the file, which must not exist
    #[arg(long, conflicts_with = "files")]
    generate: bool,
}

pub(super) fn run(args: &Sign, terminal: &Terminal) -> anyhow::Result<Exit> {
    if args.generate {
        return generate(&args.key, terminal);
    }
    let key = read_key(&args.key)?;
    let mut signed = Vec::new();
    for file in &args.files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let digest = Digest::of(&bytes);
        // Those of earlier bytes are of no use any more.
        let mut signatures = signatures_of(file, &digest).unwrap_or_default();
        signatures.extend([key.sign(&digest)?]);
        write(file, &signatures)?;
        signed.push((digest, beside(file)));
    }
    if terminal.json() {
        let files = signed.iter().map(|(digest, file)| {
            json!({ "digest": digest.as_str(), "signatures": file.display().to_string() })
        });
        let files: Vec<_> = files.collect();
        terminal.result_json(&json!({ "key": key.public().to_string(), "signed": files }))?;
    } else {
        for (digest, file) in signed {
            terminal.say(format_args!(
                "{} is signed in {}",
                digest.short(),
                file.display()
            ));
        }
    }
    Ok(Exit::Done)
}

fn generate(file: &Path, terminal: &Terminal) -> anyhow::Result<Exit> {
    let key = SigningKey::generate();
    let cannot = || format!("cannot create {}", file.display());
    let mut options = OpenOptions::new();
    let mut created = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(cannot)?;
    writeln!(created, "{}", key.seed()?).with_context(cannot)?;
    let public = key.public().to_string();
    if terminal.json() {
        terminal.result_json(&json!({ "key": public }))?;
    } else {
        terminal.result(public)?;
    }
    Ok(Exit::Done)
}

/// What a deploy signs with.
#[derive(clap::Args)]
pub(super) struct Signing {
    /// Sign what is deployed with the key in this file; see `wasmbay sign`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    sign_key: Option<PathBuf>,
}

impl Signing {
    /// Reads the key.
    ///
    /// # Errors
    ///
    /// There is none in its file.
    pub(super) fn signer(&self) -> anyhow::Result<Signer> {
        let key = self.sign_key.as_deref().map(read_key).transpose()?;
        Ok(Signer(key))
    }
}

/// Signs components, and passes on what others have signed.
pub(super) struct Signer(Option<SigningKey>);

impl Signer {
    /// Stores the signatures of a component, those in the file beside it and that of the key; returns
    /// whether there are new ones.
    pub(super) async fn store(
        &self,
        store: &Store,
        file: &Path,
        digest: &Digest,
    ) -> anyhow::Result<bool> {
        let signatures = self.signatures_of(file, digest)?;
        Ok(store.add_signatures(digest, &signatures).await?)
    }

    /// The signatures of a component: those in the file beside it, and that of the key.
    pub(super) fn signatures_of(&self, file: &Path, digest: &Digest) -> anyhow::Result<Signatures> {
        let mut signatures = signatures_of(file, digest)?;
        if let Some(key) = &self.0 {
            signatures.extend([key.sign(digest)?]);
        }
        Ok(signatures)
    }
}

/// Reads the key in a file.
fn read_key(file: &Path) -> anyhow::Result<SigningKey> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let key = SigningKey::read(&text);
    key.map_err(|error| misconfigured(format!("{}: {error}", file.display())))
}

/// The signatures in the file beside a component; none if there is no such file.
pub(super) fn signatures_of(file: &Path, digest: &Digest) -> anyhow::Result<Signatures> {
    let beside = beside(file);
    let text = match fs::read_to_string(&beside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Signatures::new());
        }
        text => text.with_context(|| format!("cannot read {}", beside.display()))?,
    };
    read_signatures(&text, digest).with_context(|| beside.display().to_string())
}

/// Has exactly these signatures in the file beside a component; without any there is no such file.
pub(crate) fn write(file: &Path, signatures: &Signatures) -> anyhow::Result<()> {
    let beside = beside(file);
    let written = match signatures.is_empty() {
        false => fs::write(&beside, write_signatures(signatures)),
        true => match fs::remove_file(&beside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    };
    written.with_context(|| format!("cannot write {}", beside.display()))
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The keys that `--trust` names: public keys, or files with one on each line.
pub(super) fn trust(given: &[String]) -> anyhow::Result<Trust> {
    let mut keys: Vec<PublicKey> = Vec::new();
    for text in given {
        match text.parse() {
            Ok(key) => keys.push(key),
            // A key has no dot or slash, and a file is hardly called like a key that is mistyped.
            Err(error) if looks_like_key(text) => {
                return Err(misconfigured(format!("--trust: {error}")));
            }
            Err(_) => keys.extend(trusted_in(Path::new(text))?),
        }
    }
    Ok(keys.into_iter().collect())
}

fn looks_like_key(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    text.len() > 50 && text.bytes().all(plain)
}

fn trusted_in(file: &Path) -> anyhow::Result<Vec<PublicKey>> {
    let shown = file.display();
    let text = fs::read_to_string(file);
    let text =
        text.map_err(|error| misconfigured(format!("--trust: cannot read {shown}: {error}")))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Result<Vec<PublicKey>, _> = lines.map(str::parse).collect();
    let keys = keys.map_err(|error| misconfigured(format!("--trust: {shown}: {error}")))?;
    // A host that trusts nobody would be one that trusts everybody.
    if keys.is_empty() {
        return Err(misconfigured(format!("--trust: {shown} has no public key")));
    }
    Ok(keys)
}
