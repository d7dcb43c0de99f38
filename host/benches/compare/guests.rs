//! The components of the benchmarks, built from this checkout.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use wasmbay::build::{Guest, Tools};

/// The checkout.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Builds a guest, unless nothing has changed since it was.
pub(crate) fn component(folder: &str) -> anyhow::Result<PathBuf> {
    let folder = root().join("guests").join(folder);
    let build = || {
        let guest = Guest::open(&folder)?;
        guest.build(&Tools::near(&folder), &mut |line| eprintln!("  {line}"))
    };
    build().with_context(|| format!("building {}", folder.display()))
}

/// Copies of a component that exports `bay:bench/echo`, each of which exports another interface
/// instead: as many services as are wanted, none of which is another's replica.
pub(crate) fn variants(component: &[u8], count: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..count).map(|index| {
        let name = format!("e{index:03}");
        let mut bytes = component.to_vec();
        // A name of the same length, wherever the old one stands, leaves a component intact.
        let (old, new) = (b"bay:bench/echo", format!("bay:bench/{name}"));
        let mut at = 0;
        while let Some(found) = find(bytes.get(at..).unwrap_or_default(), old) {
            at += found;
            if let Some(place) = bytes.get_mut(at..at + old.len()) {
                place.copy_from_slice(new.as_bytes());
            }
        }
        (name, bytes)
    })
}

/// The same component with another digest: a custom section is appended.
pub(crate) fn touched(component: &[u8]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // Section 0 of six bytes: a name of five.
    bytes.extend_from_slice(b"\x00\x06\x05again");
    bytes
}

/// The same component with so many bytes more, and another digest for each number: a custom section is appended.
pub(crate) fn padded(component: &[u8], more: usize, number: usize) -> Vec<u8> {
    let mut section = b"\x06padded".to_vec();
    section.extend_from_slice(&number.to_le_bytes());
    section.resize(more, 0);
    let mut bytes = component.to_vec();
    bytes.push(0);
    let mut length = section.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap_or_default());
    bytes.extend(section);
    bytes
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
