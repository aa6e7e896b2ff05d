//! What is done about a snapshot in every state it can be in.

use std::sync::Arc;

use serde_json::{Value, json};

use super::content;
use super::observe::{Observed, Owner, Volume};
use super::plan::{Plan, Step, plan};
use super::refusal;

const DRIVER: &str = "vd.csi.io";
const AS_SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
const BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
const OF_CLAIM: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
const RESTORING: &str = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";
const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

/// A snapshot and its surroundings, as JSON to be changed.
struct Case {
    snapshot: Value,
    class: Value,
    content: Value,
    claim: Value,
    volume: Value,
}

impl Case {
    /// A snapshot that was just made, of a claim that is bound, with a class.
    fn new() -> Self {
        Self {
            snapshot: json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "metadata": {"namespace": "shop", "name": "daily", "uid": "u1", "resourceVersion": "7"},
                "spec": {"source": {"persistentVolumeClaimName": "db"}, "volumeSnapshotClassName": "vd"},
            }),
            class: json!({"metadata": {"name": "vd"}, "driver": DRIVER, "deletionPolicy": "Delete"}),
            content: Value::Null,
            claim: json!({
                "metadata": {"namespace": "shop", "name": "db", "uid": "c1"},
                "spec": {"volumeName": "pv1"}, "status": {"phase": "Bound"},
            }),
            volume: json!({
                "metadata": {"name": "pv1"},
                "spec": {
                    "csi": {"driver": DRIVER, "volumeHandle": "pvc-1"}, "volumeMode": "Block",
                    "claimRef": {"namespace": "shop", "name": "db", "uid": "c1"},
                },
            }),
        }
    }

    /// The same once its content is made and it has its finalizers.
    fn followed() -> Self {
        let mut case = Self::new();
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE]);
        case.claim["metadata"]["finalizers"] = json!([OF_CLAIM]);
        case.content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "snapcontent-u1", "uid": "vsc1"},
            "spec": {
                "driver": DRIVER, "deletionPolicy": "Delete", "source": {"volumeHandle": "pvc-1"},
                "volumeSnapshotClassName": "vd",
                "volumeSnapshotRef": {"namespace": "shop", "name": "daily", "uid": "u1"},
            },
        });
        case
    }

    /// The same once it is ready, and all is as it should be.
    fn done() -> Self {
        let mut case = Self::followed();
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE, BOUND]);
        case.claim["metadata"]["finalizers"] = json!([]);
        case.content["status"] = json!({"snapshotHandle": "snapshot-u1", "readyToUse": true, "creationTime": 0, "restoreSize": 1024});
        case.snapshot["status"] = json!({
            "boundVolumeSnapshotContentName": "snapcontent-u1", "readyToUse": true,
            "creationTime": "1970-01-01T00:00:00Z", "restoreSize": "1Ki",
        });
        case
    }

    /// A snapshot of a content that somebody else has made.
    fn given() -> Self {
        let mut case = Self::new();
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE]);
        case.snapshot["spec"] = json!({"source": {"volumeSnapshotContentName": "mine"}});
        case.class = Value::Null;
        case.claim = Value::Null;
        case.content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "mine", "uid": "vsc1"},
            "spec": {
                "driver": DRIVER, "deletionPolicy": "Retain", "source": {"snapshotHandle": "snapshot-9"},
                "volumeSnapshotRef": {"namespace": "shop", "name": "daily"},
            },
        });
        case
    }

    fn going(mut self) -> Self {
        self.snapshot["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn seen(self) -> Observed {
        fn get<T: serde::de::DeserializeOwned>(value: &Value) -> Option<Arc<T>> {
            (!value.is_null()).then(|| Arc::new(serde_json::from_value(value.clone()).unwrap()))
        }
        let content = get::<crate::objects::VolumeSnapshotContent>(&self.content);
        let named = |name: &Value| {
            let named = !name.is_null() && *name == self.content["metadata"]["name"];
            content.clone().filter(|_| named)
        };
        let class = get::<crate::objects::VolumeSnapshotClass>(&self.class);
        let is_named =
            self.snapshot["spec"]["volumeSnapshotClassName"] == self.class["metadata"]["name"];
        Observed {
            driver: DRIVER.to_owned(),
            now: "now".to_owned(),
            class: class.clone().filter(|_| is_named),
            default_classes: class
                .into_iter()
                .filter(|class| class.is_default())
                .collect(),
            wanted: named(&self.snapshot["spec"]["source"]["volumeSnapshotContentName"]),
            own: named(&json!("snapcontent-u1")),
            bound: named(&self.snapshot["status"]["boundVolumeSnapshotContentName"]),
            claim: get(&self.claim),
            volume: match self.volume {
                Value::Null => Volume::NotAsked,
                Value::Bool(_) => Volume::Missing,
                found => Volume::answered(Some(serde_json::from_value(found).unwrap())),
            },
            claim_is_wanted: false,
            restored_to: None,
            snapshot: get(&self.snapshot).unwrap(),
        }
    }

    fn plan(self) -> Plan {
        plan(&self.seen())
    }
}

/// The steps, shortly.
fn steps(plan: &Plan) -> Vec<String> {
    let short = |step: &Step| match step {
        Step::ReadVolume(name) => format!("read {name}"),
        Step::SetClass(name) => format!("class {name}"),
        Step::SetFinalizers(all) => {
            let ends = all.iter().map(|one| one.rsplit('/').next().unwrap());
            format!("finalizers {}", ends.collect::<Vec<_>>().join(" "))
        }
        Step::SetStatus(status) => format!("status {status}"),
        Step::ProtectClaim => "protect".to_owned(),
        Step::ReleaseClaim => "release".to_owned(),
        Step::CreateContent(_) => "create".to_owned(),
        Step::BindContent(spec) => format!("bind {spec}"),
        Step::MarkContent(name) => format!("mark {name}"),
        Step::DeleteContent(name) => format!("delete {name}"),
        Step::Tell(telling) => format!("tell {}", telling.reason),
    };
    plan.steps.iter().map(short).collect()
}

/// The reason that is told with a trouble.
fn trouble(plan: &Plan) -> &'static str {
    let told = plan.steps.iter().find_map(|step| match step {
        Step::Tell(telling) => Some(telling.reason),
        _ => None,
    });
    told.unwrap_or_else(|| panic!("nothing is told: {plan:?}"))
}

#[test]
fn a_snapshot_comes_about_step_by_step() {
    assert_eq!(
        steps(&Case::new().plan()),
        ["finalizers volumesnapshot-as-source-protection"]
    );
    let finalized =
        || Case::new().with(|case| case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE]));
    assert_eq!(steps(&finalized().plan()), ["protect"]);
    let protected =
        || finalized().with(|case| case.claim["metadata"]["finalizers"] = json!([OF_CLAIM]));
    assert_eq!(
        steps(&protected().with(|case| case.volume = Value::Null).plan()),
        ["read pv1"]
    );
    assert_eq!(
        steps(&protected().plan()),
        ["create", "tell CreatingSnapshot"]
    );
    let bound = json!({"boundVolumeSnapshotContentName": "snapcontent-u1", "readyToUse": false});
    assert_eq!(steps(&Case::followed().plan()), [format!("status {bound}")]);
    let bound = Case::followed().with(|case| case.snapshot["status"] = bound);
    assert_eq!(
        steps(&bound.plan()),
        ["finalizers volumesnapshot-as-source-protection volumesnapshot-bound-protection"]
    );
    let ready = Case::done().with(|case| {
        case.snapshot["status"] =
            json!({"boundVolumeSnapshotContentName": "snapcontent-u1", "readyToUse": false});
    });
    let status =
        json!({"creationTime": "1970-01-01T00:00:00Z", "readyToUse": true, "restoreSize": "1Ki"});
    assert_eq!(
        steps(&ready.plan()),
        [
            format!("status {status}"),
            "tell SnapshotCreated".to_owned(),
            "tell SnapshotReady".to_owned()
        ]
    );
    let released =
        Case::done().with(|case| case.claim["metadata"]["finalizers"] = json!([OF_CLAIM]));
    assert_eq!(steps(&released.plan()), ["release"]);
    assert_eq!(Case::done().plan(), Plan::nothing());
}

#[test]
fn the_content_says_all_that_the_driver_needs() {
    let case = Case::new().with(|case| {
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE]);
        case.claim["metadata"]["finalizers"] = json!([OF_CLAIM]);
        case.class["deletionPolicy"] = json!("Retain");
        case.class["parameters"] = json!({
            "csi.storage.k8s.io/snapshotter-secret-name": "of-${volumesnapshot.name}",
            "csi.storage.k8s.io/snapshotter-secret-namespace": "vault",
        });
    });
    let plan = case.plan();
    let Step::CreateContent(content) = &plan.steps[0] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        *content,
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {
                "name": "snapcontent-u1",
                "annotations": {
                    "snapshot.storage.kubernetes.io/deletion-secret-name": "of-daily",
                    "snapshot.storage.kubernetes.io/deletion-secret-namespace": "vault",
                },
                "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
            },
            "spec": {
                "volumeSnapshotRef": {
                    "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "namespace": "shop", "name": "daily",
                    "uid": "u1", "resourceVersion": "7",
                },
                "source": {"volumeHandle": "pvc-1"}, "volumeSnapshotClassName": "vd", "deletionPolicy": "Retain",
                "driver": DRIVER, "sourceVolumeMode": "Block",
            },
        })
    );
}

#[test]
fn objects_of_other_drivers_are_left_alone() {
    let cases = [
        Case::new().with(|case| case.class["driver"] = json!("other")),
        Case::followed().with(|case| case.content["spec"]["driver"] = json!("other")),
        Case::done()
            .with(|case| case.content["spec"]["driver"] = json!("other"))
            .going(),
        Case::given().with(|case| case.content["spec"]["driver"] = json!("other")),
        Case::new().with(|case| case.snapshot["status"] = json!({"volumeGroupSnapshotName": "g"})),
    ];
    for case in cases {
        let seen = case.seen();
        assert_eq!(seen.owner(), Owner::AnotherDriver);
        assert_eq!(plan(&seen), Plan::nothing());
    }
    // No class is named, and the claim's volume is another driver's.
    let case = Case::new().with(|case| {
        case.snapshot["spec"] = json!({"source": {"persistentVolumeClaimName": "db"}});
        case.volume["spec"]["csi"]["driver"] = json!("other");
    });
    assert_eq!(case.plan(), Plan::nothing());
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn what_is_wrong_is_told_with_the_reason_of_the_upstream_controller() {
    type Change = fn(&mut Case);
    fn ready_to_create(case: &mut Case) {
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE]);
        case.claim["metadata"]["finalizers"] = json!([OF_CLAIM]);
    }
    let cases: [(&str, &str, Case, Change); 16] = [
        ("class", "GetSnapshotClassFailed", Case::new(), |c| {
            c.class = Value::Null;
        }),
        ("two sources", "SnapshotValidationError", Case::new(), |c| {
            c.snapshot["spec"]["source"]["volumeSnapshotContentName"] = json!("x");
        }),
        ("no source", "SnapshotValidationError", Case::new(), |c| {
            c.snapshot["spec"]["source"] = json!({});
        }),
        (
            "no claim",
            "SnapshotContentCreationFailed",
            Case::new(),
            |c| {
                ready_to_create(c);
                c.claim = Value::Null;
            },
        ),
        (
            "claim is going",
            "SnapshotContentCreationFailed",
            Case::new(),
            |c| {
                ready_to_create(c);
                c.claim["metadata"] = json!({"namespace": "shop", "name": "db", "deletionTimestamp": "2026-01-01T00:00:00Z"});
            },
        ),
        (
            "claim is not bound",
            "SnapshotContentCreationFailed",
            Case::new(),
            |c| {
                ready_to_create(c);
                c.claim["status"]["phase"] = json!("Pending");
            },
        ),
        (
            "volume is gone",
            "SnapshotContentCreationFailed",
            Case::new(),
            |c| {
                ready_to_create(c);
                c.volume = json!(false);
            },
        ),
        (
            "volume is another claim's",
            "SnapshotContentCreationFailed",
            Case::new(),
            |c| {
                ready_to_create(c);
                c.volume["spec"]["claimRef"]["uid"] = json!("another");
            },
        ),
        (
            "volume is of no CSI driver",
            "SnapshotContentCreationFailed",
            Case::new(),
            |c| {
                ready_to_create(c);
                c.volume["spec"]["csi"] = Value::Null;
            },
        ),
        (
            "secret",
            "SnapshotContentCreationFailed",
            Case::new(),
            |c| {
                ready_to_create(c);
                c.class["parameters"] = json!({"csi.storage.k8s.io/snapshotter-secret-name": "x"});
            },
        ),
        (
            "content of that name was given",
            "SnapshotContentMismatch",
            Case::followed(),
            |c| {
                c.content["spec"]["source"] = json!({"snapshotHandle": "x"});
            },
        ),
        (
            "content of that name is another's",
            "SnapshotContentMisbound",
            Case::followed(),
            |c| {
                c.content["spec"]["volumeSnapshotRef"]["uid"] = json!("another");
            },
        ),
        (
            "the given content is missing",
            "SnapshotContentMissing",
            Case::given(),
            |c| c.content = Value::Null,
        ),
        (
            "the given content was made",
            "SnapshotContentMismatch",
            Case::given(),
            |c| {
                c.content["spec"]["source"] = json!({"volumeHandle": "x"});
            },
        ),
        (
            "the given content is another's",
            "SnapshotContentMisbound",
            Case::given(),
            |c| {
                c.content["spec"]["volumeSnapshotRef"]["name"] = json!("another");
            },
        ),
        (
            "the given content is taken",
            "SnapshotContentMisbound",
            Case::given(),
            |c| {
                c.content["spec"]["volumeSnapshotRef"]["uid"] = json!("another");
            },
        ),
    ];
    for (what, reason, case, change) in cases {
        let plan = case.with(change).plan();
        assert_eq!(trouble(&plan), reason, "{what}");
        assert!(plan.trouble.is_some(), "{what} is tried again");
        assert!(
            matches!(&plan.steps[0], Step::SetStatus(status) if !status["error"].is_null()),
            "{what}"
        );
    }
}

#[test]
fn a_snapshot_that_was_ready_tells_what_has_become_of_its_content() {
    let gone = Case::done().with(|case| case.content = Value::Null).plan();
    assert_eq!(trouble(&gone), "SnapshotContentMissing");
    assert_eq!(gone.trouble, None, "it does not come back");
    let taken = Case::done().with(|case| {
        case.content["metadata"]["name"] = json!("given");
        case.content["spec"]["volumeSnapshotRef"]["uid"] = json!("another");
        case.snapshot["status"]["boundVolumeSnapshotContentName"] = json!("given");
    });
    assert_eq!(trouble(&taken.plan()), "SnapshotMisbound");
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn what_the_api_server_refuses_is_told_with_the_reason_of_the_upstream_controller() {
    let told = |case: Case, step: Step, rest: &[Step]| {
        let seen = case.seen();
        let all = refusal::told(&seen, &step, rest, "no");
        let reasons = all.iter().filter_map(|step| match step {
            Step::Tell(telling) => Some(telling.reason),
            Step::SetStatus(status) => {
                assert_eq!(status["error"]["message"], json!("no"));
                Some(if status["readyToUse"].is_null() {
                    "beside"
                } else {
                    "status"
                })
            }
            _ => None,
        });
        reasons.collect::<Vec<_>>().join(" ")
    };
    let name = || "x".to_owned();
    let classless = || {
        Case::new().with(|case| {
            case.snapshot["spec"] = json!({"source": {"persistentVolumeClaimName": "db"}});
        })
    };
    let created = "CreateSnapshotContentFailed status SnapshotContentCreationFailed";
    let cases = [
        (Case::new(), Step::CreateContent(json!({})), created),
        (
            Case::new(),
            Step::ProtectClaim,
            "status SnapshotContentCreationFailed",
        ),
        (
            Case::new(),
            Step::ReadVolume(name()),
            "status SnapshotContentCreationFailed",
        ),
        (
            classless(),
            Step::ReadVolume(name()),
            "beside SetDefaultSnapshotClassFailed",
        ),
        (
            classless(),
            Step::SetClass(name()),
            "beside SetDefaultSnapshotClassFailed",
        ),
        (
            Case::given(),
            Step::BindContent(json!({})),
            "status SnapshotBindFailed",
        ),
        (
            Case::new(),
            Step::SetStatus(json!({})),
            "beside SnapshotStatusUpdateFailed",
        ),
        (
            Case::new(),
            Step::SetFinalizers(vec![]),
            "SnapshotFinalizerError",
        ),
        (Case::new(), Step::ReleaseClaim, "ErrorPVCFinalizer"),
        (
            Case::done(),
            Step::DeleteContent(name()),
            "SnapshotContentObjectDeleteError",
        ),
    ];
    for (case, step, want) in cases {
        assert_eq!(told(case, step.clone(), &[]), want, "{step:?}");
    }
    // A trouble that cannot be written down is told all the same.
    let trouble = Case::new().with(|case| case.class = Value::Null).plan();
    let [status, rest @ ..] = &trouble.steps[..] else {
        panic!("{trouble:?}")
    };
    assert_eq!(
        told(Case::new(), status.clone(), rest),
        "GetSnapshotClassFailed"
    );
    // And once: the status says it already.
    let known = Case::new().with(|case| {
        case.snapshot["status"] = json!({"error": {"message": "no"}});
    });
    assert_eq!(
        told(known, Step::ProtectClaim, &[]),
        "",
        "the same is told once"
    );
}

#[test]
fn the_same_trouble_is_told_once() {
    let first = Case::new().with(|case| case.class = Value::Null).plan();
    let message = first.trouble.clone().unwrap();
    let again = Case::new().with(|case| {
        case.class = Value::Null;
        case.snapshot["status"] = json!({"error": {"message": message}});
    });
    let again = again.plan();
    assert_eq!(again.steps, []);
    assert_eq!(again.trouble, first.trouble);
}

#[test]
fn a_class_that_is_missing_does_not_make_a_snapshot_less_ready() {
    let plan = Case::new().with(|case| case.class = Value::Null).plan();
    let Step::SetStatus(status) = &plan.steps[0] else {
        panic!("{plan:?}")
    };
    assert_eq!(status["readyToUse"], Value::Null);
}

#[test]
fn a_snapshot_that_names_no_class_gets_the_default_one_of_its_volume() {
    let nameless = |change: fn(&mut Case)| {
        Case::new()
            .with(|case| {
                case.snapshot["spec"] = json!({"source": {"persistentVolumeClaimName": "db"}});
                case.class["metadata"]["annotations"] =
                    json!({"snapshot.storage.kubernetes.io/is-default-class": "true"});
            })
            .with(change)
            .plan()
    };
    assert_eq!(steps(&nameless(|_| {})), ["class vd"]);
    assert_eq!(
        steps(&nameless(|case| case.volume = Value::Null)),
        ["read pv1"]
    );
    let wrong: [fn(&mut Case); 5] = [
        |case| case.class["metadata"]["annotations"] = Value::Null,
        |case| case.class["driver"] = json!("other"),
        |case| case.claim = Value::Null,
        |case| case.claim["status"]["phase"] = json!("Pending"),
        |case| case.volume["spec"]["csi"] = Value::Null,
    ];
    for change in wrong {
        assert_eq!(trouble(&nameless(change)), "SetDefaultSnapshotClassFailed");
    }
    let mut two = Case::new();
    two.snapshot["spec"] = json!({"source": {"persistentVolumeClaimName": "db"}});
    two.class["metadata"]["annotations"] =
        json!({"snapshot.storage.kubernetes.io/is-default-class": "true"});
    let mut two = two.seen();
    two.default_classes.extend(two.default_classes.clone());
    assert_eq!(trouble(&plan(&two)), "SetDefaultSnapshotClassFailed");
}

#[test]
fn a_given_content_is_bound_and_followed() {
    assert_eq!(
        steps(&Case::given().plan()),
        [r#"bind {"volumeSnapshotRef":{"uid":"u1"}}"#]
    );
    let with_class = Case::given().with(|case| {
        case.snapshot["spec"]["volumeSnapshotClassName"] = json!("vd");
        case.class = Case::new().class;
        case.content["spec"]["volumeSnapshotRef"]["uid"] = json!("u1");
    });
    let bind = json!({"volumeSnapshotRef": {"uid": "u1"}, "volumeSnapshotClassName": "vd"});
    assert_eq!(steps(&with_class.plan()), [format!("bind {bind}")]);
    let bound = Case::given().with(|case| {
        case.content["spec"]["volumeSnapshotRef"]["uid"] = json!("u1");
        case.content["status"] =
            json!({"snapshotHandle": "snapshot-9", "readyToUse": true, "creationTime": 0});
    });
    let status = json!({
        "boundVolumeSnapshotContentName": "mine", "creationTime": "1970-01-01T00:00:00Z", "readyToUse": true,
    });
    assert_eq!(
        steps(&bound.plan()),
        [
            format!("status {status}"),
            "tell SnapshotCreated".to_owned(),
            "tell SnapshotReady".to_owned()
        ]
    );
}

#[test]
fn an_error_of_the_content_is_the_snapshots_until_it_goes() {
    let bound = json!({"boundVolumeSnapshotContentName": "snapcontent-u1", "readyToUse": false});
    let failing = || {
        Case::followed().with(|case| {
            case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE, BOUND]);
            case.snapshot["status"] = bound.clone();
            case.content["status"] =
                json!({"readyToUse": false, "error": {"time": "t", "message": "no room"}});
        })
    };
    let status = json!({"error": {"time": "t", "message": "no room"}});
    assert_eq!(steps(&failing().plan()), [format!("status {status}")]);
    let told = failing().with(|case| case.snapshot["status"]["error"] = status["error"].clone());
    assert_eq!(told.plan(), Plan::nothing());
    let over = failing().with(|case| {
        case.snapshot["status"]["error"] = status["error"].clone();
        case.content["status"] = json!({"readyToUse": false});
    });
    assert_eq!(steps(&over.plan()), [r#"status {"error":null}"#]);
}

#[test]
fn an_error_of_the_content_without_a_time_is_taken_over_once() {
    let case = Case::followed().with(|case| {
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE, BOUND]);
        case.snapshot["status"] = json!({
            "boundVolumeSnapshotContentName": "snapcontent-u1", "readyToUse": false,
            "error": {"time": "2026-01-01T00:00:00Z", "message": "no room"},
        });
        case.content["status"] = json!({"readyToUse": false, "error": {"message": "no node"}});
    });
    // What is not named in a change stays.
    let change = json!({"error": {"time": null, "message": "no node"}});
    assert_eq!(steps(&case.plan()), [format!("status {change}")]);
}

#[test]
fn a_deleted_snapshot_takes_its_content_along_and_waits_for_it() {
    let first = Case::done().going().plan();
    assert_eq!(
        steps(&first),
        [
            "mark snapcontent-u1",
            "delete snapcontent-u1",
            "finalizers volumesnapshot-bound-protection"
        ]
    );
    let waiting = Case::done().going().with(|case| {
        case.snapshot["metadata"]["finalizers"] = json!([BOUND]);
        case.content["metadata"]["annotations"] = json!({BEING_DELETED: "yes"});
        case.content["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    assert_eq!(waiting.plan(), Plan::nothing());
    let gone = Case::done().going().with(|case| {
        case.snapshot["metadata"]["finalizers"] = json!([BOUND, "a.user/s"]);
        case.content = Value::Null;
    });
    assert_eq!(steps(&gone.plan()), ["finalizers s"]);
}

#[test]
fn a_content_is_not_deleted_before_it_is_protected() {
    let bare = |finalizers: Value| {
        Case::done().going().with(|case| {
            case.content["metadata"]["annotations"] = json!({BEING_DELETED: "yes"});
            case.content["metadata"]["finalizers"] = finalizers;
        })
    };
    let protect = bare(json!(["a.user/s"])).plan();
    assert_eq!(
        steps(&protect)[..2],
        ["mark snapcontent-u1", "delete snapcontent-u1"]
    );
    let protected = bare(json!([crate::names::CONTENT_FINALIZER])).plan();
    assert_eq!(steps(&protected)[0], "delete snapcontent-u1");
}

#[test]
fn a_deleted_snapshot_leaves_a_content_that_is_to_be_retained() {
    let retained = Case::done()
        .going()
        .with(|case| case.content["spec"]["deletionPolicy"] = json!("Retain"));
    assert_eq!(
        steps(&retained.plan()),
        ["mark snapcontent-u1", "finalizers "]
    );
}

#[test]
fn a_content_of_another_snapshot_is_not_touched_by_a_deletion() {
    let others = Case::done()
        .going()
        .with(|case| case.content["spec"]["volumeSnapshotRef"]["uid"] = json!("x"));
    assert_eq!(steps(&others.plan()), ["finalizers "]);
}

#[test]
fn a_snapshot_that_was_never_bound_takes_along_what_was_made_for_it() {
    let unbound = Case::followed().going();
    assert_eq!(
        steps(&unbound.plan()),
        [
            "mark snapcontent-u1",
            "delete snapcontent-u1",
            "release",
            "finalizers "
        ]
    );
}

#[test]
fn a_given_snapshot_whose_status_does_not_name_its_content_takes_that_along_all_the_same() {
    let bound = |uid: Value| {
        Case::given().going().with(|case| {
            case.content["spec"]["deletionPolicy"] = json!("Delete");
            case.content["spec"]["volumeSnapshotRef"]["uid"] = uid;
        })
    };
    let taken = ["mark mine", "delete mine", "finalizers "];
    assert_eq!(steps(&bound(json!("u1")).plan()), taken);
    // One that was never given to it is not.
    for uid in [Value::Null, json!("u9")] {
        assert_eq!(steps(&bound(uid).plan()), ["finalizers "]);
    }
}

#[test]
fn a_deleted_snapshot_needs_no_class() {
    let classless = Case::done().going().with(|case| {
        case.class = Value::Null;
        case.snapshot["status"]["error"] = json!({"message": Case::new()
            .with(|case| case.class = Value::Null).plan().trouble.unwrap()});
    });
    assert_eq!(steps(&classless.plan())[0], "mark snapcontent-u1");
    let never_had_one = Case::new().going().with(|case| {
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE]);
        case.snapshot["spec"] = json!({"source": {"persistentVolumeClaimName": "gone"}});
        case.claim = Value::Null;
    });
    assert_eq!(steps(&never_had_one.plan()), ["finalizers "]);
}

#[test]
fn a_snapshot_is_not_deleted_while_a_volume_is_made_from_it() {
    let mut restored = Case::done().going().seen();
    restored.restored_to = Some("copy".to_owned());
    let restored = plan(&restored);
    assert_eq!(steps(&restored), ["tell SnapshotDeletePending"]);
    assert!(restored.trouble.unwrap().contains("copy"));
    // The claim is gone already, but csi-provisioner has not ended.
    let provisioned = Case::done().going().with(|case| {
        case.snapshot["metadata"]["finalizers"] = json!([AS_SOURCE, BOUND, RESTORING]);
    });
    assert_eq!(steps(&provisioned.plan()), ["tell SnapshotDeletePending"]);
}

#[test]
fn a_snapshot_that_others_hold_is_none_of_ours() {
    let held = Case::done()
        .going()
        .with(|case| case.snapshot["metadata"]["finalizers"] = json!(["a.user/s"]));
    assert_eq!(held.plan(), Plan::nothing());
}

#[test]
fn a_claim_stays_protected_while_another_snapshot_of_it_is_made() {
    let mut ready = Case::done()
        .with(|case| case.claim["metadata"]["finalizers"] = json!([OF_CLAIM]))
        .seen();
    ready.claim_is_wanted = true;
    assert_eq!(plan(&ready), Plan::nothing());
    let mut going = Case::followed().going().seen();
    going.claim_is_wanted = true;
    assert!(!steps(&plan(&going)).contains(&"release".to_owned()));
}

fn content_step(change: impl FnOnce(&mut Case)) -> Option<content::Step> {
    let case = Case::followed().with(|case| {
        case.content["metadata"]["finalizers"] = json!([crate::names::CONTENT_FINALIZER]);
    });
    let case = case.with(change);
    let snapshot =
        (!case.snapshot.is_null()).then(|| serde_json::from_value(case.snapshot.clone()).unwrap());
    content::plan(
        DRIVER,
        &serde_json::from_value(case.content.clone()).unwrap(),
        snapshot.as_ref(),
    )
}

#[test]
fn a_content_is_protected_as_soon_as_it_is_somebodys() {
    assert_eq!(content_step(|_| {}), None);
    assert_eq!(
        content_step(|case| case.content["metadata"]["finalizers"] = json!([])),
        Some(content::Step::Protect)
    );
    let of_nobody = |case: &mut Case| {
        case.content["metadata"]["finalizers"] = json!([]);
        case.content["spec"]["volumeSnapshotRef"]["uid"] = Value::Null;
    };
    assert_eq!(content_step(of_nobody), None);
    let going = |case: &mut Case| {
        case.content["metadata"]["finalizers"] = json!(["x"]);
        case.content["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    };
    assert_eq!(content_step(going), None);
    assert_eq!(
        content_step(|case| case.content["spec"]["driver"] = json!("other")),
        None
    );
    assert_eq!(
        content_step(|case| case.content["spec"]["source"] = json!({})),
        Some(content::Step::Refuse)
    );
}

#[test]
fn a_content_is_marked_when_its_own_snapshot_is_going_and_never_when_that_is_missing() {
    let going = |case: &mut Case| {
        case.snapshot["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    };
    assert_eq!(content_step(going), Some(content::Step::Mark));
    assert_eq!(content_step(|case| case.snapshot = Value::Null), None);
    let successor = |case: &mut Case| {
        going(case);
        case.snapshot["metadata"]["uid"] = json!("u2");
    };
    assert_eq!(content_step(successor), None);
}
