//! The library where it cannot run: on systems that are not Linux the same names with the same signatures, so that a project
//! with tests on machines compiles there, and its other tests run. No cluster is ever made, so what belongs to one is a type
//! without values, and whoever asks for one gets an error that says so.

use crate::error::{Error, Kind, Phase};

/// What only a cluster would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Never {}

/// Why there is no cluster.
pub(crate) fn needs_linux() -> Error {
    let here = std::env::consts::OS;
    let message = format!(
        "vmtest needs Linux, and this program was built for {here}: run it on Linux, which may be a virtual machine or a \
         container with /dev/net/tun; VMTEST_ON_MISSING=skip passes over such tests here"
    );
    Error::new(Kind::Missing, message).in_phase(Phase::Plan)
}
