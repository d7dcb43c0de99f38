//! What a component is in a registry: a manifest with a configuration and one layer, as the Wasm working group of
//! the CNCF has it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmparser::{Parser, Payload};

use crate::manifest::{Digest, Reference};
use crate::runtime::MAX_BYTES;
use crate::text::shown;

/// An image manifest, which an artifact of one layer is as well.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A list of manifests.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What registries may answer with for a reference. Those of docker are asked for so as to be refused by name.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// A layer of WebAssembly, and what it was before the working group agreed on one.
const LAYERS: [&str; 3] = [
    LAYER,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];
const IMAGE_CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// The configuration of what needs none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EMPTY_CONFIG: &[u8] = b"{}";
/// Lines of public keys and signatures, as `wasmbay sign` writes them.
const SIGNATURES: &str = "application/vnd.wasmbay.signatures.v1";

/// Signatures of one component that are looked at, each a manifest and a layer to fetch.
const MAX_SIGNED: usize = 16;

/// Bytes of a configuration or of signatures.
pub(super) const MAX_SMALL: u64 = 64 << 10;

/// Something in a registry, by type, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            artifact_type: None,
            digest: format!("sha256:{}", Digest::of(bytes)),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }

    /// Its digest, which is a SHA-256.
    pub(super) fn digest(&self) -> Result<Digest, String> {
        let digits = self.digest.strip_prefix("sha256:");
        let digest = digits.and_then(|digits| digits.parse().ok());
        digest.ok_or_else(|| format!("a digest that is no SHA-256, `{}`", shown(&self.digest)))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    fn new(media_type: &str) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            artifact_type: None,
            config: None,
            layers: Vec::new(),
            manifests: None,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("no manifest: {error}"))
    }

    fn bytes(&self) -> Vec<u8> {
        // Strings and numbers alone.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The layer that is the component.
///
/// # Errors
///
/// What else the manifest is of.
pub(super) fn component_of(manifest: &[u8]) -> Result<Descriptor, String> {
    let read = Manifest::read(manifest)?;
    if read.manifests.is_some() {
        return Err("it is an index of several manifests".to_owned());
    }
    let is_wasm = |layer: &&Descriptor| LAYERS.contains(&&*layer.media_type);
    let mut found = read.layers.iter().filter(is_wasm);
    let layer = match (found.next(), found.next()) {
        (Some(layer), None) => layer,
        (Some(_), Some(_)) => return Err("it has several layers of WebAssembly".to_owned()),
        (None, _) => {
            let config = read
                .config
                .map_or(String::new(), |config| config.media_type);
            if IMAGE_CONFIGS.contains(&&*config) {
                return Err("it is a container image".to_owned());
            }
            let types: Vec<_> = read
                .layers
                .iter()
                .map(|layer| shown(&layer.media_type))
                .collect();
            return Err(match types.is_empty() {
                true => "it has no layer".to_owned(),
                false => format!("it has no layer of type {LAYER}, but {}", types.join(", ")),
            });
        }
    };
    if layer.size > MAX_BYTES {
        return Err(format!(
            "{} bytes are more than a component may have ({MAX_BYTES})",
            layer.size
        ));
    }
    layer.digest()?;
    Ok(layer.clone())
}

/// Refuses bytes that are no component in binary form.
pub(super) fn check_component(bytes: &[u8]) -> Result<(), &'static str> {
    if Parser::is_component(bytes) {
        Ok(())
    } else if Parser::is_core_wasm(bytes) {
        Err("it is a core WebAssembly module")
    } else {
        Err("it is not WebAssembly in binary form")
    }
}

/// A manifest with what it names, as they are pushed.
pub(super) struct Artifact {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
}

impl Artifact {
    /// A component. The same bytes under the same name and at the same time are the same manifest.
    ///
    /// # Errors
    ///
    /// The bytes are no component.
    pub(super) fn of_component(
        reference: &Reference,
        bytes: &[u8],
        annotations: &BTreeMap<String, String>,
        created: Option<OffsetDateTime>,
    ) -> Result<Self, String> {
        check_component(bytes)?;
        let about = About::read(bytes)?;
        let layer = Descriptor::of(LAYER, bytes);
        let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        let config = serde_json::json!({
            // Readers of this format want one.
            "created": time(created.unwrap_or(OffsetDateTime::UNIX_EPOCH)),
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer.digest],
            "component": { "exports": about.exports, "imports": about.imports },
        });
        let config = serde_json::to_vec(&config).map_err(|error| error.to_string())?;
        let mut manifest = Manifest::new(MANIFEST);
        manifest.config = Some(Descriptor::of(CONFIG, &config));
        manifest.annotations = about.annotations;
        let mut annotate = |key: &str, value: String| {
            let key = format!("org.opencontainers.image.{key}");
            manifest.annotations.entry(key).or_insert(value);
        };
        annotate("title", reference.name().to_owned());
        // A tag such as `latest` is no version.
        let version = reference
            .tag()
            .filter(|tag| semver::Version::parse(tag).is_ok());
        if let Some(version) = version {
            annotate("version", version.to_owned());
        }
        if let Some(created) = created {
            annotate("created", time(created));
        }
        manifest.annotations.extend(annotations.clone());
        // The name of the file that `oras pull` makes of it.
        let title = format!("{}.wasm", reference.name());
        let layer = Descriptor {
            annotations: [("org.opencontainers.image.title".to_owned(), title)].into(),
            ..layer
        };
        manifest.layers = vec![layer];
        Ok(Self {
            manifest: manifest.bytes(),
            config,
        })
    }

    /// Signatures of the component with this manifest.
    pub(super) fn of_signatures(subject: &[u8], signatures: &[u8]) -> Self {
        let mut manifest = Manifest::new(MANIFEST);
        manifest.artifact_type = Some(SIGNATURES.to_owned());
        manifest.config = Some(Descriptor::of(EMPTY, EMPTY_CONFIG));
        manifest.layers = vec![Descriptor::of(SIGNATURES, signatures)];
        manifest.subject = Some(Descriptor::of(MANIFEST, subject));
        Self {
            manifest: manifest.bytes(),
            config: EMPTY_CONFIG.to_owned(),
        }
    }
}

/// The tag of the index of what refers to a manifest, where a registry keeps none itself.
pub(super) fn referrers_tag(subject: &Digest) -> String {
    format!("sha256-{subject}")
}

/// The signatures among what an index lists.
pub(super) fn signatures_in(index: &[u8]) -> Result<Vec<Descriptor>, String> {
    let listed = Manifest::read(index)?.manifests.unwrap_or_default();
    let is_ours = |listed: &Descriptor| listed.artifact_type.as_deref() == Some(SIGNATURES);
    Ok(listed
        .into_iter()
        .filter(is_ours)
        .take(MAX_SIGNED)
        .collect())
}

/// The layer with the signatures.
pub(super) fn signatures_of(manifest: &[u8]) -> Result<Descriptor, String> {
    let layers = Manifest::read(manifest)?.layers.into_iter();
    let mut ours = layers.filter(|layer| layer.media_type == SIGNATURES && layer.size <= MAX_SMALL);
    ours.next()
        .ok_or_else(|| "no layer of signatures".to_owned())
}

/// An index that lists these signatures as well, or nothing if it does already.
pub(super) fn listed_in(
    index: Option<&[u8]>,
    signatures: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    let mut index = match index {
        Some(bytes) => Manifest::read(bytes)?,
        None => Manifest::new(INDEX),
    };
    let listed = Descriptor {
        artifact_type: Some(SIGNATURES.to_owned()),
        ..Descriptor::of(MANIFEST, signatures)
    };
    let manifests = index.manifests.get_or_insert_default();
    if manifests.iter().any(|one| one.digest == listed.digest) {
        return Ok(None);
    }
    manifests.push(listed);
    Ok(Some(index.bytes()))
}

/// What a component says of itself.
struct About {
    exports: Vec<String>,
    imports: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl About {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut about = Self {
            exports: Vec::new(),
            imports: Vec::new(),
            annotations: BTreeMap::new(),
        };
        // Modules and components within it have imports, exports and names of their own.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| error.to_string())?;
            match payload {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth != 1 => {}
                Payload::ComponentImportSection(imports) => {
                    for import in imports {
                        let import = import.map_err(|error| error.to_string())?;
                        about.imports.push(import.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) => {
                    for export in exports {
                        let export = export.map_err(|error| error.to_string())?;
                        about.exports.push(export.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) => {
                    let key = match section.name() {
                        key @ ("version" | "description" | "source" | "revision" | "licenses"
                        | "authors") => key,
                        "homepage" => "url",
                        _ => continue,
                    };
                    if let Ok(text) = std::str::from_utf8(section.data()) {
                        let key = format!("org.opencontainers.image.{key}");
                        about.annotations.insert(key, text.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    const COMPONENT: &str = r#"(component
        (import "wasi:io/error@0.2.6" (instance))
        (core module (import "inner" "f" (func)) (func (export "g")))
        (instance $i) (export "shop:payment/payments@1.0.0" (instance $i))
        (@custom "source" "https://example.com/payment")
        (@custom "homepage" "https://example.com")
        (@custom "other" "x"))"#;

    fn component() -> Vec<u8> {
        wat::parse_str(COMPONENT).unwrap()
    }

    #[test]
    fn a_component_is_a_manifest_of_one_layer() {
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let more = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let bytes = component();
        let of = |reference_text: &str, created| {
            Artifact::of_component(&reference(reference_text), &bytes, &more, created).unwrap()
        };
        let artifact = of("ghcr.io/acme/payment:1.2.0", Some(at));
        let manifest: serde_json::Value = serde_json::from_slice(&artifact.manifest).unwrap();
        let digest = format!("sha256:{}", Digest::of(&bytes));
        assert_eq!(
            manifest,
            serde_json::json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": CONFIG,
                    "digest": format!("sha256:{}", Digest::of(&artifact.config)),
                    "size": artifact.config.len(),
                },
                "layers": [{
                    "mediaType": LAYER,
                    "digest": digest,
                    "size": bytes.len(),
                    "annotations": { "org.opencontainers.image.title": "payment.wasm" },
                }],
                "annotations": {
                    "org.opencontainers.image.title": "payment",
                    "org.opencontainers.image.version": "1.2.0",
                    "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
                    "org.opencontainers.image.source": "https://example.com/payment",
                    "org.opencontainers.image.url": "https://example.com",
                    "team": "shop",
                },
            })
        );
        let config: serde_json::Value = serde_json::from_slice(&artifact.config).unwrap();
        assert_eq!(
            config,
            serde_json::json!({
                "created": "2023-11-14T22:13:20Z",
                "architecture": "wasm",
                "os": "wasip2",
                "layerDigests": [digest],
                "component": {
                    "exports": ["shop:payment/payments@1.0.0"],
                    "imports": ["wasi:io/error@0.2.6"],
                },
            })
        );
        let layer = component_of(&artifact.manifest).unwrap();
        assert_eq!(layer.digest(), Ok(Digest::of(&bytes)));
        let again = of("other.io/x/payment:1.2.0", Some(at));
        assert_eq!(again.manifest, artifact.manifest);
        let timeless = of("ghcr.io/acme/payment:latest", None);
        let text = String::from_utf8(timeless.manifest).unwrap();
        assert!(
            !text.contains("version\":\"latest") && !text.contains("created"),
            "{text}"
        );
        assert!(
            String::from_utf8(timeless.config)
                .unwrap()
                .contains("1970-01-01T00:00:00Z")
        );
    }

    #[test]
    fn what_is_no_component_is_not_pushed() {
        for (bytes, why) in [
            (&b"\0asm\x01\0\0\0"[..], "core WebAssembly module"),
            (b"(component)", "not WebAssembly in binary form"),
            (b"", "not WebAssembly"),
            (b"\0asm\x0d\0\x01\0\xff", "malformed section id"),
        ] {
            let pushed =
                Artifact::of_component(&reference("a.io/b:c"), bytes, &BTreeMap::new(), None);
            let error = pushed.err().unwrap();
            assert!(error.contains(why), "{error}");
        }
    }

    /// A manifest of layers of these types.
    fn of_layers(config: &str, layers: &[&str]) -> Vec<u8> {
        let of = |media_type: &&str| Descriptor::of(media_type, b"x");
        let mut manifest = Manifest::new(MANIFEST);
        manifest.config = Some(Descriptor::of(config, b"{}"));
        manifest.layers = layers.iter().map(of).collect();
        manifest.bytes()
    }

    #[test]
    fn what_others_push_is_accepted() {
        for manifest in [
            of_layers(CONFIG, &[LAYER]),
            of_layers("application/vnd.wasm.config.v1+json", &LAYERS[1..2]),
            of_layers("application/vnd.wasm.config.v1+json", &LAYERS[2..]),
            of_layers(EMPTY, &["text/markdown", LAYER]),
            br#"{"schemaVersion":2,"layers":[{"mediaType":"application/wasm","size":1,"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","x":[]}],"y":{}}"#
                .to_vec(),
        ] {
            assert_eq!(component_of(&manifest).unwrap().digest(), Ok(Digest::of(b"x")));
        }
    }

    #[test]
    fn what_is_no_component_is_refused_by_name() {
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let mut large = Manifest::read(&of_layers(CONFIG, &[LAYER])).unwrap();
        large.layers[0].size = MAX_BYTES + 1;
        let mut odd = Manifest::read(&of_layers(CONFIG, &[LAYER])).unwrap();
        odd.layers[0].digest = "sha512:00".to_owned();
        let index = listed_in(None, b"{}").unwrap().unwrap();
        for (manifest, why) in [
            (of_layers(IMAGE_CONFIGS[0], &[tar]), "a container image"),
            (
                of_layers(EMPTY, &[tar]),
                "no layer of type application/wasm, but application/vnd.oci.image.layer",
            ),
            (
                of_layers(EMPTY, &LAYERS[..2]),
                "several layers of WebAssembly",
            ),
            (of_layers(EMPTY, &[]), "it has no layer"),
            (index, "an index of several"),
            (large.bytes(), "more than a component may have"),
            (odd.bytes(), "`sha512:00`"),
            (b"<html>".to_vec(), "no manifest"),
            (b"[]".to_vec(), "no manifest"),
        ] {
            let error = component_of(&manifest).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn signatures_refer_to_their_component() {
        let subject = of_layers(CONFIG, &[LAYER]);
        let [first, second] =
            [b"a", b"b"].map(|text| Artifact::of_signatures(&subject, text).manifest);
        let signed: serde_json::Value = serde_json::from_slice(&first).unwrap();
        assert_eq!(
            signed["subject"]["digest"],
            format!("sha256:{}", Digest::of(&subject))
        );
        assert_eq!(
            signatures_of(&first).unwrap().digest(),
            Ok(Digest::of(b"a"))
        );
        let index = listed_in(None, &first).unwrap().unwrap();
        assert_eq!(listed_in(Some(&index), &first), Ok(None));
        let index = listed_in(Some(&index), &second).unwrap().unwrap();
        let listed = signatures_in(&index).unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[1].digest(), Ok(Digest::of(&second)));
        let mut many = Some(index.clone());
        for number in 0..MAX_SIGNED {
            let signed = Artifact::of_signatures(&subject, number.to_string().as_bytes());
            many = listed_in(many.as_deref(), &signed.manifest).unwrap();
        }
        assert_eq!(signatures_in(&many.unwrap()).unwrap().len(), MAX_SIGNED);
        let large = vec![b'a'; usize::try_from(MAX_SMALL).unwrap() + 1];
        assert!(signatures_of(&Artifact::of_signatures(&subject, &large).manifest).is_err());
        // What others attach stays, and is none of ours.
        let mut others = Manifest::read(&index).unwrap();
        others.manifests.as_mut().unwrap()[0].artifact_type = Some("x".to_owned());
        assert_eq!(signatures_in(&others.bytes()).unwrap().len(), 1);
        assert!(signatures_of(&subject).is_err());
    }
}
