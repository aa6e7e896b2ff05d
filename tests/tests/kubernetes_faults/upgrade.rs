//! Another version of the driver takes over under load, and gives way again. `VD_UPGRADE=previous` takes the one that
//! `tools/build-previous-image.sh` has made; else it is the same programs in an image of another name. What the first version left
//! on disk and in the API server is given to each newer agent by `csi-node/tests/agent/older.rs`, also in `make test`.

use std::path::PathBuf;

use tests::chance;
use tests::cluster::{self, Cluster};
use tests::kubernetes::{DRIVER, Namespace, field, pools_are_clean};
use tests::{binaries, kubernetes};

use super::load::Load;
use super::stage::{alone, rolled_out};
use super::writer::Writer;

/// Steps of the load while a version is rolled out, and again afterwards.
const STEPS: usize = 6;

/// A version of the driver.
struct Version {
    image: String,
    archive: PathBuf,
    manifest: String,
}

impl Version {
    fn new(image: &str, archive: PathBuf, manifest: String) -> Self {
        assert!(
            manifest.contains(&format!("image: {image}\n")),
            "the manifest does not name {image}"
        );
        let image = image.to_owned();
        Self {
            image,
            archive,
            manifest,
        }
    }

    /// What is tested.
    fn this() -> Self {
        let image = concat!("vd-csi:", env!("CARGO_PKG_VERSION"));
        Self::new(image, cluster::own_archive(), kubernetes::manifest())
    }

    fn other() -> Self {
        let folder = binaries::project().join(".cache/previous");
        let image = "vd-csi:previous";
        if std::env::var("VD_UPGRADE").is_ok_and(|what| what == "previous") {
            let manifest = std::fs::read_to_string(folder.join("vd-csi.yaml"));
            let manifest = manifest.expect("run tools/build-previous-image.sh first");
            return Self::new(image, folder.join("vd-csi.tar"), manifest);
        }
        let programs = binaries::program("csi-node");
        let archive = folder.join("renamed.tar");
        cluster::make_image(programs.parent().unwrap(), Some("previous"), &archive).unwrap();
        let this = Self::this();
        let named = format!("image: {image}\n");
        let manifest = this
            .manifest
            .replace(&format!("image: {}\n", this.image), &named);
        Self::new(image, archive, manifest)
    }

    /// Rolls it out while `load` goes on.
    #[track_caller]
    fn take_over(&self, cluster: &Cluster, load: &mut Load<'_>) {
        cluster.import_image(&self.archive).unwrap();
        cluster.apply(&self.manifest).unwrap();
        for _step in 0..STEPS {
            load.step();
        }
        rolled_out(cluster);
        let images = field(
            cluster,
            &["daemonset,deployment", "-n", DRIVER],
            "{.items[*].spec.template.spec.containers[0].image}",
        );
        assert_eq!(images, format!("{0} {0}", self.image));
    }
}

#[test]
#[ignore = "takes minutes, and only a real previous version tells much: `make soak`"]
fn another_version_takes_over_under_load_and_understands_what_it_finds() {
    let (_alone, cluster) = alone();
    let (this, other) = (Version::this(), Version::other());
    let space = Namespace::new(cluster, "upgrade");
    let nodes = cluster.nodes();
    let writers: Vec<Writer> = nodes
        .iter()
        .map(|node| Writer::start(&space, node))
        .collect();
    let mut load = Load::new(&space, chance::seed("upgrade"));
    for version in [&other, &this] {
        // What it finds, besides what is under way: objects and disks of the other one.
        for _step in 0..STEPS {
            load.step();
        }
        load.come_to_rest();
        version.take_over(cluster, &mut load);
        load.come_to_rest();
    }
    eprintln!("{:?}", load.counts());
    let written: Vec<String> = writers
        .iter()
        .map(|writer| space.volume_of(&writer.name))
        .collect();
    load.nothing_is_lost_or_left(&written);
    for writer in &writers {
        assert!(writer.check(&space) > 0);
    }
    pools_are_clean(cluster);
    space.vanish();
}
