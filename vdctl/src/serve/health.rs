//! What is wrong with a volume, in CSI's words.

use csi_controller::model::{HealthProblem, HealthStatus, VolumeHealth};
use csi_node::local_node::Problem;

pub(super) fn volume_health(id: String, problems: Vec<Problem>) -> VolumeHealth {
    VolumeHealth {
        volume_id: id,
        problems: problems.into_iter().map(problem).collect(),
    }
}

fn problem(problem: Problem) -> HealthProblem {
    let (status, reason, message) = match problem {
        Problem::RecordDamaged(message) => (HealthStatus::Inaccessible, "RecordDamaged", message),
        Problem::ImageDamaged(message) => (HealthStatus::DataLoss, "ImageDamaged", message),
        Problem::Unreadable(message) => (HealthStatus::Inaccessible, "Unreadable", message),
        Problem::PoolUnavailable(message) => {
            (HealthStatus::Inaccessible, "PoolUnavailable", message)
        }
    };
    HealthProblem {
        status,
        reason: reason.to_owned(),
        message,
    }
}
