use api::LocalVolume;
use proto::errors::Kind;
use serde_json::{Value, json};

use super::{Creation, Deletion, Seen, creation, deletion, overdue};
use crate::kubernetes::wait::Verdict;

fn object(change: impl FnOnce(&mut Value)) -> LocalVolume {
    let mut object = json!({
        "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume",
        "metadata": {"name": "v", "uid": "1", "generation": 2, "finalizers": ["vd.csi.io/agent"]},
        "spec": {"nodeName": "edge-1", "name": "x", "requestedBytes": 1, "sizeBytes": 1_048_576, "volumeMode": "Block"},
        "status": {"state": "Pending", "observedGeneration": 2},
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

fn failing(kind: &str, generation: i64, attempts: i64) -> Value {
    json!({
        "kind": kind, "message": "because", "observedGeneration": generation, "attempts": attempts,
        "time": "2026-01-01T00:00:00Z",
    })
}

/// In one word, for tables.
fn created(object: &LocalVolume, seen: &Seen) -> String {
    match creation(Some(object), seen) {
        Verdict::Settled(Creation::Made(_)) => "made".to_owned(),
        Verdict::Settled(Creation::Again) => "again".to_owned(),
        Verdict::Settled(Creation::Failed(_, failure)) => format!("{:?}", failure.kind),
        Verdict::Working => "working".to_owned(),
        Verdict::Silent => "silent".to_owned(),
    }
}

fn deleted(object: &LocalVolume, seen: &Seen) -> String {
    match deletion(Some(object), seen) {
        Verdict::Settled(Deletion::Gone) => "gone".to_owned(),
        Verdict::Settled(Deletion::Again) => "again".to_owned(),
        Verdict::Settled(Deletion::Failed(_, failure)) => format!("{:?}", failure.kind),
        Verdict::Working => "working".to_owned(),
        Verdict::Silent => "silent".to_owned(),
    }
}

type Change = fn(&mut Value);

#[test]
fn a_creation_is_judged_by_what_the_agent_reports() {
    let seen = Seen::of(&object(|_| {}));
    let table: [(&str, Change); 14] = [
        ("working", |_| {}),
        ("working", |o| {
            o["status"]["failure"] = failing("Busy", 2, 1);
        }),
        ("silent", |o| o["metadata"]["finalizers"] = json!([])),
        ("made", |o| o["status"]["state"] = json!("Ready")),
        ("again", |o| o["metadata"]["uid"] = json!("2")),
        ("silent", |o| o["spec"]["delete"] = json!(true)),
        ("again", |o| {
            o["spec"]["delete"] = json!(true);
            o["status"]["state"] = json!("Deleted");
        }),
        ("Corrupt", |o| o["status"]["state"] = json!("DataMissing")),
        ("Corrupt", |o| o["status"]["state"] = json!("Failed")),
        ("Corrupt", |o| {
            o["status"]["state"] = json!("Failed");
            o["status"]["failure"] = failing("NoSpace", 2, 1);
        }),
        ("NoSpace", |o| {
            o["status"]["failure"] = failing("NoSpace", 2, 1);
        }),
        ("Io", |o| o["status"]["failure"] = failing("Io", 2, 1)),
        ("Internal", |o| {
            o["status"]["failure"] = failing("Newfangled", 2, 1);
        }),
        ("working", |o| o["status"]["failure"] = failing("Io", 1, 1)),
    ];
    for (expected, change) in table {
        let object = object(change);
        assert_eq!(created(&object, &seen), expected, "{object:?}");
    }
    assert!(matches!(
        creation::<LocalVolume>(None, &seen),
        Verdict::Settled(Creation::Again)
    ));
}

#[test]
fn an_old_failure_that_may_pass_is_no_news_and_one_that_may_not_is() {
    let old = |kind: &str| object(|o| o["status"]["failure"] = failing(kind, 2, 3));
    let passing = old("Unavailable");
    assert_eq!(created(&passing, &Seen::of(&passing)), "silent");
    let again = object(|o| o["status"]["failure"] = failing("Unavailable", 2, 4));
    assert_eq!(created(&again, &Seen::of(&passing)), "Unavailable");
    let earlier = object(|o| o["status"]["failure"] = failing("Unavailable", 1, 3));
    assert_eq!(created(&passing, &Seen::of(&earlier)), "Unavailable");
    let lasting = old("NoSpace");
    assert_eq!(created(&lasting, &Seen::of(&lasting)), "NoSpace");
}

#[test]
fn a_deletion_is_judged_by_what_the_agent_reports() {
    let going = |change: Change| {
        object(|o| {
            o["spec"]["delete"] = json!(true);
            o["status"]["state"] = json!("Ready");
            change(o);
        })
    };
    let seen = Seen::of(&going(|_| {}));
    let table: [(&str, Change); 9] = [
        ("working", |_| {}),
        ("silent", |o| o["metadata"]["generation"] = json!(3)),
        ("again", |o| o["spec"]["delete"] = json!(false)),
        ("again", |o| o["status"]["state"] = json!("Deleted")),
        ("silent", |o| {
            o["status"]["state"] = json!("Deleted");
            o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }),
        ("gone", |o| o["metadata"]["uid"] = json!("2")),
        ("InUse", |o| o["status"]["failure"] = failing("InUse", 2, 1)),
        ("working", |o| {
            o["status"]["failure"] = failing("InUse", 1, 1);
        }),
        ("Io", |o| o["status"]["failure"] = failing("Io", 2, 1)),
    ];
    for (expected, change) in table {
        let object = going(change);
        assert_eq!(deleted(&object, &seen), expected, "{object:?}");
    }
}

#[test]
fn who_gives_up_says_what_is_waited_for_and_where() {
    let copying = object(|o| o["status"]["progress"] = json!(37));
    let failure = overdue(&copying, true, "made");
    assert_eq!(failure.kind, Kind::Busy);
    assert!(failure.message.contains("37 %"), "{failure}");
    let silent = overdue(&object(|_| {}), false, "deleted");
    assert_eq!(silent.kind, Kind::Unavailable);
    for part in ["volume v", "edge-1", "csi-node"] {
        assert!(silent.message.contains(part), "{silent}");
    }
    let failed = object(|o| o["status"]["failure"] = failing("Unavailable", 2, 3));
    assert!(overdue(&failed, false, "made").message.contains("because"));
}
