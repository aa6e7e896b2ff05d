//! Block volumes that kubelet has forgotten to unpublish.
//!
//! A kubelet that is killed after it has removed a pod's link to a Block volume, and before NodeUnpublish, does not know of it any
//! more: it finds the volumes of pods again by these links. The volume's deletion comes all the same, with the device still at
//! its target.

use std::path::{Path, PathBuf};

use pool::attach::loop_device::{self, LoopDevice, Usage};
use pool::attach::mount;
use pool::attach::target::TargetBase;
use pool::{Context, Result};

/// Where kubelet publishes Block volumes, below its folder and before the volume's name and the pod's UID; from behind.
const PUBLISH: [&str; 5] = [
    "publish",
    "volumeDevices",
    "csi",
    "kubernetes.io",
    "plugins",
];

/// Takes a device away from targets of pods that kubelet does not know any more. Others stay, and so does everything where kubelet
/// has a loop device of its own on it, as for each pod that runs.
///
/// # Errors
/// The kernel's.
pub(super) fn unpublish(device: &LoopDevice) -> Result<()> {
    while let Usage::Published(at) = loop_device::usage(device)? {
        let Some(path) = at.to_str() else { break };
        if !is_forgotten(&at)? || loop_device::is_held(device)? {
            break;
        }
        let Some(target) = TargetBase::anywhere().open(path)? else {
            break;
        };
        mount::unmount_top(&target)?;
        let _free = target.remove()?;
        tracing::info!(
            at = path,
            "unpublished a Block volume that is deleted from a pod that kubelet does not know any more"
        );
    }
    Ok(())
}

/// Whether this is kubelet's target for a pod that has no folder any more. It has one from before its first volume until after its
/// last container.
fn is_forgotten(published: &Path) -> Result<bool> {
    let Some((pods, pod)) = folders(published) else {
        return Ok(false);
    };
    let exists = |path: &Path| {
        path.try_exists()
            .context_with(|| format!("look for {}", path.display()))
    };
    // Without the folder of all pods this is no kubelet's, or not all of it can be seen from here.
    Ok(exists(&pods)? && !exists(&pod)?)
}

/// The folder of all pods, and that of the pod that a target is for.
fn folders(published: &Path) -> Option<(PathBuf, PathBuf)> {
    let uid = published.file_name()?;
    let mut at = published.parent()?.parent()?;
    for name in PUBLISH {
        if at.file_name()? != name {
            return None;
        }
        at = at.parent()?;
    }
    let pods = at.join("pods");
    let pod = pods.join(uid);
    Some((pods, pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_of_a_target_is_known_where_kubelet_made_the_target() {
        let kubelet = "/var/lib/kubelet";
        let target = format!("{kubelet}/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/uid");
        let folders_of = |path: &str| folders(Path::new(path));
        assert_eq!(
            folders_of(&target),
            Some((
                PathBuf::from("/var/lib/kubelet/pods"),
                PathBuf::from("/var/lib/kubelet/pods/uid")
            ))
        );
        for other in [
            "/",
            "/somewhere/else",
            "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/pvc-1/mount",
            "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/staging/pvc-1/uid",
            "publish/pvc-1/uid",
        ] {
            assert_eq!(folders_of(other), None, "{other}");
        }
    }
}
