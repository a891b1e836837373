//! Archives and images, made by hand byte by byte, so that they can be as wrong as a test needs.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::layer::hex;

/// An archive under construction.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// One entry; names are written as they are, also those that no good tool would write.
    pub(crate) fn entry(mut self, kind: u8, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_000_000);
        header.set_uid(1234);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        self.entry(b'0', name, "", 0o644, text.as_bytes())
    }

    pub(crate) fn folder(self, name: &str) -> Self {
        self.entry(b'5', name, "", 0o755, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, 0o644, b"")
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn sha(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

fn configuration(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha(layer))).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": ids });
    serde_json::to_vec(&json!({ "os": "linux", "architecture": architecture(), "rootfs": rootfs })).unwrap()
}

pub(crate) fn packed(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let add = |tar: Tar, (name, data): &(String, Vec<u8>)| tar.entry(b'0', name, "", 0o644, data);
    parts.iter().fold(Tar::default(), add).bytes()
}

/// What `docker save` wrote until version 24: a folder for each layer.
pub(crate) fn docker_save(layers: &[Vec<u8>]) -> Vec<u8> {
    let configuration = configuration(layers);
    let name = format!("{}.json", sha(&configuration));
    let paths: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{ "Config": name, "RepoTags": ["test:latest"], "Layers": paths }]);
    let mut parts: Vec<(String, Vec<u8>)> = paths.into_iter().zip(layers.iter().cloned()).collect();
    parts.push((name, configuration));
    parts.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()));
    packed(&parts)
}

/// Parts of an OCI layout with one image; the layers are packed by `pack`.
pub(crate) fn oci(layers: &[Vec<u8>], mut pack: impl FnMut(&[u8]) -> Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let blob = |bytes: Vec<u8>| (format!("blobs/sha256/{}", sha(&bytes)), bytes);
    let configuration = configuration(layers);
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| pack(layer)).collect();
    let descriptor = |bytes: &[u8]| json!({ "mediaType": "x", "size": bytes.len(), "digest": format!("sha256:{}", sha(bytes)) });
    let described: Vec<_> = packed.iter().map(|layer| descriptor(layer)).collect();
    let manifest =
        serde_json::to_vec(&json!({ "config": descriptor(&configuration), "layers": described })).unwrap();
    let with_platform = |architecture: &str, digest: String| {
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
                "platform": { "os": "linux", "architecture": architecture } })
    };
    let ours = with_platform(architecture(), format!("sha256:{}", sha(&manifest)));
    let other = with_platform("s390x", format!("sha256:{}", "0".repeat(64)));
    let index = json!({ "schemaVersion": 2, "manifests": [other, ours] });
    let mut parts: Vec<(String, Vec<u8>)> = packed.into_iter().map(blob).collect();
    parts.push(blob(configuration));
    parts.push(blob(manifest));
    parts.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
    parts.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    parts
}

pub(crate) fn oci_archive(layers: &[Vec<u8>]) -> Vec<u8> {
    packed(&oci(layers, gzip))
}

pub(crate) fn write_parts(folder: &Path, parts: &[(String, Vec<u8>)]) {
    for (name, data) in parts {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }
}
