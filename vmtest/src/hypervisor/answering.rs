//! A machine whose VMM may stop to answer.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{Machine, Saved};
use crate::{
    error::{Error, Kind},
    host::Ended,
    plan::{DiskPlan, DiskRatePlan},
};

/// A VMM answers in milliseconds, and was seen to take up to a second on a host with ten times as much to do as it can. One that
/// has not answered in this time has stopped doing so.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// The same machine, of which every call ends: with an error, when the VMM does not answer though it is there.
#[derive(Debug)]
pub(crate) struct Answering(pub(crate) Arc<dyn Machine>);

/// The answer to this call, if there is one in time.
async fn answer<T>(what: &str, call: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
    timeout(ANSWERS_WITHIN, call).await.unwrap_or_else(|_| {
        let seconds = ANSWERS_WITHIN.as_secs();
        let message = format!(
            "its VMM is there and has not answered `{what}` in {seconds} s: whether the machine is alive is unknown, and `kill` \
             ends it in any case"
        );
        Err(Error::new(Kind::Timeout, message).after(ANSWERS_WITHIN))
    })
}

impl Machine for Answering {
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(answer("is it running", self.0.running()))
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer("pause", self.0.pause()))
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer("resume", self.0.resume()))
    }

    // As long as it takes to write the memory.
    fn save<'a>(&'a self, dir: &'a str) -> BoxFuture<'a, Result<Saved, Error>> {
        self.0.save(dir)
    }

    fn set_memory(&self, bytes: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer("set the memory", self.0.set_memory(bytes)))
    }

    fn memory(&self) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(answer("how much memory", self.0.memory()))
    }

    fn add_cpus(&self, count: u32) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer("add CPUs", self.0.add_cpus(count)))
    }

    fn add_disk<'a>(
        &'a self,
        place: usize,
        disk: &'a DiskPlan,
        rate: DiskRatePlan,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(answer("add a disk", self.0.add_disk(place, disk, rate)))
    }

    // As long as the guest takes, which whoever asks limits.
    fn remove_disk(&self, place: usize, rate: DiskRatePlan) -> BoxFuture<'_, Result<(), Error>> {
        self.0.remove_disk(place, rate)
    }

    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer("press the power button", self.0.power_button()))
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer("quit", self.0.quit()))
    }

    fn ended(&self, how: Ended) -> BoxFuture<'_, bool> {
        self.0.ended(how)
    }

    fn switched_off(&self) -> bool {
        self.0.switched_off()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use expect_test::expect;

    use super::*;

    /// Answers nothing but whether it is running.
    #[derive(Debug)]
    struct Hanging;

    impl Machine for Hanging {
        fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
            Box::pin(async { Ok(true) })
        }

        fn pause(&self) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(pending())
        }

        fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(pending())
        }

        fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(pending())
        }

        fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(pending())
        }

        fn ended(&self, _: Ended) -> BoxFuture<'_, bool> {
            Box::pin(async { true })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_answered_ends_and_says_so() {
        let machine = Answering(Arc::new(Hanging));
        assert!(machine.running().await.unwrap());
        for call in [machine.pause(), machine.resume(), machine.power_button(), machine.quit()] {
            assert_eq!(call.await.unwrap_err().kind(), Kind::Timeout);
        }
        expect!["its VMM is there and has not answered `pause` in 10 s: whether the machine is alive is unknown, and `kill` ends it in any case"]
            .assert_eq(&machine.pause().await.unwrap_err().to_string());
    }
}
