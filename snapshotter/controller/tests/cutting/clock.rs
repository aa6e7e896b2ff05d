//! The clock of a machine jumps: by hand, or when it is set at last after a start without one.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use tonic::Code;

use crate::cuts::Cuts;
use crate::driver::{Answer, Driver};
use crate::plane::{client, plane};
use crate::program::Program;
use crate::run::Behind;
use crate::stage::{Stage, made_for};

/// What a program is started with so that the time of day can be another one for it alone.
struct Clock {
    library: PathBuf,
    /// By how many seconds.
    jump: PathBuf,
    _folder: tempfile::TempDir,
}

const LIBRARY: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long long *jump;

__attribute__((constructor)) static void begin(void) {
    jump = mmap(NULL, sizeof *jump, PROT_READ, MAP_SHARED, open(getenv("VD_CLOCK"), O_RDONLY), 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += *jump;
    return result;
}
"#;

impl Clock {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [source, library, jump] =
            ["clock.c", "clock.so", "jump"].map(|name| folder.path().join(name));
        std::fs::write(&source, LIBRARY).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(built.unwrap().success(), "the linker of Rust builds C too");
        let clock = Self {
            library,
            jump,
            _folder: folder,
        };
        File::create(&clock.jump).unwrap();
        clock.jumps(0);
        clock
    }

    fn jumps(&self, seconds: i64) {
        let jump = File::options().write(true).open(&self.jump).unwrap();
        jump.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

/// Waits until the Lease was renewed by a clock that is so far ahead, and gives who has it for the how manieth time.
async fn renewed(leases: &Api<Lease>, ahead: i64) -> (Option<String>, Option<i32>) {
    let so = |lease: Option<&Lease>| {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
        renewed.is_some_and(|renewed| {
            let now = Timestamp::now().as_second() + ahead;
            (renewed.0.as_second() - now).abs() < 1000
        })
    };
    let name = "external-snapshotter-leader-jumping-vd-csi-io";
    let waiting = await_condition(leases.clone(), name, so);
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await;
    let lease = waited.expect("it is renewed by that clock").unwrap();
    let spec = lease.unwrap().spec.unwrap();
    (spec.holder_identity, spec.lease_transitions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ends_nothing_and_makes_no_second_leader() {
    let clock = Clock::new();
    let stage = Stage {
        client: client().await,
        driver: Driver::start("jumping.vd.csi.io"),
        name: "jumping".to_owned(),
        texts: true,
    };
    let cuts = Arc::new(Cuts::new(None));
    let behind = Behind::new(stage.client.clone(), &stage.driver, &cuts).await;
    let more = [
        "--mode=full",
        "--driver-name=jumping.vd.csi.io",
        "--leader-election-namespace=jumping",
        "--upstream-lease-namespace=nobody",
    ];
    let environment = [("LD_PRELOAD", &*clock.library), ("VD_CLOCK", &*clock.jump)];
    let mut first =
        Program::start_in(&environment, &behind.kubeconfig, &behind.socket, &more).await;
    first.says("this copy works").await;
    let first = first.quiet();
    let mut second = Program::start(&plane().kubeconfig, &stage.driver.socket, &more).await;
    second.says("another copy works").await;
    let second = second.quiet();
    stage.class(|_| {}).await;
    stage.claim(stage.driver.name).await;
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), "jumping");
    let held = renewed(&leases, 0).await;

    let year = 365 * 24 * 3600;
    for jump in [3600, -3600, 10 * year, -30 * year, 0] {
        // One that waits for a pause to be over, and one that is made from beginning to end.
        stage
            .driver
            .script(&stage.volume(), &[Answer::No(Code::Internal)]);
        let snapshot = stage.snapshot(Some("jumping")).await;
        stage.until_error("as the test wants").await;
        clock.jumps(jump);
        assert_eq!(renewed(&leases, jump).await, held);
        stage.driver.script(&stage.volume(), &[Answer::Ready]);
        let ready = stage.until_ready().await;
        assert!(ready["status"]["error"].is_null());
        let spec = json!({"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": "jumping"});
        stage.snapshot_of("second", spec).await;
        let is_ready = |s: &Value| s["status"]["readyToUse"] == json!(true);
        let snapshots = stage.snapshots();
        stage.until(&snapshots, "second", "ready", is_ready).await;
        for name in ["second", "snap"] {
            stage.delete(&snapshots, name).await;
            stage.until_gone(&snapshots, name).await;
        }
        let content = made_for(&snapshot).0;
        stage.until_gone(&stage.contents(), &content).await;
        assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
    }
    assert_eq!(renewed(&leases, 0).await, held);
    let page = second.get("/metrics").await;
    assert!(page.contains("vd_snapshotter_leading 0"), "{page}");
    let calls = cuts.calls().len();
    assert!(calls < 1000, "{calls} calls are a storm");
    second.kill().await;
    first.stop().await;
}
