//! Whether KVM on this host can run a guest.

use std::{fmt, fs, io, path::Path, sync::mpsc, thread, time::Duration};

use kvm_ioctls::{Cap, Kvm, VcpuExit};

use crate::sys::GuestPage;

/// A guest of seven bytes runs in under a millisecond. On a machine that emulates KVM, and has more to do than it can, it was seen
/// to take longer than half a second; a KVM that has not run it after this never will.
const PROBE_WITHIN: Duration = Duration::from_secs(3);
/// `mov dx, 0x3f8; mov al, 42; out dx, al; hlt`, in real mode.
const CODE: [u8; 7] = [0xba, 0xf8, 0x03, 0xb0, ANSWER, 0xee, 0xf4];
const ANSWER: u8 = 42;

/// What the probe found, each with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvmProbe {
    /// Guest code ran.
    Works,
    /// There is no device.
    Absent,
    /// The device may not be opened.
    Denied,
    /// The device opens and yet runs no guest; the text says why.
    Broken(String),
}

impl KvmProbe {
    pub(crate) fn works(&self) -> bool {
        *self == Self::Works
    }
}

impl fmt::Display for KvmProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("KVM works"),
            Self::Absent => f.write_str("no /dev/kvm: enable virtualization in the firmware, or nested virtualization"),
            Self::Denied => f.write_str("/dev/kvm may not be opened: `sudo usermod -aG kvm $USER`, then log in again"),
            Self::Broken(why) => write!(f, "/dev/kvm runs no guests: {why}"),
        }
    }
}

/// Runs a few bytes of guest code under a deadline. That the device opens proves nothing, and neither does a virtual
/// machine that can be made: software-only KVM (`kvm_pvm`) does both, runs these bytes too, and hangs stock kernels,
/// so that one is told by its module on a processor without hardware support.
pub(crate) fn probe_kvm(device: &Path) -> KvmProbe {
    match fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return KvmProbe::Absent,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return KvmProbe::Denied,
        Err(e) => return KvmProbe::Broken(e.to_string()),
    }
    if let Some(why) = software_only() {
        return KvmProbe::Broken(why);
    }
    let (tell, answer) = mpsc::channel();
    let path = device.to_owned();
    // A thread that the guest holds for ever is left behind; it ends with the process.
    let spawned = thread::Builder::new().name("vmtest-kvm-probe".into()).spawn(move || drop(tell.send(run(&path))));
    match spawned.map(|_| answer.recv_timeout(PROBE_WITHIN)) {
        Ok(Ok(Ok(()))) => KvmProbe::Works,
        Ok(Ok(Err(why))) => KvmProbe::Broken(why),
        Ok(Err(_)) => KvmProbe::Broken(format!("a guest of {} bytes did not end in {PROBE_WITHIN:?}", CODE.len())),
        Err(e) => KvmProbe::Broken(e.to_string()),
    }
}

/// Why KVM on this host does not let its guests have guests, if it does not.
pub(crate) fn why_not_nested() -> Option<String> {
    let told = |module: &str| fs::read_to_string(format!("/sys/module/{module}/parameters/nested")).unwrap_or_default();
    let nested = ["kvm_intel", "kvm_amd"].iter().any(|module| ["1", "Y"].contains(&told(module).trim()));
    (!nested).then(|| "KVM's module was loaded without `nested=1`".to_owned())
}

fn software_only() -> Option<String> {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    let software = Path::new("/sys/module/kvm_pvm").exists();
    (software && !hardware).then(|| "it is KVM in software (kvm_pvm), under which stock kernels hang".to_owned())
}

fn run(device: &Path) -> Result<(), String> {
    let path = std::ffi::CString::new(device.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
    let failed = |what: &'static str| move |e: kvm_ioctls::Error| format!("{what}: {e}");
    let kvm = Kvm::new_with_path(&path).map_err(failed("cannot open it"))?;
    if !kvm.check_extension(Cap::UserMemory) {
        return Err("it cannot map memory".to_owned());
    }
    let vm = kvm.create_vm().map_err(failed("cannot make a virtual machine"))?;
    let _page = GuestPage::with_code(&vm, &CODE).map_err(|e| format!("cannot give it memory: {e}"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed("cannot make a virtual CPU"))?;
    let mut sregs = vcpu.get_sregs().map_err(failed("cannot read registers"))?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).map_err(failed("cannot set registers"))?;
    let regs = kvm_bindings::kvm_regs { rip: 0, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).map_err(failed("cannot set registers"))?;
    match vcpu.run() {
        Ok(VcpuExit::IoOut(_, [ANSWER])) => Ok(()),
        Ok(other) => Err(format!("the guest ended with {other:?}")),
        Err(e) => Err(format!("the guest did not run: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    #[test]
    fn a_device_that_may_not_be_opened_is_not_taken_for_a_missing_one() {
        let device = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(device.path(), PermissionsExt::from_mode(0o000)).unwrap();
        // Root may open it all the same, unless it gives that up; a thread can for itself.
        let found = thread::scope(|scope| {
            let probe = scope.spawn(|| {
                let mut rights = capabilities(None).unwrap();
                rights.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
                set_capabilities(None, rights).unwrap();
                probe_kvm(device.path())
            });
            probe.join().unwrap()
        });
        assert_eq!(found, KvmProbe::Denied);
        assert!(found.to_string().contains("usermod -aG kvm"), "{found}");
        assert!(KvmProbe::Absent.to_string().starts_with("no /dev/kvm"));
    }

    #[test]
    fn a_missing_device_and_one_that_is_no_kvm_are_told_apart() {
        assert_eq!(probe_kvm(Path::new("/nonexistent/kvm")), KvmProbe::Absent);
        assert!(run(Path::new("/dev/null")).is_err());
    }
}
