//! What a machine of Firecracker is made of, in the words of its API: the part of them that we use.

use serde::Serialize;

/// The body of `/machine-config`.
#[derive(Debug, Serialize)]
pub(super) struct MachineConfig {
    pub(super) vcpu_count: u32,
    pub(super) mem_size_mib: u64,
}

/// The body of `/boot-source`.
#[derive(Debug, Serialize)]
pub(super) struct BootSource {
    /// An ELF file: the VMM loads no other.
    pub(super) kernel_image_path: String,
    pub(super) initrd_path: String,
    pub(super) boot_args: String,
}

/// The body of `/drives/<id>`.
#[derive(Debug, Serialize)]
pub(super) struct Drive {
    pub(super) drive_id: String,
    pub(super) path_on_host: String,
    pub(super) is_root_device: bool,
    pub(super) is_read_only: bool,
    pub(super) cache_type: CacheType,
}

#[derive(Debug, Serialize)]
pub(super) enum CacheType {
    /// What the guest flushes is on the host's disk, as with the other VMMs; by default it is told that it need not.
    Writeback,
}

/// The body of `/network-interfaces/<id>`.
#[derive(Debug, Serialize)]
pub(super) struct NetworkInterface {
    pub(super) iface_id: String,
    /// The tap.
    pub(super) host_dev_name: String,
    pub(super) guest_mac: String,
}

/// The body of `/vsock`.
#[derive(Debug, Serialize)]
pub(super) struct Vsock {
    pub(super) guest_cid: u64,
    pub(super) uds_path: String,
}

/// The body of `/entropy`: the random numbers of the host, as many as the guest wants.
#[derive(Debug, Serialize)]
pub(super) struct Entropy {}

/// Where a machine is told to do something.
pub(super) const ACTIONS: &str = "/actions";

/// The body of [`ACTIONS`].
#[derive(Debug, Serialize)]
pub(super) struct Action {
    pub(super) action_type: ActionType,
}

#[derive(Debug, Serialize)]
pub(super) enum ActionType {
    InstanceStart,
    SendCtrlAltDel,
}

/// The body of `/snapshot/create`.
#[derive(Debug, Serialize)]
pub(super) struct CreateSnapshot {
    pub(super) snapshot_type: SnapshotType,
    pub(super) snapshot_path: String,
    pub(super) mem_file_path: String,
}

#[derive(Debug, Serialize)]
pub(super) enum SnapshotType {
    /// All memory, also what the guest has never used.
    Full,
}

/// The body of `/snapshot/load`.
#[derive(Debug, Serialize)]
pub(super) struct LoadSnapshot {
    pub(super) snapshot_path: String,
    pub(super) mem_backend: MemBackend,
    pub(super) resume_vm: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct MemBackend {
    pub(super) backend_type: MemBackendType,
    pub(super) backend_path: String,
}

#[derive(Debug, Serialize)]
pub(super) enum MemBackendType {
    /// The file is mapped; what the guest writes is its own.
    File,
}
