//! Which call is cut and how, and what was called until then.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

/// On which side of its work a call is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It never reaches the other side.
    Before,
    /// The other side has done it, and the answer never comes.
    After,
}

/// One cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The call: what is asked of which kind of object, and its number if there was such a one before.
    pub call: String,
    pub when: When,
    /// Whether the program is killed at that moment too.
    pub kill: bool,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when {
            When::Before => "before",
            When::After => "after",
        };
        let with = if self.kill { " and killed" } else { "" };
        write!(f, "cut {when} {}{with}", self.call)
    }
}

#[derive(Debug, Default)]
struct State {
    counts: HashMap<String, u32>,
    calls: Vec<String>,
    cut: Option<Cut>,
    /// The writes that were refused once.
    late: HashMap<String, bool>,
}

/// What the proxies of one run go by.
#[derive(Debug)]
pub struct Cuts {
    state: Mutex<State>,
    /// The process that works.
    victim: watch::Sender<Option<u32>>,
    /// Whether the cut was made.
    made: watch::Sender<bool>,
    /// Whether nothing gets through to the API server.
    closed: watch::Sender<bool>,
    /// Whether each write is refused the first time, as if somebody else had been faster.
    contested: bool,
}

impl Cuts {
    pub fn new(cut: Option<Cut>) -> Self {
        let state = State {
            cut,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            victim: watch::channel(None).0,
            made: watch::channel(false).0,
            closed: watch::channel(false).0,
            contested: false,
        }
    }

    /// No cut, but somebody else who is always faster once.
    pub fn contested() -> Self {
        Self {
            contested: true,
            ..Self::new(None)
        }
    }

    /// Whether somebody else was faster with this write: every other time.
    pub fn is_late(&self, write: String) -> bool {
        if !self.contested {
            return false;
        }
        let mut state = self.state.lock().unwrap();
        let late = state.late.entry(write).or_default();
        *late = !*late;
        *late
    }

    /// All watches end, as after their time, and whatever is asked of the API server waits.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// What waits goes on.
    pub fn open(&self) {
        self.closed.send_replace(false);
    }

    /// Returns once it is so.
    pub async fn until(&self, closed: bool) {
        let mut now = self.closed.subscribe();
        now.wait_for(|now| *now == closed).await.unwrap();
    }

    /// A call has come in: how it is to be cut.
    pub fn arrived(&self, what: String) -> Option<When> {
        let mut state = self.state.lock().unwrap();
        let count = state.counts.entry(what.clone()).or_default();
        *count += 1;
        let call = match *count {
            1 => what,
            more => format!("{what} {more}"),
        };
        if !*self.made.borrow() {
            state.calls.push(call.clone());
        }
        let cut = state.cut.as_ref()?;
        (cut.call == call).then_some(cut.when)
    }

    /// The call is cut now.
    pub async fn make(&self) {
        if self.kills() {
            // A process calls before its start is noticed.
            let mut victims = self.victim.subscribe();
            let victim = victims.wait_for(Option::is_some).await.unwrap().unwrap();
            let pid = Pid::from_raw(i32::try_from(victim).unwrap());
            kill(pid, Signal::SIGKILL).unwrap();
        }
        self.made.send_replace(true);
    }

    /// A process works.
    pub fn victim(&self, id: u32) {
        self.victim.send_replace(Some(id));
    }

    /// Returns once the process was killed, and never if it is not to be.
    pub async fn killed(&self) {
        if !self.kills() {
            std::future::pending::<()>().await;
        }
        let mut made = self.made.subscribe();
        made.wait_for(|made| *made).await.unwrap();
    }

    /// Whether the cut was made.
    pub fn was_made(&self) -> bool {
        *self.made.borrow()
    }

    /// The calls up to the cut.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    fn kills(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.cut.as_ref().is_some_and(|cut| cut.kill)
    }
}
