//! The container images that a cluster works with, as archives: our own, and those of the tests under their upstream names,
//! made from the programs that were built for the cluster. Nothing is pulled from anywhere.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use super::command::{make_folder, run};
use super::image::{Image, digest, pack};
use super::node_config::PAUSE;
use super::site::Site;
use crate::binaries;

/// The image for pods of tests: busybox, with all its commands.
pub const TEST_IMAGE: &str = "docker.io/library/busybox:1.35";

/// The sidecars of the shipped manifest, with the versions of the Go module that they are built from.
const SIDECARS: [(&str, &str); 2] = [("csi-provisioner", "v6.3.0"), ("csi-resizer", "v2.2.0")];

/// The host's program, its place in the image.
type File = (PathBuf, &'static str);

/// The archive of the image of this project, which `make image` makes.
#[must_use]
pub fn own_archive() -> PathBuf {
    binaries::project().join(".cache/image/vd-csi.tar")
}

/// Makes the image of this project, `vd-csi` with the workspace's version as its tag unless `tag` names another one, from
/// the release build in `target`, and writes it to `archive`.
///
/// # Errors
/// When a program is missing, or cannot be read.
pub fn make_image(target: &Path, tag: Option<&str>, archive: &Path) -> Result<()> {
    let tag = tag.unwrap_or(env!("CARGO_PKG_VERSION"));
    let folder = archive.parent().context("an archive lies in a folder")?;
    make_folder(folder)?;
    let place = tempfile::tempdir_in(folder)?;
    let root = place.path().join("root");
    let collect = binaries::project().join("deploy/image/collect.sh");
    let _quiet = run(collect, &[target, &root])?;
    let label = |key: &str, value: &str| {
        let key = format!("org.opencontainers.image.{key}");
        (key, value.to_owned())
    };
    let image = Image {
        name: format!("vd-csi:{tag}"),
        entrypoint: Vec::new(),
        command: ["vdctl", "--help"].map(str::to_owned).to_vec(),
        labels: vec![
            label("licenses", env!("CARGO_PKG_LICENSE")),
            label("title", "vd-csi"),
            label("version", tag),
        ],
        compressed: true,
    };
    pack(&root, &image, archive)
}

/// The archives of the test images of this cluster; those that are older than their programs are made anew.
pub(super) fn test_images(site: &Site) -> Result<Vec<PathBuf>> {
    let folder = folder(site)?;
    let mut archives = vec![
        made(&folder, "pause", &pause(), &[busybox("/bin/sleep"), tini()])?,
        made(
            &folder,
            "busybox",
            &test_image(),
            &[busybox("/bin/busybox")],
        )?,
    ];
    for (name, version) in SIDECARS {
        let image = format!("registry.k8s.io/sig-storage/{name}:{version}");
        archives.push(program_image(site, name, &image)?);
    }
    Ok(archives)
}

/// The archive of an image called `name` that is nothing but `program`, one of those that were built for clusters.
pub(super) fn program_image(site: &Site, program: &str, name: &str) -> Result<PathBuf> {
    let image = Image {
        name: name.to_owned(),
        entrypoint: vec![format!("/{program}")],
        ..Image::default()
    };
    let folder = folder(site)?;
    made(&folder, program, &image, &[(site.program(program), "")])
}

/// Where the archives of the test images are.
fn folder(site: &Site) -> Result<PathBuf> {
    let programs = site.programs();
    let above = programs.parent();
    let folder = above
        .context("the folder of the programs has none above it")?
        .join("images");
    make_folder(&folder)?;
    Ok(folder)
}

fn pause() -> Image {
    Image {
        name: PAUSE.to_owned(),
        entrypoint: ["/tini", "--", "/bin/sleep", "infinity"]
            .map(str::to_owned)
            .to_vec(),
        ..Image::default()
    }
}

fn test_image() -> Image {
    Image {
        name: TEST_IMAGE.to_owned(),
        command: vec!["sh".to_owned()],
        ..Image::default()
    }
}

fn busybox(target: &'static str) -> File {
    ("/bin/busybox".into(), target)
}

fn tini() -> File {
    ("/usr/bin/tini-static".into(), "/tini")
}

/// The archive `name` of `image` with `files`; one without a place goes to the top under its own name.
fn made(folder: &Path, name: &str, image: &Image, files: &[File]) -> Result<PathBuf> {
    // What the image says about itself is not in a program's age: it is in the archive's name.
    let about = &digest(format!("{image:?}").as_bytes())[..8];
    let archive = folder.join(format!("{name}-{about}.tar"));
    let changed = |path: &Path| -> Result<SystemTime> {
        let metadata = std::fs::metadata(path).and_then(|data| data.modified());
        metadata.with_context(|| path.display().to_string())
    };
    let newest = files.iter().map(|(path, _target)| changed(path));
    let newest = newest.collect::<Result<Vec<_>>>()?.into_iter().max();
    if archive.exists() && Some(changed(&archive)?) >= newest {
        return Ok(archive);
    }
    let root = tempfile::tempdir_in(folder)?;
    for top in ["bin", "etc", "tmp"] {
        make_folder(&root.path().join(top))?;
    }
    for (source, target) in files {
        let name = source.file_name().context("a program has a name")?;
        let place = if target.is_empty() {
            Path::new(name)
        } else {
            Path::new(&target[1..])
        };
        let place = root.path().join(place);
        let _bytes = std::fs::copy(source, &place)
            .with_context(|| format!("copy {} to {}", source.display(), place.display()))?;
        if place.ends_with("bin/busybox") {
            link_commands(source, &root.path().join("bin"))?;
        }
    }
    pack(root.path(), image, &archive)?;
    Ok(archive)
}

/// busybox is every command that it is called by.
fn link_commands(busybox: &Path, bin: &Path) -> Result<()> {
    for command in run(busybox, &["--list"])?.lines() {
        let link = bin.join(command);
        if !link.exists() {
            symlink("busybox", &link).with_context(|| link.display().to_string())?;
        }
    }
    Ok(())
}
