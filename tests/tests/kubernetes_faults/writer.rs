//! A pod that writes all the time, and would be seen to fail.

use tests::cluster::Node;
use tests::kubernetes::{Claim, Namespace, Pod};

/// A pod that appends numbered lines to a file, each forced to the disk, and ends at the first error.
pub(crate) struct Writer {
    /// Of the pod and of its claim.
    pub(crate) name: String,
}

impl Writer {
    /// The name of the one on a node.
    pub(crate) fn name_on(node: &Node) -> String {
        format!("writer-{}", node.name())
    }

    /// Starts it on a node.
    #[track_caller]
    pub(crate) fn start(space: &Namespace, node: &Node) -> Self {
        let name = Self::name_on(node);
        let line = format!(
            "n=0; while :; do n=$((n+1)); \
             echo $n $((n*7919)) end | dd of=/{name}/log oflag=append conv=notrunc,fsync 2>/tmp/error; \
             sleep 0.1; done"
        );
        let pod = Pod::new(&name).mount(&name).on(&node.name()).runs(&line);
        space.apply(&[Claim::new(&name).object(), pod.object()]);
        space.ready(&name);
        Self { name }
    }

    /// It has written without an error and without a gap since its start. Returns how many lines there are.
    #[track_caller]
    pub(crate) fn check(&self, space: &Namespace) -> usize {
        let name = &self.name;
        let pod = space.object(&format!("pod/{name}"));
        assert_eq!(pod["status"]["phase"], "Running", "{pod:#}");
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!(status["restartCount"], 0, "{status:#}");
        // The last line may be under way.
        let script = format!(
            "lines=$(wc -l </{name}/log); head -n $lines /{name}/log | awk '\
             $1 != NR || $2 != NR * 7919 || $3 != \"end\" {{ print \"line \" NR \" is \" $0 }} END {{ print NR }}'"
        );
        let told = space.sh(name, &script);
        let lines = told.parse();
        lines.unwrap_or_else(|_| panic!("{name}: {told}"))
    }

    /// How many lines there are by now, as the node `node` sees it: also when nobody can ask the API server.
    #[track_caller]
    pub(crate) fn lines_seen_in(node: &Node, volume: &str) -> usize {
        let mounts = "/var/lib/kubelet/pods/*/volumes/kubernetes.io~csi";
        let count = format!("wc -l <$(echo {mounts}/{volume}/mount/log)");
        let told = node.run(&["sh", "-c", &count]).unwrap().ok();
        told.trim().parse().unwrap_or_else(|_| panic!("{told}"))
    }
}
