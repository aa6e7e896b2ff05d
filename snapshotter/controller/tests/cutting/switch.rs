//! From the upstream programs to ours and back, in a running cluster, with snapshots in every state: nothing changes but who
//! serves them, and what is under way is finished by the successor.

use kube::Client;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tonic::Code;

use crate::driver::{Answer, Driver};
use crate::plane::Plane;
use crate::program::Program;
use crate::stage::{Stage, made_for};
use crate::upstream::Upstream;

/// The cluster, and snapshots of it that stay as they are.
struct Cluster {
    plane: Plane,
    client: Client,
    driver: Driver,
    standing: Vec<(&'static str, Stage)>,
}

/// What a content is marked with just while the driver is called about it.
const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";

/// The upstream controller's Lease is found wherever it is.
const OURS: [&str; 2] = ["--mode=full", "--leader-election=false"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_upstream_to_ours_and_back_nothing_changes_but_who_serves() {
    let plane = Plane::another().await;
    let mut cluster = Cluster {
        client: plane.client().await,
        plane,
        driver: Driver::start("vd.csi.io"),
        standing: Vec::new(),
    };
    let controller = Upstream::controller(&cluster.plane);
    let sidecar = Upstream::sidecar(&cluster.plane, &cluster.driver);
    cluster.fill().await;
    // Upstream writes some things only when it looks at everything once more, as after a start.
    controller.stop().await;
    let controller = Upstream::controller(&cluster.plane);
    cluster.canary("before").await;
    let before = cluster.objects().await;

    // Another chart: ours calls the driver, and leaves the rest to the upstream controller that is there.
    let under_way = cluster.begin("one", Answer::Hang).await;
    sidecar.stop().await;
    under_way.goes_on();
    let ours = Program::start(&cluster.plane.kubeconfig, &cluster.driver.socket, &OURS)
        .await
        .quiet();
    ours.said("serves this cluster", 1).await;
    cluster.finish("sidecar to ours", under_way, &before).await;

    // The upstream controller is removed.
    let under_way = cluster.begin("two", Answer::No(Code::Aborted)).await;
    controller.stop().await;
    ours.said("is gone", 1).await;
    cluster.finish("all to ours", under_way, &before).await;

    // It is installed again.
    let under_way = cluster.begin("three", Answer::No(Code::Aborted)).await;
    let controller = Upstream::controller(&cluster.plane);
    ours.said("serves this cluster", 2).await;
    cluster.finish("controller back", under_way, &before).await;

    // And the chart of before.
    let under_way = cluster.begin("four", Answer::Hang).await;
    ours.kill().await;
    under_way.goes_on();
    let sidecar = Upstream::sidecar(&cluster.plane, &cluster.driver);
    cluster.finish("all back", under_way, &before).await;

    cluster.empty().await;
    sidecar.stop().await;
    controller.stop().await;
}

/// Two pods of different modes are there for a moment whenever the mode is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_upstream_sidecar_and_ours_only_one_calls_the_driver() {
    let plane = Plane::another().await;
    let stage = Stage {
        client: plane.client().await,
        driver: Driver::start("vd.csi.io"),
        name: "both".to_owned(),
        texts: false,
    };
    stage.class(|_| {}).await;
    let more = ["--mode=sidecar", "--leader-election-namespace=kube-system"];
    let start = || Program::start(&plane.kubeconfig, &stage.driver.socket, &more);

    let theirs = Upstream::leased_sidecar(&plane, &stage.driver);
    made_once(&stage, "theirs").await;
    let mut ours = start().await;
    ours.says("another copy works").await;
    made_once(&stage, "theirs-still").await;
    theirs.stop().await;
    ours.says("this copy works").await;
    let ours = ours.quiet();
    let theirs = Upstream::leased_sidecar(&plane, &stage.driver);
    for name in ["ours", "ours-still"] {
        made_once(&stage, name).await;
    }
    ours.stop().await;
    made_once(&stage, "theirs-again").await;
    theirs.stop().await;
}

/// A content is made by whoever works; the driver is asked once, though it takes long enough for everybody to see the content.
async fn made_once(stage: &Stage, name: &str) {
    let volume = format!("vol-{name}");
    stage.driver.script(&volume, &[Answer::Wait]);
    content(stage, name).await;
    stage.driver.called(&volume, 1).await;
    let beside = format!("beside-{name}");
    content(stage, &beside).await;
    let ready = |c: &Value| c["status"]["readyToUse"] == json!(true);
    let contents = stage.contents();
    stage.until(&contents, &beside, "ready", ready).await;
    stage.driver.script(&volume, &[Answer::Ready]);
    stage.until(&contents, name, "ready", ready).await;
    for volume in [volume, format!("vol-{beside}")] {
        assert_eq!(stage.driver.calls(&volume).len(), 1, "{volume}");
    }
}

/// As the upstream controller would make it.
async fn content(stage: &Stage, name: &str) {
    let content = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": name},
        "spec": {
            "driver": stage.driver.name, "deletionPolicy": "Delete", "source": {"volumeHandle": format!("vol-{name}")},
            "volumeSnapshotClassName": stage.name,
            "volumeSnapshotRef": {"namespace": stage.name, "name": name, "uid": uuid::Uuid::new_v4().to_string()},
        },
    });
    stage.make(&stage.contents(), content).await;
}

/// Waits until a snapshot is ready and nobody is at work on it. The upstream sidecar forgets a deletion that comes while it calls the
/// driver, until it looks at everything again after a quarter of an hour (11 of 60, when they were deleted in such a moment).
async fn until_at_rest(stage: &Stage) {
    let ready = stage.until_ready().await;
    let content = &ready["status"]["boundVolumeSnapshotContentName"];
    let at_rest = |content: &Value| content["metadata"]["annotations"][BEING_CREATED].is_null();
    let (contents, content) = (stage.contents(), content.as_str().unwrap());
    stage.until(&contents, content, "at rest", at_rest).await;
}

/// What is made and what is deleted while the programs change.
struct UnderWay {
    made: Stage,
    deleted: Stage,
    handle: String,
    content: String,
}

impl UnderWay {
    /// From now on the driver answers.
    fn goes_on(&self) {
        self.made
            .driver
            .script(&self.made.volume(), &[Answer::Ready]);
    }
}

impl Cluster {
    fn stage(&self, name: &str) -> Stage {
        Stage {
            client: self.client.clone(),
            driver: self.driver.clone(),
            name: name.to_owned(),
            texts: false,
        }
    }

    async fn stand(&mut self, name: &'static str) -> Stage {
        let stage = self.stage(name);
        self.standing.push((name, stage.clone()));
        stage
    }

    /// Snapshots in every state that lasts.
    async fn fill(&mut self) {
        self.ready_ones().await;
        self.waiting_ones().await;
        self.going_ones().await;
    }

    async fn ready_ones(&mut self) {
        let stage = self.stand("ready").await;
        stage.begin().await;
        stage.until_ready().await;

        let stage = self.stand("retain").await;
        stage
            .class(|class| class["deletionPolicy"] = json!("Retain"))
            .await;
        stage.claim(stage.driver.name).await;
        stage.snapshot(Some("retain")).await;
        let ready = |s: &Value| s["status"]["readyToUse"] == json!(true);
        stage.until_snapshot("ready", ready).await;

        let stage = self.stand("given").await;
        stage.driver.has("handle-of-given");
        let content = stage.content("handle-of-given", "Delete", |_| {}).await;
        let spec = json!({"source": {"volumeSnapshotContentName": content}});
        stage.snapshot_of("snap", spec).await;
        stage.until_ready().await;
    }

    async fn waiting_ones(&mut self) {
        let stage = self.stand("classless").await;
        stage.claim(stage.driver.name).await;
        stage.snapshot(None).await;
        stage.until_error("").await;

        let stage = self.stand("claimless").await;
        let class = stage.class(|_| {}).await;
        stage.snapshot(Some(&class)).await;
        stage.until_error("").await;

        let stage = self.stand("contentless").await;
        let spec = json!({"source": {"volumeSnapshotContentName": "there-is-none"}});
        stage.snapshot_of("snap", spec).await;
        stage.until_error("").await;

        let stage = self.stand("failing").await;
        let answers = [Answer::No(Code::Internal)];
        stage.driver.script(&stage.volume(), &answers);
        stage.begin().await;
        stage.until_error("").await;

        let stage = self.stand("unready").await;
        stage.driver.script(&stage.volume(), &[Answer::Pending]);
        stage.begin().await;
        let bound = |s: &Value| {
            s["status"]["readyToUse"] == json!(false)
                && !s["status"]["creationTime"].is_null()
                && s["metadata"]["finalizers"]
                    .as_array()
                    .is_some_and(|all| all.len() == 2)
        };
        stage.until_snapshot("bound", bound).await;

        // Nobody's.
        let stage = self.stand("free").await;
        stage.driver.has("handle-of-free");
        stage.content("handle-of-free", "Retain", |_| {}).await;
    }

    async fn going_ones(&mut self) {
        let stage = self.stand("leaving").await;
        let (content, handle) = made_for(&stage.begin().await);
        until_at_rest(&stage).await;
        stage.driver.refuse_delete(&handle, u32::MAX);
        stage.delete(&stage.snapshots(), "snap").await;
        stage.driver.called(&handle, 1).await;
        let told = |c: &Value| {
            !c["status"]["error"].is_null() || c["metadata"]["deletionTimestamp"].is_string()
        };
        stage
            .until(&stage.contents(), &content, "going", told)
            .await;

        // Deleted by hand, and needed.
        let stage = self.stand("by-hand").await;
        let (content, _) = made_for(&stage.begin().await);
        until_at_rest(&stage).await;
        stage.delete(&stage.contents(), &content).await;

        // Needed by a claim that is being made from it.
        let stage = self.stand("restored").await;
        stage.begin().await;
        until_at_rest(&stage).await;
        let source = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "snap"});
        let spec = json!({"dataSource": source, "volumeName": ""});
        stage.unbound_claim("restored", spec).await;
        stage.delete(&stage.snapshots(), "snap").await;
        stage.until_told("snap", "SnapshotDeletePending").await;
    }

    /// One snapshot is being made and one is being deleted.
    async fn begin(&self, name: &str, answer: Answer) -> UnderWay {
        let deleted = self.stage(&format!("deleted-{name}"));
        let (content, handle) = made_for(&deleted.begin().await);
        until_at_rest(&deleted).await;
        deleted.driver.refuse_delete(&handle, u32::MAX);
        deleted.delete(&deleted.snapshots(), "snap").await;
        deleted.driver.called(&handle, 1).await;
        let made = self.stage(&format!("made-{name}"));
        made.driver.script(&made.volume(), &[answer]);
        made.begin().await;
        made.driver.called(&made.volume(), 1).await;
        UnderWay {
            made,
            deleted,
            handle,
            content,
        }
    }

    /// The successor finishes what was under way, and has touched nothing else.
    async fn finish(&self, step: &str, under_way: UnderWay, before: &Value) {
        eprintln!("{step}: what was under way is finished");
        under_way.goes_on();
        let UnderWay {
            made,
            deleted,
            handle,
            content,
        } = under_way;
        made.until_ready().await;
        assert_eq!(self.driver.snapshots_of(&made.volume()).len(), 1);
        self.driver.refuse_delete(&handle, 0);
        deleted.until_gone(&deleted.snapshots(), "snap").await;
        deleted.until_gone(&deleted.contents(), &content).await;
        assert!(!self.driver.knows(&handle));
        self.canary(&made.name).await;
        self.is_as(step, before).await;
    }

    /// One more from beginning to end: whoever serves has had all the others before it in its queues.
    async fn canary(&self, name: &str) {
        let canary = self.stage(&format!("canary-{name}"));
        let (content, _) = made_for(&canary.begin().await);
        until_at_rest(&canary).await;
        canary.delete(&canary.snapshots(), "snap").await;
        canary.until_gone(&canary.snapshots(), "snap").await;
        canary.until_gone(&canary.contents(), &content).await;
    }

    async fn is_as(&self, step: &str, before: &Value) {
        let now = self.objects().await;
        for (name, was) in before.as_object().unwrap() {
            assert_eq!(
                serde_json::to_string_pretty(&now[name]).unwrap(),
                serde_json::to_string_pretty(was).unwrap(),
                "{step}: {name} has changed"
            );
        }
    }

    /// All that is standing, at the API server and at the driver.
    async fn objects(&self) -> Value {
        let mut all = json!({});
        let contents = self.contents().await;
        for (name, stage) in &self.standing {
            let snapshot = stage.snapshots().get_opt("snap").await.unwrap();
            let mut snapshot = json!(snapshot);
            plain(&mut snapshot);
            let mut ours = contents.clone();
            ours.retain(|content| content["spec"]["volumeSnapshotRef"]["namespace"] == **name);
            if !is_settled(name) {
                ours.iter_mut().for_each(unmark);
            }
            let claim = stage.claims().get_opt("data").await.unwrap();
            all[*name] = json!({
                "snapshot": snapshot,
                "contents": ours,
                "claim's finalizers": claim.and_then(|claim| claim.metadata.finalizers),
                "snapshots": self.driver.snapshots_of(&stage.volume()),
                // What lasts is asked for again and again where it is not ready, and else never.
                "calls": is_settled(name).then(|| self.driver.calls(&stage.volume())),
            });
        }
        let given = ["handle-of-given", "handle-of-free"];
        all["given"]["kept"] = json!(given.map(|handle| self.driver.knows(handle)));
        all
    }

    async fn contents(&self) -> Vec<Value> {
        let stage = self.stage("any");
        let all = stage
            .contents()
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        let plain = |content| {
            let mut content = json!(content);
            plain(&mut content);
            content
        };
        all.items.into_iter().map(plain).collect()
    }

    /// Everything is deleted and let go, and nothing stays but what is to be retained.
    async fn empty(&self) {
        for (name, stage) in &self.standing {
            eprintln!("{name} is deleted");
            stage.driver.script(&stage.volume(), &[Answer::Ready]);
            if !is_settled(name) {
                until_at_rest(stage).await;
            }
            let at_once = DeleteParams::default();
            if *name == "restored" {
                stage.claims().delete("restored", &at_once).await.unwrap();
            }
            for handle in self.driver.snapshots_of(&stage.volume()) {
                self.driver.refuse_delete(&handle, 0);
            }
            let snapshot = stage.snapshots().get_opt("snap").await.unwrap();
            if snapshot.is_some_and(|snapshot| snapshot.metadata.deletion_timestamp.is_none()) {
                stage.delete(&stage.snapshots(), "snap").await;
            }
            stage.until_gone(&stage.snapshots(), "snap").await;
        }
        assert!(!self.driver.knows("handle-of-given"));
        assert_eq!(self.driver.snapshots_of("vol-retain").len(), 1);
        let standing = self.standing.iter().filter(|(name, _)| *name != "retain");
        for (name, stage) in standing {
            assert!(
                self.driver.snapshots_of(&stage.volume()).is_empty(),
                "{name}"
            );
        }
    }
}

/// Takes away [`BEING_CREATED`].
fn unmark(content: &mut Value) {
    let Some(metadata) = content["metadata"].as_object_mut() else {
        return;
    };
    let marks = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut);
    let Some(marks) = marks else { return };
    let _mark = marks.remove(BEING_CREATED);
    if marks.is_empty() {
        let _none = metadata.remove("annotations");
    }
}

/// Whether the driver has no reason to be called about it.
fn is_settled(name: &str) -> bool {
    !["failing", "unready"].contains(&name)
}

/// Without what any write changes, and without the words of an error, which everybody chooses.
fn plain(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["resourceVersion", "managedFields", "generation"] {
            metadata.remove(field);
        }
    }
    if let Some(error) = object.pointer_mut("/status/error")
        && !error.is_null()
    {
        *error = json!("an error");
    }
}
