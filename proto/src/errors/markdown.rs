//! Prints the table as `docs/error-codes.md`.

use tonic::Code;

use super::{Kind, Rpc, answer};

const INTRODUCTION: &str = "\
# Error codes

Printed from the table in `proto/src/errors`; do not edit it here. After a change there, run
`UPDATE_DOCS=1 cargo test -p proto`.

The callers of a CSI driver act on the gRPC code alone, each in its own way. So the code is chosen
per RPC by what its caller does next, and the last column says what that is. `OK` in the table
means that the RPC does not take it for a failure. Messages say what to do; no status has details.
What is not listed does not occur, and is answered with `INTERNAL` if it ever does.

*Final* is said from the caller's side: after a final error it takes the call as over and without
a result, after any other it remembers that there may be one.

";

/// RPCs that share one set of answers are one section.
pub(super) const SECTIONS: [&[Rpc]; 19] = [
    &[Rpc::CreateVolume],
    &[Rpc::DeleteVolume],
    &[Rpc::ControllerExpandVolume],
    &[Rpc::CreateSnapshot],
    &[Rpc::DeleteSnapshot],
    &[Rpc::ValidateVolumeCapabilities],
    &[
        Rpc::ListVolumes,
        Rpc::ListSnapshots,
        Rpc::ControllerListVolumeHealth,
    ],
    &[
        Rpc::ControllerGetVolume,
        Rpc::GetSnapshot,
        Rpc::ControllerGetVolumeHealth,
    ],
    &[Rpc::GetCapacity],
    &[
        Rpc::ControllerPublishVolume,
        Rpc::ControllerUnpublishVolume,
        Rpc::ControllerModifyVolume,
    ],
    &[Rpc::NodeStageVolume],
    &[Rpc::NodeUnstageVolume],
    &[Rpc::NodePublishVolume],
    &[Rpc::NodeUnpublishVolume],
    &[Rpc::NodeExpandVolume],
    &[Rpc::NodeGetVolumeStats],
    &[Rpc::NodeGetVolumeHealth, Rpc::NodeGetStorageHealth],
    &[Rpc::Probe],
    &[
        Rpc::GetPluginInfo,
        Rpc::GetPluginCapabilities,
        Rpc::ControllerGetCapabilities,
        Rpc::NodeGetCapabilities,
        Rpc::NodeGetInfo,
    ],
];

/// The whole table as Markdown: the kinds of failure, then one section per group of RPCs.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(INTRODUCTION);
    text.push_str("## Kinds of failure\n\n| Kind | Meaning |\n| --- | --- |\n");
    for kind in Kind::ALL {
        text.push_str(&format!("| {kind:?} | {} |\n", kind.meaning()));
    }
    for rpcs in SECTIONS {
        text.push_str(&section(rpcs));
    }
    text
}

fn section(rpcs: &[Rpc]) -> String {
    let names: Vec<&str> = rpcs.iter().map(|rpc| rpc.name()).collect();
    let mut text = format!(
        "\n## {}\n\n| Kind | Code | Why |\n| --- | --- | --- |\n",
        names.join(", ")
    );
    let Some(&rpc) = rpcs.first() else {
        return text;
    };
    for kind in Kind::ALL {
        let cell = answer(rpc, kind);
        if cell.occurs {
            text.push_str(&format!(
                "| {kind:?} | {} | {} |\n",
                spelled(cell.code),
                cell.why
            ));
        }
    }
    text
}

/// The code as gRPC and CSI write it.
fn spelled(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
