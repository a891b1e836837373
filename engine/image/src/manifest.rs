//! What an image consists of: OCI layouts (index, manifest, configuration) and `docker save` archives.
//!
//! Owns: these JSON documents and their digests. Must not know: what is in a layer.

use faaster_limits::IMAGE_INDEX_DEPTH_MAX;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::layer::{digest, hex};
use crate::source::Source;
use crate::{Bounds, ImageError};

/// The layers of an image, lowest first.
#[derive(Debug)]
pub(crate) struct Image {
    pub layers: Vec<Layer>,
    /// Digest of what describes it.
    pub digest: String,
}

/// One layer.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Name of the part that holds it.
    pub part: String,
    /// SHA-256 of the part as it is, in hex, where the image says it.
    pub packed: Option<String>,
    /// SHA-256 of the plain archive, in hex.
    pub plain: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// The machine's architecture under Go's names, which images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads what an image is made of; `None` where the source is no image but the files themselves.
///
/// # Errors
/// A document is missing, damaged, for another machine, or does not have its digest.
pub(crate) fn read(source: &Source, bounds: Bounds) -> Result<Option<Image>, ImageError> {
    let image = if source.has("oci-layout") && source.has("index.json") {
        let index = source.small("index.json")?;
        oci(source, &json(&index, "index.json")?, 0)?
    } else if source.has("manifest.json") {
        docker(source)?
    } else {
        return Ok(None);
    };
    if image.layers.len() > bounds.layers {
        return Err(ImageError::TooManyLayers { found: image.layers.len(), most: bounds.layers });
    }
    Ok(Some(image))
}

fn json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Json { what: what.to_owned(), reason: error.to_string() })
}

/// The digits of `sha256:<64 lower-case hex digits>`.
fn digits(digest: &str) -> Result<&str, ImageError> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digest
        .strip_prefix("sha256:")
        .filter(|digits| digits.len() == 64 && digits.bytes().all(is_digit))
        .ok_or_else(|| ImageError::Digest(digest.chars().take(100).collect()))
}

fn blob(digits: &str) -> String {
    format!("blobs/sha256/{digits}")
}

/// A document by its digest, which is verified.
fn document<T: DeserializeOwned>(source: &Source, digits: &str) -> Result<T, ImageError> {
    let part = blob(digits);
    let bytes = source.small(&part)?;
    same(&part, digits, &digest(&mut &bytes[..], &part)?)?;
    json(&bytes, &part)
}

/// # Errors
/// What was found is not what was promised.
pub(crate) fn same(what: &str, wanted: &str, found: &str) -> Result<(), ImageError> {
    if wanted == found {
        return Ok(());
    }
    let (what, wanted, found) = (what.to_owned(), wanted.to_owned(), found.to_owned());
    Err(ImageError::Mismatch { what, wanted, found })
}

fn is_for_us(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == architecture()
}

fn oci(source: &Source, index: &Index, depth: usize) -> Result<Image, ImageError> {
    if depth > IMAGE_INDEX_DEPTH_MAX {
        return Err(ImageError::LinkLoop("index.json".to_owned()));
    }
    let ours: Vec<&Descriptor> =
        index.manifests.iter().filter(|one| one.platform.as_ref().is_none_or(is_for_us)).collect();
    let one = match ours[..] {
        [one] => one,
        [] => {
            let found = index.manifests.iter().filter_map(|one| one.platform.as_ref());
            let found: Vec<String> = found.map(|p| format!("{}/{}", p.os, p.architecture)).collect();
            return Err(wrong_platform(found.join(", ")));
        }
        _ => return Err(ImageError::SeveralImages(ours.len())),
    };
    let digits = digits(&one.digest)?;
    if one.media_type.ends_with("index.v1+json") || one.media_type.ends_with("manifest.list.v2+json") {
        return oci(source, &document(source, digits)?, depth + 1);
    }
    let manifest: Manifest = document(source, digits)?;
    let configuration: Configuration = document(source, self::digits(&manifest.config.digest)?)?;
    let plain = plain_digests(&configuration, manifest.layers.len())?;
    let layers = manifest.layers.iter().zip(plain).map(|(layer, plain)| {
        let packed = self::digits(&layer.digest)?;
        Ok(Layer { part: blob(packed), packed: Some(packed.to_owned()), plain })
    });
    Ok(Image { layers: layers.collect::<Result<_, ImageError>>()?, digest: digits.to_owned() })
}

fn wrong_platform(found: String) -> ImageError {
    ImageError::Platform { wanted: format!("linux/{}", architecture()), found }
}

fn plain_digests(configuration: &Configuration, layers: usize) -> Result<Vec<String>, ImageError> {
    let Configuration { os, architecture: theirs, rootfs } = configuration;
    if !(os.is_empty() || os == "linux") || !(theirs.is_empty() || theirs == architecture()) {
        return Err(wrong_platform(format!("{os}/{theirs}")));
    }
    if rootfs.diff_ids.len() != layers {
        let reason = format!("it names {} layers, the manifest {layers}", rootfs.diff_ids.len());
        return Err(ImageError::Json { what: "the configuration".to_owned(), reason });
    }
    rootfs.diff_ids.iter().map(|id| digits(id).map(str::to_owned)).collect()
}

fn docker(source: &Source) -> Result<Image, ImageError> {
    let saved: Vec<Saved> = json(&source.small("manifest.json")?, "manifest.json")?;
    let [saved] = &saved[..] else { return Err(ImageError::SeveralImages(saved.len())) };
    let bytes = source.small(&saved.config)?;
    let found = hex_digest(&bytes);
    // Its name is its digest, in both layouts that there have been.
    let name = saved.config.rsplit('/').next().unwrap_or_default();
    same(&saved.config, name.strip_suffix(".json").unwrap_or(name), &found)?;
    let plain = plain_digests(&json(&bytes, &saved.config)?, saved.layers.len())?;
    let layers = saved.layers.iter().zip(plain);
    let layers = layers.map(|(part, plain)| Layer { part: part.clone(), packed: None, plain });
    Ok(Image { layers: layers.collect(), digest: found })
}

fn hex_digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}
