//! Tells that controllers have looked at all that there was before: something made later has gone through them.

use tokio::sync::{mpsc, oneshot};

use crate::stage::{Stage, made_for};

/// Clones are one.
#[derive(Clone)]
pub struct Beat {
    wishes: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Beat {
    pub fn start(stage: Stage) -> Self {
        let (wishes, mut wished) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        tokio::spawn(async move {
            let mut number = 0_u32;
            while let Some(first) = wished.recv().await {
                let mut waiting = vec![first];
                while let Ok(more) = wished.try_recv() {
                    waiting.push(more);
                }
                number += 1;
                round(Stage {
                    name: format!("beat-{number}"),
                    ..stage.clone()
                })
                .await;
                for one in waiting {
                    // Who has wished may have given up.
                    one.send(()).ok();
                }
            }
        });
        Self { wishes }
    }

    /// Returns once a snapshot that is made from now on is ready, and deleted again, with a class and a claim of its own.
    pub async fn one(&self) {
        let (done, waiting) = oneshot::channel();
        self.wishes.send(done).expect("the beat goes on");
        waiting.await.expect("the beat goes on");
    }
}

async fn round(stage: Stage) {
    let snapshot = stage.begin().await;
    let (content, _) = made_for(&snapshot);
    stage.until_ready().await;
    stage.until_claim("released", <[String]>::is_empty).await;
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.contents(), &content).await;
}
