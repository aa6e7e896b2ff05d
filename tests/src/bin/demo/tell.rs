//! What the person at the terminal sees: chapters, one line per step, and progress where a step takes long.
//!
//! Progress lines are drawn only on a terminal and leave nothing behind, so that the output in a
//! file or a pipe is the same story without them.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// Columns of the labels at the left.
const LABEL_COLUMNS: usize = 17;
/// A step that is done sooner shows no progress.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often progress is drawn again.
const PERIOD: Duration = Duration::from_millis(200);

/// Starts a chapter.
pub(crate) fn chapter(title: impl Display) {
    print(format_args!("\n{title}\n"));
}

/// One step and its outcome.
pub(crate) fn fact(label: &str, text: impl Display) {
    print(format_args!("  {label:<LABEL_COLUMNS$}{text}\n"));
}

/// A further line of the step above.
pub(crate) fn more(text: impl Display) {
    fact("", text);
}

/// A line that a guest printed on its console.
pub(crate) fn guest(line: &str) {
    let shown: String = line.chars().take(74).collect();
    print(format_args!("  |  {shown}\n"));
}

/// A line outside of the story.
pub(crate) fn plain(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// A reader that went away must not stop the demo half-way: it still has to clean up.
fn print(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    drop(out.write_fmt(text).and_then(|()| out.flush()));
}

/// Shows on a terminal that `label` is going on, and for how long, until the result is dropped.
#[must_use]
pub(crate) fn doing(label: &'static str, what: impl Into<String>) -> Doing {
    let drawn = Arc::new(Mutex::new(Line::Waiting));
    let task = std::io::stdout().is_terminal().then(|| {
        let (line, what) = (Arc::clone(&drawn), what.into());
        tokio::spawn(draw(line, label, what))
    });
    Doing { drawn, task }
}

/// The state of the progress line.
enum Line {
    Waiting,
    Drawn,
    Over,
}

/// See [`doing`].
pub(crate) struct Doing {
    drawn: Arc<Mutex<Line>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Doing {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        task.abort();
        let mut line = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*line, Line::Drawn) {
            print(format_args!("\r\x1b[K"));
        }
        *line = Line::Over;
    }
}

async fn draw(line: Arc<Mutex<Line>>, label: &'static str, what: String) {
    let started = Instant::now();
    tokio::time::sleep(PATIENCE).await;
    loop {
        {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*line, Line::Over) {
                return;
            }
            *line = Line::Drawn;
            let seconds = started.elapsed().as_secs();
            print(format_args!(
                "\r\x1b[K  {label:<LABEL_COLUMNS$}{what} ... {seconds} s"
            ));
        }
        tokio::time::sleep(PERIOD).await;
    }
}
