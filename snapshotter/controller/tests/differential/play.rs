//! Plays scenarios on all sides at once.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{Barrier, Semaphore};

use crate::beat::Beat;
use crate::compare::{Meeting, Report};
use crate::driver::Driver;
use crate::mirror::Mirror;
use crate::part::Part;
use crate::picture::Source;
use crate::plane::{self, Plane};
use crate::side::{SIDES, Servers, Side};
use crate::stage::Stage;

pub type Scenario = fn(Arc<Part>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
pub type Table = &'static [(&'static str, Scenario)];

/// Scenarios by their names.
#[macro_export]
macro_rules! table {
    ($($module:ident: $($name:ident)*;)*) => {
        &[$($((stringify!($name), |part| Box::pin($module::$name(part)))),*),*]
    };
}

/// A control plane and who serves it.
pub struct House {
    pub side: Side,
    pub servers: Arc<Servers>,
    stage: Stage,
    mirror: Mirror,
    beat: Beat,
    _plane: Plane,
}

impl House {
    /// Starts everything of one side.
    pub async fn open(side: Side) -> Self {
        let plane = Plane::another().await;
        let client = plane::connect(&plane.kubeconfig).await;
        let driver = Driver::start("vd.csi.io");
        let mirror = Mirror::start(&client);
        let servers = Servers::new(side, plane.kubeconfig.clone(), driver.clone());
        servers.start().await;
        let stage = Stage {
            client,
            driver,
            name: String::new(),
            texts: side == Side::Full,
        };
        Self {
            side,
            servers: Arc::new(servers),
            beat: Beat::start(stage.clone()),
            stage,
            mirror,
            _plane: plane,
        }
    }

    fn stage(&self, name: &str) -> Stage {
        Stage {
            name: name.to_owned(),
            ..self.stage.clone()
        }
    }
}

/// How many scenarios play at a time: more only wait for the machine.
pub const AT_A_TIME: usize = 16;

/// Plays those whose name has one of `VD_SCENARIO` (with commas between) in it, at once, and gives what has failed. They share restarts.
pub async fn play(
    houses: &[House; 3],
    table: Table,
    report: &Arc<Mutex<Report>>,
    at_a_time: usize,
) -> BTreeSet<String> {
    let only = std::env::var("VD_SCENARIO").unwrap_or_default();
    let chosen: Vec<_> = table
        .iter()
        .filter(|(name, _)| only.split(',').any(|part| name.contains(part)))
        .collect();
    let (begun, many) = (Instant::now(), chosen.len());
    let together = SIDES.map(|_| Arc::new(Barrier::new(many)));
    let turns = Arc::new(Semaphore::new(at_a_time));
    let mut running = Vec::new();
    for (name, scenario) in chosen {
        let namespace = namespace(name);
        let sources = houses.each_ref().map(|house| Source {
            mirror: house.mirror.clone(),
            driver: house.stage.driver.clone(),
            namespace: namespace.clone(),
            noisy: house.side != Side::Full,
        });
        let beats = houses.each_ref().map(|house| house.beat.clone());
        let meeting = Arc::new(Meeting::new(name, sources, beats, Arc::clone(report)));
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let turn = Arc::new(turn);
        for (house, together) in houses.iter().zip(&together) {
            let part = Arc::new(Part {
                stage: house.stage(&namespace),
                side: house.side,
                meeting: Arc::clone(&meeting),
                mirror: house.mirror.clone(),
                beat: house.beat.clone(),
                servers: Arc::clone(&house.servers),
                together: Arc::clone(together),
            });
            let meeting = Arc::clone(&meeting);
            let (task, turn) = (tokio::spawn(scenario(part)), Arc::clone(&turn));
            running.push(tokio::spawn(async move {
                let ended = task.await;
                drop(turn);
                if ended.is_err() {
                    meeting.give_up();
                }
                ended
            }));
        }
    }
    let mut failed = BTreeSet::new();
    for task in running {
        if let Err(error) = task.await.unwrap() {
            let why = error.into_panic();
            let why = why.downcast_ref::<String>().cloned();
            failed.insert(why.unwrap_or_else(|| "an assertion, told above".to_owned()));
        }
    }
    eprintln!("{many} scenarios: {} s", begun.elapsed().as_secs());
    failed
}

/// A namespace's name ends at 63 characters, and the rest tells them apart too.
fn namespace(name: &str) -> String {
    let short: String = name.replace('_', "-").chars().take(50).collect();
    short.trim_end_matches('-').to_owned()
}
