//! What the driver was given with its calls.

use std::collections::{BTreeMap, HashMap};

use tonic::Code;

use super::{Answer, Driver, Given};

impl Driver {
    /// Parameters and secrets of the last CreateSnapshot of each name.
    pub fn given(&self) -> BTreeMap<String, Given> {
        self.state.lock().unwrap().given.clone()
    }

    /// Whether one call after the other comes to an end for this volume, and another one follows.
    pub fn is_asked_again(&self, volume: &str) -> bool {
        let open = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::Aborted,
        ];
        let state = self.state.lock().unwrap();
        let answer = state.scripts.get(volume).and_then(|script| script.front());
        match answer {
            Some(Answer::Pending) => true,
            Some(Answer::No(code) | Answer::MadeBut(code)) => !open.contains(code),
            _ => false,
        }
    }

    pub fn parameters_of(&self, volume: &str) -> HashMap<String, String> {
        self.state
            .lock()
            .unwrap()
            .parameters
            .get(volume)
            .cloned()
            .unwrap_or_default()
    }

    pub fn secrets_of(&self, volume: &str) -> HashMap<String, String> {
        self.state
            .lock()
            .unwrap()
            .secrets
            .get(volume)
            .cloned()
            .unwrap_or_default()
    }
}
