//! Keeping the cluster of a test whose body has ended, before anything is removed.

use std::sync::{Arc, mpsc};

use super::{
    end::End,
    session::{Message, ended_by},
};
use crate::cluster::{Run, Stage, hold};

/// Keeps the cluster if the settings or somebody at its control socket want it, until it is let go. Blocks the calling
/// thread.
///
/// # Errors
/// After a signal there is no end; this is the verdict then.
pub(super) fn after_body(
    end: End,
    run: &Arc<Run>,
    inbox: &mpsc::Receiver<Message>,
    tell: mpsc::Sender<Message>,
) -> Result<End, String> {
    // Whoever has ended the run does not want to see it.
    if run.hold.has_ended() || !run.hold.is_wanted(!matches!(end, End::Passed)) {
        return Ok(end);
    }
    let (kept, why) = (run.clone(), end.told());
    run.spawn(async move {
        hold(&kept, Stage::WithoutBody, &why).await;
        // The caller has gone with a signal.
        drop(tell.send(Message::LetGo));
    });
    loop {
        match inbox.recv() {
            Ok(Message::LetGo) | Err(mpsc::RecvError) => return Ok(end),
            Ok(Message::Cancelled(signal)) => {
                return Err(format!("{}\n  its cluster was held; it {}", ended_by(run, signal), end.told()));
            }
            // Of a body that has ended meanwhile.
            Ok(Message::Late | Message::Down | Message::Started(..) | Message::Ended(_)) => {}
        }
    }
}
