use k8s_openapi::jiff::Timestamp;

use super::*;

const POOL: &str = "the pool";

fn facts() -> Facts {
    Facts {
        what: "volume",
        named: true,
        delete: false,
        going: false,
        held: true,
        created: Some(POOL.to_owned()),
        state: State::Ready,
        satisfied: true,
        resting: false,
        pool: Ok(POOL.to_owned()),
        data: present(),
    }
}

fn present() -> Data {
    Data::Present {
        difference: None,
        grow: false,
    }
}

fn new() -> Facts {
    Facts {
        held: false,
        created: None,
        state: State::Pending,
        satisfied: false,
        data: Data::Absent,
        ..facts()
    }
}

fn step(facts: &Facts) -> Step {
    plan(facts).step
}

#[test]
fn a_new_object_is_held_made_marked_and_reported_in_this_order() {
    let mut facts = new();
    assert_eq!(step(&facts), Step::Hold);
    facts.held = true;
    assert_eq!(step(&facts), Step::Make);
    facts.data = present();
    assert_eq!(step(&facts), Step::MarkMade);
    facts.created = Some(POOL.to_owned());
    let plan = plan(&facts);
    assert_eq!((plan.step, plan.view.state), (Step::Report, State::Ready));
    assert_eq!((plan.view.ready, plan.view.failure), (Some(true), None));
}

#[test]
fn a_failed_operation_rests_before_it_is_tried_again() {
    let made = Facts {
        held: true,
        resting: true,
        ..new()
    };
    let grown = Facts {
        resting: true,
        data: Data::Present {
            difference: None,
            grow: true,
        },
        ..facts()
    };
    let removed = Facts {
        resting: true,
        delete: true,
        ..facts()
    };
    for facts in [made, grown, removed] {
        assert_eq!(step(&facts), Step::Rest, "{facts:?}");
        let due = Facts {
            resting: false,
            ..facts
        };
        assert!(step(&due).touches_data(), "{due:?}");
    }
}

#[test]
fn data_is_removed_only_if_the_object_says_so() {
    // Everything that can be true without `delete`: nothing of it may lead to a removal.
    let pools = [
        Ok(POOL.to_owned()),
        Ok("another".to_owned()),
        Err(Failure::new(Kind::Unavailable, "away")),
    ];
    let all = [
        Data::Absent,
        present(),
        Data::Damaged("torn".to_owned()),
        Data::Unknown(Failure::new(Kind::Io, "disk")),
    ];
    for pool in &pools {
        for data in &all {
            for bits in 0..16_u8 {
                let facts = Facts {
                    going: bits & 1 != 0,
                    held: bits & 2 != 0,
                    created: (bits & 4 != 0).then(|| POOL.to_owned()),
                    state: if bits & 8 != 0 {
                        State::Deleted
                    } else {
                        State::Ready
                    },
                    pool: pool.clone(),
                    data: data.clone(),
                    ..facts()
                };
                assert_ne!(step(&facts), Step::Remove, "{facts:?}");
                let has_data = *data != Data::Absent || facts.created.is_some();
                assert!(
                    !has_data || step(&facts) != Step::Release,
                    "let go of data: {facts:?}"
                );
                assert!(
                    facts.created.is_none() || step(&facts) != Step::Make,
                    "made in place of what was lost: {facts:?}"
                );
            }
        }
    }
}

#[test]
fn a_deletion_removes_reports_and_releases() {
    let mut facts = Facts {
        delete: true,
        ..facts()
    };
    let plan_ = plan(&facts);
    assert_eq!(
        (plan_.step, plan_.view.state),
        (Step::Remove, State::Deleting)
    );
    facts.data = Data::Absent;
    let plan_ = plan(&facts);
    assert_eq!(
        (plan_.step, plan_.view.state),
        (Step::Report, State::Deleted)
    );
    facts.state = State::Deleted;
    assert_eq!(step(&facts), Step::Release);
    facts.held = false;
    assert_eq!(step(&facts), Step::Report);
    facts.going = true;
    assert_eq!(step(&facts), Step::Leave);
}

#[test]
fn what_lies_in_another_pool_is_never_touched() {
    let elsewhere = Facts {
        created: Some("another".to_owned()),
        ..facts()
    };
    let plan_ = plan(&elsewhere);
    assert_eq!(
        (plan_.step, plan_.view.state),
        (Step::Report, State::DataMissing)
    );
    assert!(plan_.view.message.contains("another"));
    let deleted = Facts {
        delete: true,
        ..elsewhere
    };
    let plan_ = plan(&deleted);
    assert_eq!(
        (plan_.step, plan_.view.state),
        (Step::Report, State::Deleted)
    );
    let message = plan_.view.message;
    assert!(
        message.contains("only the object is deleted") && message.contains("another"),
        "{message}"
    );
}

#[test]
fn lost_data_is_missing_and_not_made_again() {
    let lost = Facts {
        data: Data::Absent,
        ..facts()
    };
    let plan = plan(&lost);
    assert_eq!(
        (plan.step, plan.view.state),
        (Step::Report, State::DataMissing)
    );
}

#[test]
fn an_object_deleted_by_hand_keeps_its_data_and_goes_if_it_has_none() {
    let kept = Facts {
        going: true,
        ..facts()
    };
    let plan_ = plan(&kept);
    assert_eq!(
        (plan_.step, plan_.view.reason),
        (Step::Report, "DeletedByHand")
    );
    let empty = Facts {
        going: true,
        held: true,
        ..new()
    };
    assert_eq!(step(&empty), Step::Release);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let differs = Facts {
        data: Data::Present {
            difference: Some("fsType is ext4".to_owned()),
            grow: false,
        },
        ..facts()
    };
    let damaged = Facts {
        data: Data::Damaged("torn".to_owned()),
        ..facts()
    };
    let foreign = Facts {
        named: false,
        ..facts()
    };
    for (facts, kind) in [
        (differs, Kind::Conflict),
        (damaged, Kind::Corrupt),
        (foreign, Kind::InvalidArgument),
    ] {
        let plan = plan(&facts);
        assert_eq!((plan.step, plan.view.state), (Step::Report, State::Failed));
        assert_eq!(plan.view.failure.map(|failure| failure.kind), Some(kind));
    }
}

#[test]
fn a_pool_that_is_away_changes_nothing_and_fails_only_what_waits_for_it() {
    let away = Err(Failure::new(Kind::Unavailable, "not mounted"));
    let quiet = Facts {
        pool: away.clone(),
        ..facts()
    };
    let plan_ = plan(&quiet);
    assert_eq!((plan_.step, plan_.view.state), (Step::Report, State::Ready));
    assert_eq!((plan_.view.ready, plan_.view.failure), (None, None));
    for waiting in [
        Facts {
            pool: away.clone(),
            ..new()
        },
        Facts {
            pool: away,
            delete: true,
            ..facts()
        },
    ] {
        let plan = plan(&waiting);
        assert_eq!(plan.step, Step::Report);
        assert_eq!(
            plan.view.failure.map(|failure| failure.kind),
            Some(Kind::Unavailable)
        );
    }
}

#[test]
fn attempts_come_ever_more_slowly_and_a_new_wish_at_once() {
    assert_eq!(
        [1, 2, 3, 9].map(|attempts| pause("Io", attempts)),
        [1, 2, 4, 60]
    );
    assert_eq!(pause("Busy", 9), 4);
    let at = |second| Time(Timestamp::from_second(second).unwrap_or_default());
    let failed = LastFailure {
        kind: "Io".to_owned(),
        message: String::new(),
        observed_generation: 3,
        attempts: 3,
        time: at(100),
    };
    assert_eq!(rest(Some(&failed), 3, &at(101)), Some(3));
    assert_eq!(rest(Some(&failed), 3, &at(104)), None);
    assert_eq!(rest(Some(&failed), 4, &at(101)), None);
    assert_eq!(
        rest(Some(&failed), 3, &at(0)),
        Some(4),
        "the clock was set back"
    );
    assert_eq!(rest(None, 1, &at(0)), None);
}
