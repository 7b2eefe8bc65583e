//! The clock of a guest, as it stands to that of the run.

use std::time::Duration;

use super::member::Member;
use crate::{error::Error, evidence::Event};

/// What is asked: the seconds since the guest's boot, which its kernel's log and its journal use too.
const ASK: &str = "cat /proc/uptime";

/// Asks a guest for its clock and notes it in the timeline. Whether the guest has answered.
///
/// # Errors
/// When there is no connection.
pub(super) async fn read(member: &Member) -> Result<bool, Error> {
    let asked = member.recorder.now();
    let exec = member.ssh.exec(ASK.as_bytes().to_vec()).await?;
    let status = exec.ended().await?;
    let answered = member.recorder.now();
    let output = exec.output(status);
    let Some(guest) = parse(&output.stdout()) else { return Ok(false) };
    let half = (answered - asked) / 2;
    member.recorder.emit(&Event::GuestClock {
        node: member.plan.name.clone(),
        guest,
        offset: (asked + half).as_secs_f64() - guest.as_secs_f64(),
        within: half.as_secs_f64(),
    });
    Ok(true)
}

fn parse(printed: &str) -> Option<Duration> {
    let seconds: f64 = printed.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_clock_is_not_taken_for_one() {
        assert_eq!(parse("12.34 20.50\n"), Some(Duration::from_millis(12_340)));
        for wrong in ["", "cat: /proc/uptime: No such file", "-1 2", "NaN"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
