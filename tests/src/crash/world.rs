//! What one client believes to be in the pool, and what it does to it at random.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use tonic::{Code, Status};

use super::case::{Case, snapshot_id, volume_id};
use crate::client::{Client, accepted, shown};
use crate::scratch_fs::MIB;
use crate::{content, requests};

/// More than that, and new ones make room by deletions.
const MOST: usize = 6;

/// What is in a volume or snapshot: `filled` bytes with this digest, zeros behind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    bytes: u64,
    filled: u64,
    digest: String,
}

/// An operation whose answer never came.
#[derive(Debug)]
enum Doubt {
    Made(String, Content),
    Grown(String, u64),
    Cut(String, Content),
    Deleted(String),
    CutDeleted(String),
}

/// One client. Names of two worlds never meet.
#[derive(Debug)]
pub struct World {
    name: String,
    rng: StdRng,
    pool: PathBuf,
    volumes: BTreeMap<String, Content>,
    cuts: BTreeMap<String, Content>,
    doubt: Option<Doubt>,
    serial: u64,
    /// Acknowledged operations.
    pub done: u64,
    /// Operations whose outcome had to be looked up after a crash.
    pub doubted: u64,
}

impl World {
    /// An empty world in the pool of `case`.
    #[must_use]
    pub fn new(case: &Case<'_>, name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            rng: StdRng::seed_from_u64(seed),
            pool: case.pool().to_owned(),
            volumes: BTreeMap::new(),
            cuts: BTreeMap::new(),
            doubt: None,
            serial: 0,
            done: 0,
            doubted: 0,
        }
    }

    /// Does operations until one is not answered.
    pub fn go_on(&mut self, client: &Client) {
        while self.doubt.is_none() {
            let (doubt, answer) = self.operation(client);
            self.doubt = Some(doubt);
            match answer {
                Ok(()) => {
                    self.believe();
                    self.done += 1;
                }
                Err(status) => no_refusal(&status),
            }
        }
    }

    fn operation(&mut self, client: &Client) -> (Doubt, Result<(), Status>) {
        let volume = self.volumes.keys().choose(&mut self.rng).cloned();
        let cut = self.cuts.keys().choose(&mut self.rng).cloned();
        let crowded = self.volumes.len() >= MOST;
        let many_cuts = self.cuts.len() >= MOST;
        match (self.rng.random_range(0..8), volume, cut) {
            (0 | 1, Some(volume), _) if !many_cuts => self.snapshot(client, &volume),
            (2, Some(volume), _) if !crowded => self.clone_volume(client, &volume),
            (3, _, Some(cut)) if !crowded => self.restore(client, &cut),
            (4, Some(volume), _) => self.expand(client, volume),
            (5, Some(volume), _) => {
                let answer = client.delete(&volume_id(&volume));
                (Doubt::Deleted(volume), answer)
            }
            (6, _, Some(cut)) => {
                let answer = client.delete_cut(&snapshot_id(&cut));
                (Doubt::CutDeleted(cut), answer)
            }
            (_, Some(volume), _) if crowded => {
                let answer = client.delete(&volume_id(&volume));
                (Doubt::Deleted(volume), answer)
            }
            _ => self.create(client),
        }
    }

    fn create(&mut self, client: &Client) -> (Doubt, Result<(), Status>) {
        let name = self.new_name();
        let bytes = self.rng.random_range(1..=6) * MIB;
        let kind = ["thin", "thick"][self.rng.random_range(0..2)];
        let request = requests::volume(&name, bytes, requests::block());
        let request = requests::with_parameter(request, "provisioning", kind);
        let answer = client.create_volume(request).map(drop);
        let empty = Content {
            bytes,
            filled: 0,
            digest: content_digest(&[]),
        };
        if answer.is_ok() {
            // Whoever uses the volume writes to it; the first to do so decides what it holds.
            let bytes = content::pattern(&name, 300_000);
            content::write_at(&self.image(&name), 4096, &bytes);
            let filled = 4096 + bytes.len() as u64;
            let digest = content::digest_of(&self.image(&name), 0, filled);
            let content = Content {
                filled,
                digest,
                ..empty
            };
            return (Doubt::Made(name, content), answer);
        }
        (Doubt::Made(name, empty), answer)
    }

    fn restore(&mut self, client: &Client, cut: &str) -> (Doubt, Result<(), Status>) {
        let name = self.new_name();
        let content = self.cuts[cut].clone();
        let request = requests::volume(&name, content.bytes, requests::block());
        let request = requests::from_snapshot(request, &snapshot_id(cut));
        let answer = client.create_volume(request).map(drop);
        (Doubt::Made(name, content), answer)
    }

    fn clone_volume(&mut self, client: &Client, source: &str) -> (Doubt, Result<(), Status>) {
        let name = self.new_name();
        let content = self.volumes[source].clone();
        let request = requests::volume(&name, content.bytes, requests::block());
        let request = requests::from_volume(request, &volume_id(source));
        let answer = client.create_volume(request).map(drop);
        (Doubt::Made(name, content), answer)
    }

    fn expand(&mut self, client: &Client, volume: String) -> (Doubt, Result<(), Status>) {
        let bytes = self.volumes[&volume].bytes + MIB;
        let request = requests::expand(&volume_id(&volume), bytes, requests::block());
        let answer = client.controller_expand_volume(request).map(drop);
        (Doubt::Grown(volume, bytes), answer)
    }

    fn snapshot(&mut self, client: &Client, volume: &str) -> (Doubt, Result<(), Status>) {
        let name = self.new_name();
        let content = self.volumes[volume].clone();
        let request = requests::snapshot(&name, &volume_id(volume));
        let answer = client.create_snapshot(request).map(drop);
        (Doubt::Cut(name, content), answer)
    }

    fn new_name(&mut self) -> String {
        self.serial += 1;
        format!("{}-{}", self.name, self.serial)
    }

    fn image(&self, name: &str) -> PathBuf {
        let folder = self.pool.join("volumes").join(volume_id(name));
        folder.join("disk.img")
    }

    /// The operation in doubt took effect.
    fn believe(&mut self) {
        match self.doubt.take() {
            Some(Doubt::Made(name, content)) => drop(self.volumes.insert(name, content)),
            Some(Doubt::Grown(name, bytes)) => {
                if let Some(content) = self.volumes.get_mut(&name) {
                    content.bytes = bytes;
                }
            }
            Some(Doubt::Cut(name, content)) => drop(self.cuts.insert(name, content)),
            Some(Doubt::Deleted(name)) => drop(self.volumes.remove(&name)),
            Some(Doubt::CutDeleted(name)) => drop(self.cuts.remove(&name)),
            None => {}
        }
    }

    /// After a crash: what was in doubt is looked up, and everything else must be as it was acknowledged.
    #[track_caller]
    pub fn verify(&mut self, case: &Case<'_>) {
        if let Some(doubt) = &self.doubt {
            self.doubted += 1;
            let happened = match doubt {
                Doubt::Made(name, _) => case.listed(&volume_id(name)).is_some(),
                Doubt::Grown(name, bytes) => case
                    .listed(&volume_id(name))
                    .is_some_and(|volume| volume.capacity_bytes == requests::signed(*bytes)),
                Doubt::Cut(name, _) => case.has_snapshot(&snapshot_id(name)),
                Doubt::Deleted(name) => case.listed(&volume_id(name)).is_none(),
                Doubt::CutDeleted(name) => !case.has_snapshot(&snapshot_id(name)),
            };
            if happened {
                self.believe();
            }
            self.doubt = None;
        }
        for (name, content) in &self.volumes {
            let volume = case.listed(&volume_id(name));
            let volume = volume.unwrap_or_else(|| panic!("the volume {name} is gone"));
            assert_eq!(
                volume.capacity_bytes,
                requests::signed(content.bytes),
                "{name}"
            );
            let image = self.image(name);
            assert_eq!(content::size_of(&image), content.bytes, "{name}");
            let digest = content::digest_of(&image, 0, content.filled);
            assert_eq!(digest, content.digest, "the content of {name} has changed");
            let behind =
                content::first_not_zero(&image, content.filled, content.bytes - content.filled);
            assert_eq!(behind, None, "{name} has bytes that nobody wrote");
        }
    }

    /// The ids of all volumes and snapshots.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        let volumes = self.volumes.keys().map(|name| volume_id(name));
        volumes
            .chain(self.cuts.keys().map(|name| snapshot_id(name)))
            .collect()
    }

    /// Restores every snapshot and compares: it must hold what its volume held.
    #[track_caller]
    pub fn restores_are_right(&mut self, case: &Case<'_>) {
        for (name, content) in &self.cuts {
            let restored = format!("{name}-restored");
            let request = requests::volume(&restored, content.bytes, requests::block());
            let request = requests::from_snapshot(request, &snapshot_id(name));
            let id = case.csi.made_volume(request).volume_id;
            let digest = content::digest_of(&case.image(&id), 0, content.filled);
            assert_eq!(digest, content.digest, "the snapshot {name} has changed");
            accepted(case.csi.delete(&id));
        }
    }
}

/// A server that dies breaks the connection, and that is the only reason not to do what is asked here.
#[track_caller]
fn no_refusal(status: &Status) {
    let broken = [
        Code::Unavailable,
        Code::Unknown,
        Code::Internal,
        Code::Cancelled,
    ];
    assert!(
        broken.contains(&status.code()),
        "refused: {}",
        shown(status)
    );
}

fn content_digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
