//! A container image of one layer as an archive: an OCI layout, and beside it the file that `docker load` reads. The same
//! contents give the same bytes.

mod layer;

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// What an image says about itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// With a tag: `name:tag`.
    pub(super) name: String,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) labels: Vec<(String, String)>,
    /// For images that travel; one that stays on this machine is faster without.
    pub(super) compressed: bool,
}

/// Where programs are looked for in a container.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One file of the layout, named by its digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = digest(&bytes);
        Self { digest, bytes }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn described(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

/// Writes the image of the folder `root` to `archive`, which appears when it is complete.
pub(super) fn pack(root: &Path, image: &Image, archive: &Path) -> Result<()> {
    let plain = layer::tar(root)?;
    let content = digest(&plain);
    let (layer, layer_type) = if image.compressed {
        let type_ = "application/vnd.oci.image.layer.v1.tar+gzip";
        (Blob::new(layer::gzip(&plain)?), type_)
    } else {
        (Blob::new(plain), "application/vnd.oci.image.layer.v1.tar")
    };
    let config = Blob::new(serde_json::to_vec(&config(image, &content))?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.described("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.described(layer_type)],
    });
    let manifest = Blob::new(serde_json::to_vec(&manifest)?);
    let for_docker = json!([{
        "Config": config.path(),
        "RepoTags": [image.name],
        "Layers": [layer.path()],
    }]);
    let files = [
        (
            "oci-layout".to_owned(),
            json!({"imageLayoutVersion": "1.0.0"})
                .to_string()
                .into_bytes(),
        ),
        (
            "index.json".to_owned(),
            serde_json::to_vec(&index(image, &manifest))?,
        ),
        ("manifest.json".to_owned(), serde_json::to_vec(&for_docker)?),
        (manifest.path(), manifest.bytes),
        (config.path(), config.bytes),
        (layer.path(), layer.bytes),
    ];
    write(&files, archive)
}

fn config(image: &Image, content: &str) -> Value {
    let labels: Map<String, Value> = image
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    let mut inner = json!({"Env": [PATH], "WorkingDir": "/", "Labels": labels});
    for (key, words) in [("Entrypoint", &image.entrypoint), ("Cmd", &image.command)] {
        if !words.is_empty() {
            inner[key] = json!(words);
        }
    }
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{content}")]},
    })
}

/// The name goes into both annotations that programs look at: containerd wants all of it, others only the tag.
fn index(image: &Image, manifest: &Blob) -> Value {
    let tag = image.name.rsplit(':').next().unwrap_or("latest");
    let full = if image.name.contains('/') {
        image.name.clone()
    } else {
        format!("docker.io/library/{}", image.name)
    };
    let mut described = manifest.described("application/vnd.oci.image.manifest.v1+json");
    described["annotations"] = json!({
        "io.containerd.image.name": full,
        "org.opencontainers.image.ref.name": tag,
    });
    described["platform"] = json!({"architecture": architecture(), "os": "linux"});
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The SHA-256 of `bytes`, in hexadecimal digits.
pub(super) fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(files: &[(String, Vec<u8>)], archive: &Path) -> Result<()> {
    let folder = archive.parent().context("an archive lies in a folder")?;
    let readable = Permissions::from_mode(0o644);
    let file = tempfile::Builder::new()
        .permissions(readable)
        .tempfile_in(folder)?;
    let mut tar = layer::Tar::new(BufWriter::new(file.as_file()));
    for (name, bytes) in files {
        tar.file(Path::new(name), 0o644, bytes)?;
    }
    tar.finish()?.flush()?;
    let written = file.persist(archive);
    let _file: File = written.with_context(|| archive.display().to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(folder.path().join("bin/program"), "content").unwrap();
        symlink("program", folder.path().join("bin/link")).unwrap();
        folder
    }

    fn packed(root: &Path, image: &Image) -> Vec<u8> {
        let out = tempfile::tempdir().unwrap();
        let archive = out.path().join("image.tar");
        pack(root, image, &archive).unwrap();
        std::fs::read(archive).unwrap()
    }

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        for compressed in [true, false] {
            let image = Image {
                name: "vd-csi:1".to_owned(),
                compressed,
                ..Image::default()
            };
            let (one, two) = (folder(), folder());
            assert!(packed(one.path(), &image) == packed(two.path(), &image));
            std::fs::write(two.path().join("bin/program"), "Content").unwrap();
            assert!(packed(one.path(), &image) != packed(two.path(), &image));
        }
    }

    #[test]
    fn a_short_name_is_completed_for_containerd_alone() {
        let image = Image {
            name: "vd-csi:1.2".to_owned(),
            ..Image::default()
        };
        let index = index(&image, &Blob::new(Vec::new()));
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(
            annotations["io.containerd.image.name"],
            "docker.io/library/vd-csi:1.2"
        );
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "1.2");
    }
}
