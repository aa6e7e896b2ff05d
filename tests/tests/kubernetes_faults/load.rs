//! What people do to a cluster, at random: claims with pods that use them, snapshots, copies, growth, deletion. Each step is
//! begun and not waited for; [`Load::come_to_rest`] waits for all of it and looks whether everything is as it was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::chance::Random;
use tests::kubernetes::{Claim, Namespace, Pod, snapshot, volumes_of};
use tests::wait;

/// Claims at once; more are not made.
const MOST: usize = 8;
/// Calls of `kubectl wait` that one thing may take: a sidecar that failed meanwhile waits for up to a minute before it tries
/// again, and a kubelet for up to two.
const CALLS: usize = 4;
/// What comes after the content of a volume that is read.
const END: &str = "end of it";
/// How long a kubelet may take to know its pods again, and to give back a volume that it has taken away: it waits for up to two
/// minutes before it tries again.
const ANSWERS: Duration = Duration::from_secs(180);

/// A claim with a pod that uses it.
#[derive(Clone, Debug)]
struct Volume {
    content: Content,
    uid: String,
    /// What it is made from: it has to stay until this is there.
    source: Option<String>,
    settled: bool,
}

/// What a volume or snapshot holds.
#[derive(Clone, Debug)]
struct Content {
    /// The name of the claim at the beginning of its history, which is what was written.
    origin: String,
    mebibytes: u64,
    /// A raw device. These grow; a mounted ext4 cannot on every machine.
    block: bool,
}

#[derive(Clone, Debug)]
struct Cut {
    of: String,
    content: Content,
    uid: String,
    ready: bool,
}

/// Where the content of a new volume comes from.
#[derive(Clone, Debug)]
enum Source {
    Claim(String),
    Snapshot(String),
}

/// Everything that was asked for in a namespace.
pub(crate) struct Load<'a> {
    space: &'a Namespace,
    random: Random,
    next: u64,
    claims: BTreeMap<String, Volume>,
    cuts: BTreeMap<String, Cut>,
    /// Objects of the driver that have to go.
    deleted: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(space: &'a Namespace, seed: u64) -> Self {
        Self {
            space,
            random: Random::new(seed),
            next: 0,
            claims: BTreeMap::new(),
            cuts: BTreeMap::new(),
            deleted: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// How often each thing was done.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn any<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() {
            return None;
        }
        let place = self.random.place(of.len());
        Some(of[place].clone())
    }

    fn settled(&self) -> Vec<String> {
        let settled = self.claims.iter().filter(|(_, volume)| volume.settled);
        settled.map(|(name, _)| name.clone()).collect()
    }

    fn ready_cuts(&self) -> Vec<String> {
        let ready = self.cuts.iter().filter(|(_, cut)| cut.ready);
        ready.map(|(name, _)| name.clone()).collect()
    }

    /// One thing that a person might do, begun and not waited for.
    pub(crate) fn step(&mut self) {
        match self.random.within(0..100) {
            0..35 => self.create(None),
            35..50 => self.cut(),
            50..65 => self.copy(),
            65..80 => self.grow(),
            _ => self.delete(),
        }
    }

    /// How many steps at once.
    pub(crate) fn steps(&mut self) -> u64 {
        self.random.within(1..4)
    }

    fn name(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    /// A claim with its pod, empty or with the content of `source`.
    fn create(&mut self, source: Option<Source>) {
        if self.claims.len() >= MOST {
            return;
        }
        let name = self.name("v");
        let mut claim = Claim::new(&name);
        let mut volume = Volume {
            content: Content {
                origin: name.clone(),
                mebibytes: 64,
                block: self.random.chance(50),
            },
            uid: String::new(),
            source: None,
            settled: false,
        };
        let what = match source {
            None => "created",
            Some(Source::Claim(from)) => {
                claim = claim.from_claim(&from);
                volume.content = self.claims[&from].content.clone();
                volume.source = Some(from);
                "cloned"
            }
            Some(Source::Snapshot(from)) => {
                claim = claim.from_snapshot(&from);
                volume.content = self.cuts[&from].content.clone();
                volume.source = Some(from);
                "restored"
            }
        };
        self.count(what);
        let Content {
            mebibytes, block, ..
        } = volume.content;
        claim = claim.size(&format!("{mebibytes}Mi"));
        let mut pod = Pod::new(&name);
        (claim, pod) = if block {
            (claim.block(), pod.device(&name))
        } else {
            (claim, pod.mount(&name))
        };
        let write = if volume.source.is_none() {
            writing(&name, block)
        } else {
            reading(&name, block)
        };
        let line = format!("{write}; touch /tmp/up; sleep 1000000");
        let pod = pod.runs(&line).restarts();
        self.space.apply(&[claim.object(), pod.object()]);
        volume.uid = self.space.field(&format!("pvc/{name}"), "{.metadata.uid}");
        let _new = self.claims.insert(name, volume);
    }

    fn cut(&mut self) {
        let settled = self.settled();
        let Some(of) = self.any(&settled) else {
            return;
        };
        let name = self.name("s");
        self.space.apply(&[snapshot(&name, &of)]);
        let object = format!("volumesnapshot/{name}");
        let cut = Cut {
            content: self.claims[&of].content.clone(),
            uid: self.space.field(&object, "{.metadata.uid}"),
            ready: false,
            of,
        };
        let _new = self.cuts.insert(name, cut);
        self.count("cut");
    }

    fn copy(&mut self) {
        let mut sources: Vec<Source> = self
            .ready_cuts()
            .into_iter()
            .map(Source::Snapshot)
            .collect();
        sources.extend(self.settled().into_iter().map(Source::Claim));
        if let Some(source) = self.any(&sources) {
            self.create(Some(source));
        }
    }

    /// What something is made from just now: it has to stay as it is.
    fn needed(&self) -> Vec<String> {
        let unsettled = self.claims.values().filter(|volume| !volume.settled);
        let sources = unsettled.filter_map(|volume| volume.source.clone());
        let cutting = self.cuts.values().filter(|cut| !cut.ready);
        sources.chain(cutting.map(|cut| cut.of.clone())).collect()
    }

    fn grow(&mut self) {
        let needed = self.needed();
        let mut growable = self.settled();
        growable.retain(|name| self.claims[name].content.block && !needed.contains(name));
        let Some(claim) = self.any(&growable) else {
            return;
        };
        let volume = self.claims.get_mut(&claim).expect("it is settled");
        volume.content.mebibytes += 32;
        volume.settled = false;
        let size = format!("{}Mi", volume.content.mebibytes);
        self.space.grow(&claim, &size);
        self.count("grown");
    }

    /// Deletes a claim or a snapshot that is there and that nothing is made from just now. One that is still being made is
    /// left: with its csi-provisioner killed it would stay for ten minutes.
    fn delete(&mut self) {
        let needed = self.needed();
        let mut names = [self.settled(), self.ready_cuts()].concat();
        names.retain(|name| !needed.contains(name));
        let Some(name) = self.any(&names) else { return };
        let mut objects = Vec::new();
        if let Some(cut) = self.cuts.remove(&name) {
            objects.push(format!("volumesnapshot/{name}"));
            self.deleted
                .push(format!("localsnapshot/snapshot-{}", cut.uid));
        } else if let Some(volume) = self.claims.remove(&name) {
            objects.extend([format!("pod/{name}"), format!("pvc/{name}")]);
            self.deleted.push(format!("localvolume/pvc-{}", volume.uid));
        }
        let mut words = vec!["delete", "--wait=false"];
        words.extend(objects.iter().map(String::as_str));
        let _asked = self.space.kubectl(&words);
        self.count("deleted");
    }

    /// Waits until everything is as it was asked for, and reads it.
    #[track_caller]
    pub(crate) fn come_to_rest(&mut self) {
        let space = self.space;
        for (name, cut) in &mut self.cuts {
            let is_ready = "jsonpath={.status.readyToUse}=true";
            patiently(space, &format!("volumesnapshot/{name}"), is_ready);
            cut.ready = true;
        }
        for (name, volume) in &mut self.claims {
            let Content {
                mebibytes,
                block,
                origin,
            } = &volume.content;
            patiently(space, &format!("pod/{name}"), "condition=Ready");
            has_not_failed(space, name);
            let size = quantity(*mebibytes);
            let size = format!("jsonpath={{.status.capacity.storage}}={size}");
            patiently(space, &format!("pvc/{name}"), &size);
            // Its content may be on its way, and a kubelet that was killed a moment ago does not know its pods yet. One that
            // was started while the API server did not answer it takes devices away, and gives them back: such a device is
            // empty meanwhile. What is mounted stays.
            let read = reading(name, *block);
            let there = if *block {
                format!("test -e /tmp/up && test -n \"$({read})\"")
            } else {
                "test -e /tmp/up".to_owned()
            };
            wait::until(&format!("{name} has its content"), ANSWERS, || {
                space.sh_succeeds(name, &there)
            });
            let told = space.sh(name, &format!("{read}; echo {END}"));
            // Without it the answer has not come through: that says nothing of the volume.
            let found = told
                .strip_suffix(END)
                .unwrap_or_else(|| panic!("reading {name} was cut short: {told:?}"));
            assert_eq!(found.trim(), *origin, "{name} has the content of another");
            volume.settled = true;
        }
        for object in self.deleted.drain(..) {
            patiently(space, &object, "delete");
        }
    }

    /// The driver has a volume and a snapshot for each claim and snapshot that there is, and for `others`, and no more.
    #[track_caller]
    pub(crate) fn nothing_is_lost_or_left(&self, others: &[String]) {
        let claims = self.claims.values();
        let volumes = claims.map(|volume| format!("pvc-{}", volume.uid));
        let volumes: Vec<String> = volumes.chain(others.iter().cloned()).collect();
        let found = volumes_of(self.space.cluster, &self.space.name);
        assert_eq!(sorted(found), sorted(volumes), "volumes, and those to be");
        let cuts = self.cuts.values();
        let cuts = cuts.map(|cut| format!("snapshot-{}", cut.uid)).collect();
        let own = "{range .items[*]}{.metadata.name}{\"\\n\"}{end}";
        let found = self.space.field("localsnapshots", own);
        let found = found.lines().map(str::to_owned).collect();
        assert_eq!(sorted(found), sorted(cuts), "snapshots, and those to be");
    }
}

/// A size as the API server spells it, whatever it was asked for in.
fn quantity(mebibytes: u64) -> String {
    if mebibytes.is_multiple_of(1024) {
        format!("{}Gi", mebibytes / 1024)
    } else {
        format!("{mebibytes}Mi")
    }
}

#[test]
fn a_size_is_spelled_as_the_api_server_spells_it() {
    let spelled = [64, 1024, 1056, 2048].map(quantity);
    assert_eq!(spelled, ["64Mi", "1Gi", "1056Mi", "2Gi"]);
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}

/// A shell line that prints what a volume holds.
fn reading(name: &str, block: bool) -> String {
    if block {
        format!("head -n 1 /dev/{name}")
    } else {
        format!("cat /{name}/file")
    }
}

/// A shell line that fills a volume.
fn writing(name: &str, block: bool) -> String {
    if block {
        format!("echo {name} | dd of=/dev/{name} conv=fsync")
    } else {
        format!("echo {name} >/{name}/file; sync")
    }
}

/// The container has never ended by itself, as it would at the first I/O error. That it could not be started, when the kubelet
/// or the runtime was killed just then, is not for it to answer for.
#[track_caller]
fn has_not_failed(space: &Namespace, pod: &str) {
    let reason = "{.status.containerStatuses[0].lastState.terminated.reason}";
    let reason = space.field(&format!("pod/{pod}"), reason);
    assert!(
        ["", "StartError"].contains(&reason.as_str()),
        "the container of {pod} has ended: {reason}"
    );
}

/// Watches for longer than one call of kubectl does.
#[track_caller]
pub(crate) fn patiently(space: &Namespace, object: &str, what: &str) {
    let mut last = Ok(());
    for _call in 0..CALLS {
        last = space.cluster.wait_for(object, what, &["-n", &space.name]);
        if last.is_ok() {
            return;
        }
    }
    last.unwrap();
}
