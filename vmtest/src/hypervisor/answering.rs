//! A machine whose VMM may stop to answer.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;
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
pub(crate) struct Answering {
    machine: Arc<dyn Machine>,
    within: Duration,
}

impl Answering {
    pub(crate) fn new(machine: Arc<dyn Machine>) -> Self {
        Self { machine, within: ANSWERS_WITHIN }
    }
}

/// The answer to this call, if there is one in time.
async fn answer<T>(within: Duration, what: &str, call: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
    timeout(within, call).await.unwrap_or_else(|_| {
        let seconds = within.as_secs();
        let message = format!(
            "its VMM is there and has not answered `{what}` in {seconds} s: whether the machine is alive is unknown, and `kill` \
             ends it in any case"
        );
        Err(Error::new(Kind::Timeout, message).after(within))
    })
}

impl Machine for Answering {
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(answer(self.within, "is it running", self.machine.running()))
    }

    fn described(&self) -> BoxFuture<'_, Result<Value, Error>> {
        Box::pin(answer(self.within, "describe the machine", self.machine.described()))
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer(self.within, "pause", self.machine.pause()))
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer(self.within, "resume", self.machine.resume()))
    }

    // As long as it takes to write the memory.
    fn save<'a>(&'a self, dir: &'a str) -> BoxFuture<'a, Result<Saved, Error>> {
        self.machine.save(dir)
    }

    fn set_memory(&self, bytes: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer(self.within, "set the memory", self.machine.set_memory(bytes)))
    }

    fn memory(&self) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(answer(self.within, "how much memory", self.machine.memory()))
    }

    fn add_cpus(&self, count: u32) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer(self.within, "add CPUs", self.machine.add_cpus(count)))
    }

    fn add_disk<'a>(
        &'a self,
        place: usize,
        disk: &'a DiskPlan,
        rate: DiskRatePlan,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(answer(self.within, "add a disk", self.machine.add_disk(place, disk, rate)))
    }

    // As long as the guest takes, which whoever asks limits.
    fn remove_disk(&self, place: usize, rate: DiskRatePlan) -> BoxFuture<'_, Result<(), Error>> {
        self.machine.remove_disk(place, rate)
    }

    fn screenshot<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(answer(self.within, "take a screenshot", self.machine.screenshot(file)))
    }

    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer(self.within, "press the power button", self.machine.power_button()))
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(answer(self.within, "quit", self.machine.quit()))
    }

    fn panicked(&self) -> BoxFuture<'_, ()> {
        self.machine.panicked()
    }

    fn ended(&self, how: Ended) -> BoxFuture<'_, bool> {
        self.machine.ended(how)
    }

    fn switched_off(&self) -> bool {
        self.machine.switched_off()
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

        fn described(&self) -> BoxFuture<'_, Result<Value, Error>> {
            Box::pin(pending())
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

    #[tokio::test]
    async fn a_call_that_is_not_answered_ends_and_says_so() {
        let machine = Answering { machine: Arc::new(Hanging), within: Duration::ZERO };
        assert!(machine.running().await.unwrap());
        for call in [machine.pause(), machine.resume(), machine.power_button(), machine.quit()] {
            assert_eq!(call.await.unwrap_err().kind(), Kind::Timeout);
        }
        expect!["its VMM is there and has not answered `pause` in 0 s: whether the machine is alive is unknown, and `kill` ends it in any case"]
            .assert_eq(&machine.pause().await.unwrap_err().to_string());
    }
}
