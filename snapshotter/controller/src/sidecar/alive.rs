//! Whether the driver beside this copy answers.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How often it is asked, and how long it may take to answer.
const EVERY: Duration = Duration::from_secs(5);
/// After which time without an answer it is lost. A driver whose container is started again is back before that: what is given up
/// for it is work that goes on in a moment.
const LOST: Duration = Duration::from_secs(20);

/// Asks the driver again and again whether it is there. Returns once it has not answered for [`LOST`], with what it was last.
pub(crate) async fn lost(ask: impl AsyncFn() -> Result<(), String>) -> String {
    let mut answered = Instant::now();
    loop {
        sleep(EVERY).await;
        let why = match timeout(EVERY, ask()).await {
            Ok(Ok(())) => {
                answered = Instant::now();
                continue;
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => format!("no answer within {} s", EVERY.as_secs()),
        };
        tracing::warn!(error = why, "the driver at --csi-address does not answer");
        let away = answered.elapsed();
        if away >= LOST {
            return format!(
                "the driver has not answered for {} s: {why}",
                away.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance, sleep, timeout};

    use super::{EVERY, LOST, lost};

    /// After which time it is lost, if it is.
    async fn after(ask: impl AsyncFn() -> Result<(), String>) -> Option<(Duration, String)> {
        let begun = Instant::now();
        let why = timeout(Duration::from_secs(3600), lost(ask)).await.ok()?;
        Some((begun.elapsed(), why))
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_answers_is_not_lost_and_neither_is_one_that_starts_again() {
        assert_eq!(after(async || Ok(())).await, None);
        // Away until just before it would be, again and again.
        let begun = Instant::now();
        let starting = async || {
            let away = !begun.elapsed().as_secs().is_multiple_of(LOST.as_secs());
            if away {
                Err("refused".to_owned())
            } else {
                Ok(())
            }
        };
        assert_eq!(after(starting).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_there_is_lost() {
        let (after, why) = after(async || Err("refused".to_owned())).await.unwrap();
        assert_eq!(after, LOST);
        assert!(why.contains("for 20 s: refused"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_lost_too() {
        let (after, why) = after(async || std::future::pending().await).await.unwrap();
        assert_eq!(after, LOST);
        assert!(why.contains("no answer within 5 s"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_held_up_asks_before_he_judges() {
        // As a machine that stands still: nobody was asked meanwhile.
        let held_up = async {
            sleep(EVERY / 2).await;
            advance(LOST * 10).await;
        };
        let (lost, ()) = tokio::join!(after(async || Ok(())), held_up);
        assert_eq!(lost, None);
    }
}
