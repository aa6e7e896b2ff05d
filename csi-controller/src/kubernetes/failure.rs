//! From failures of the API server and of agents to the driver's own kinds.

use proto::errors::{Failure, Kind};

/// A failure of the API server. `doing` completes "could not ...".
///
/// All but a refusal of the object itself is `Unavailable`: it says nothing about what exists, and may be over at the next call.
pub(crate) fn of_api(error: &kube::Error, doing: &str) -> Failure {
    let kube::Error::Api(status) = error else {
        return unreachable(doing, &format!("{error}"));
    };
    match status.code {
        404 => Failure::new(
            Kind::Unavailable,
            format!(
                "could not {doing}: the API server does not know the custom resources of vd.csi.io; \
                 apply the definitions of this driver"
            ),
        ),
        401 | 403 => Failure::new(
            Kind::Unavailable,
            format!(
                "could not {doing}: the API server refuses it to csi-controller; check its \
                 ClusterRole and ServiceAccount: {}",
                status.message
            ),
        ),
        400 | 422 => Failure::new(
            Kind::Internal,
            format!("could not {doing}: refused as invalid: {}", status.message),
        ),
        _ => unreachable(doing, &status.message),
    }
}

/// A failure to get any answer from the API server.
pub(crate) fn unreachable(doing: &str, why: &str) -> Failure {
    Failure::new(
        Kind::Unavailable,
        format!("could not {doing} at the API server: {why}; it is tried again"),
    )
}

/// A failure that an agent reports. `what` begins the message: "volume X on node Y".
pub(crate) fn of_agent(failure: &api::Failure, what: &str) -> Failure {
    Failure::new(kind(&failure.kind), format!("{what}: {}", failure.message))
}

/// The kind of this name. A name of a newer agent that is not known here is a fault.
pub(crate) fn kind(name: &str) -> Kind {
    let named = |kind: &Kind| format!("{kind:?}") == name;
    Kind::ALL.into_iter().find(named).unwrap_or(Kind::Internal)
}

/// Whether a creation that failed so is given up: repeating it unchanged does not help, and all begun was undone. What is
/// busy, unreachable, or of unknown result is left for the agent to go on with.
pub(crate) fn ends_creation(kind: Kind) -> bool {
    match kind {
        Kind::InvalidArgument
        | Kind::NotFound
        | Kind::Conflict
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::Precondition => true,
        Kind::Busy
        | Kind::Unavailable
        | Kind::Corrupt
        | Kind::Io
        | Kind::Uncertain
        | Kind::BadToken
        | Kind::Unimplemented
        | Kind::Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use proto::errors::Kind;

    use super::kind;

    #[test]
    fn every_kind_is_known_by_its_name() {
        for one in Kind::ALL {
            assert_eq!(kind(&format!("{one:?}")), one);
        }
        assert_eq!(kind("SomethingNew"), Kind::Internal);
    }
}
