//! What csi-sanity has to find of the driver, wherever it runs.

use std::collections::BTreeSet;

use super::Report;

/// Each capability that the driver leaves out on purpose, with the specs that need it.
const LEFT_OUT: &[(&str, &[&str])] = &[
    (
        "PUBLISH_UNPUBLISH_VOLUME: a local disk is not attached over a network, so there is nothing for a controller to do",
        &[
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when no volume id is provided",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when no node id is provided",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when no volume capability is provided",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when the volume does not exist",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when the node does not exist",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when the volume is already published but is incompatible",
            "Controller Service [Controller Server] / ControllerUnpublishVolume / should fail when no volume id is provided",
            "Controller Service [Controller Server] / volume lifecycle / should work",
            "Controller Service [Controller Server] / volume lifecycle / should be idempotent",
        ],
    ),
    (
        "an attach limit: part of publishing from the controller",
        &[
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when publishing more volumes than the node max attach limit",
        ],
    ),
    (
        "MODIFY_VOLUME: there are no VolumeAttributesClass parameters yet",
        &[
            "Controller Service [Controller Server] / CreateVolume / should create volume with a volume attribute class",
            "Controller Service [Controller Server] / CreateVolume / should not create volume with an invalid volume attribute class",
            "ModifyVolume [Controller Server] / should fail if no volume id is given",
            "ModifyVolume [Controller Server] / should fail if volume does not exist",
            "ModifyVolume [Controller Server] / should fail if specified mutable parameters are not supported by the volume",
            "ModifyVolume [Controller Server] / should modify a volume created without a volume attribute class",
            "ModifyVolume [Controller Server] / should modify a volume created with a volume attribute class",
            "ModifyVolume [Controller Server] / should fail to modify a volume created with a volume attribute class if new mutable parameters are not supported by volume",
        ],
    ),
    (
        "GROUP_CONTROLLER_SERVICE: one cut for several disks is not built yet",
        &[
            "GroupController Service [GroupController Server] / GroupControllerGetCapabilities / should return appropriate capabilities",
            "GroupController Service [GroupController VolumeGroupSnapshots] / CreateVolumeGroupSnapshot / should fail when no name is provided",
            "GroupController Service [GroupController VolumeGroupSnapshots] / GetVolumeGroupSnapshot / should fail when no volume id is provided",
            "GroupController Service [GroupController VolumeGroupSnapshots] / GetVolumeGroupSnapshot / should fail when an invalid volume id is used",
            "GroupController Service [GroupController VolumeGroupSnapshots] / DeleteVolumeGroupSnapshot / should fail when no volume id is provided",
            "GroupController Service [GroupController VolumeGroupSnapshots] / DeleteVolumeGroupSnapshot / should succeed when an invalid volume id is used",
        ],
    ),
    (
        "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS: alpha, and no released sidecar knows it",
        &[
            "CreateSnapshot [Controller Server] / should succeed when creating a snapshot with accessibility requirements",
        ],
    ),
];

/// Active specs of v5.6.0, as it is run here.
const ACTIVE: usize = 102;

/// No spec failed, and none was skipped but those that are named here. `left_out` specs were left out by the caller.
#[track_caller]
pub fn assert_conforms(report: &Report, left_out: usize) {
    assert!(
        report.failed.is_empty(),
        "{} specs failed: {:#?}\n{}",
        report.failed.len(),
        report.failed,
        report.output
    );
    let on_purpose: BTreeSet<String> = LEFT_OUT
        .iter()
        .flat_map(|(_capability, specs)| specs.iter().map(|spec| (*spec).to_owned()))
        .collect();
    let unexpected: Vec<_> = report.skipped.difference(&on_purpose).collect();
    let not_skipped: Vec<_> = on_purpose.difference(&report.skipped).collect();
    assert!(
        unexpected.is_empty() && not_skipped.is_empty(),
        "skipped without being named here: {unexpected:#?}\nnamed here but not skipped: {not_skipped:#?}"
    );
    let ran = report.passed + report.skipped.len() + left_out;
    assert_eq!(ran, ACTIVE, "every active spec was accounted for");
}
