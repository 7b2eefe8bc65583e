//! One setting, as the macro hands it to the harness.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{LitStr, Path};

/// Mirrors `vmtest::__private::Setting`. Strings keep the user's spans.
#[derive(Clone)]
pub(crate) enum Setting {
    Image(LitStr),
    /// A function that makes one.
    ImageOf(Path),
    Package(LitStr),
    Prepare(LitStr),
    Login(LitStr),
    Ready(LitStr),
    Firmware(LitStr),
    Cpus(u32),
    MaxCpus(u32),
    /// In bytes.
    Memory(u64),
    /// In bytes.
    MaxMemory(u64),
    /// In bytes.
    Disk(u64),
    /// In bytes a second.
    DiskRate(u64),
    /// In operations a second.
    DiskIops(u32),
    Fixture(Fixture),
    Volume(Volume),
    Network(Network),
    Nested(bool),
    /// In bits a second.
    Rate(u64),
    Ip([u8; 4]),
    Mac([u8; 6]),
    /// In milliseconds.
    Timeout(u64),
    /// The path of a kernel, absolute or below the package.
    Kernel(LitStr),
    KernelArgs(LitStr),
    Backend(LitStr),
    Nodes(u32),
    /// A variant of `vmtest::__private::NetworkPlace`.
    Place(Ident),
    Mtu(u32),
    Egress(bool),
    Budget(Budget),
    /// A variant of `vmtest::__private::TimedPhase`, and milliseconds.
    PhaseBudget(&'static str, u64),
    /// A variant of `vmtest::__private::Capability`.
    Requires(Ident),
    /// A variant of `vmtest::__private::Allow`.
    Allow(Ident),
}

/// Machines that join later, for which room is kept.
#[derive(Clone, Default)]
pub(crate) struct Budget {
    pub(crate) nodes: u32,
    /// Of each, in bytes.
    pub(crate) memory: Option<u64>,
    /// Of each.
    pub(crate) cpus: Option<u32>,
    /// Of each, in bytes.
    pub(crate) disk: Option<u64>,
}

/// A directory of the package that becomes a disk of the node.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) dir: LitStr,
    /// Where the guest mounts it.
    pub(crate) at: Option<LitStr>,
    /// The label of its file system.
    pub(crate) label: Option<LitStr>,
}

/// A disk of the node that is kept by its name.
#[derive(Clone)]
pub(crate) struct Volume {
    pub(crate) name: LitStr,
    /// Where the guest mounts it.
    pub(crate) at: Option<LitStr>,
    /// How large it shall be.
    pub(crate) bytes: Option<u64>,
    pub(crate) read_only: bool,
}

/// A network of the cluster on which a node has an interface.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) name: LitStr,
    /// The node's address there.
    pub(crate) ip: Option<[u8; 4]>,
    /// The node's hardware address there.
    pub(crate) mac: Option<[u8; 6]>,
}

impl Setting {
    /// The expression that makes this setting, below the crate at `krate`.
    pub(crate) fn to_tokens(&self, krate: &Path) -> TokenStream {
        let variant = match self {
            Self::Image(name) => quote!(Image(#name)),
            Self::ImageOf(function) => quote!(ImageOf(|| #krate::__private::Image::from(#function()))),
            Self::Package(name) => quote!(Package(#name)),
            Self::Prepare(program) => quote!(Prepare(#program)),
            Self::Login(account) => quote!(Login(#account)),
            Self::Ready(command) => quote!(Ready(#command)),
            Self::Firmware(name) => quote!(Firmware(#name)),
            Self::Cpus(count) => quote!(Cpus(#count)),
            Self::MaxCpus(count) => quote!(MaxCpus(#count)),
            Self::Memory(bytes) => quote!(Memory(#bytes)),
            Self::MaxMemory(bytes) => quote!(MaxMemory(#bytes)),
            Self::Disk(bytes) => quote!(Disk(#bytes)),
            Self::DiskRate(bytes) => quote!(DiskRate(#bytes)),
            Self::DiskIops(count) => quote!(DiskIops(#count)),
            Self::Fixture(fixture) => {
                let Fixture { dir, at, label } = fixture;
                let (at, label) = (option(at.as_ref()), option(label.as_ref()));
                quote!(Fixture { dir: #dir, at: #at, label: #label })
            }
            Self::Volume(Volume { name, at, bytes, read_only }) => {
                let (at, bytes) = (option(at.as_ref()), option(bytes.as_ref()));
                quote!(Volume { name: #name, at: #at, bytes: #bytes, read_only: #read_only })
            }
            Self::Network(Network { name, ip, mac }) => {
                let (ip, mac) = (option(bytes(ip.as_ref()).as_ref()), option(bytes(mac.as_ref()).as_ref()));
                quote!(Network { name: #name, ip: #ip, mac: #mac })
            }
            Self::Nested(flag) => quote!(Nested(#flag)),
            Self::Rate(bits) => quote!(Rate(#bits)),
            Self::Ip(octets) => quote!(Ip([#(#octets),*])),
            Self::Mac(bytes) => quote!(Mac([#(#bytes),*])),
            Self::Timeout(milliseconds) => quote!(Timeout(#milliseconds)),
            Self::Kernel(path) => quote!(Kernel(#path)),
            Self::KernelArgs(text) => quote!(KernelArgs(#text)),
            Self::Backend(name) => quote!(Backend(#name)),
            Self::Nodes(count) => quote!(Nodes(#count)),
            Self::Place(place) => quote!(Place(#krate::__private::NetworkPlace::#place)),
            Self::Mtu(bytes) => quote!(Mtu(#bytes)),
            Self::Egress(on) => quote!(Egress(#on)),
            Self::Budget(budget) => {
                let Budget { nodes, memory, cpus, disk } = budget;
                let (memory, cpus, disk) = (option(memory.as_ref()), option(cpus.as_ref()), option(disk.as_ref()));
                quote!(Budget { nodes: #nodes, memory: #memory, cpus: #cpus, disk: #disk })
            }
            Self::PhaseBudget(phase, milliseconds) => {
                let phase = Ident::new(phase, Span::call_site());
                quote!(PhaseBudget(#krate::__private::TimedPhase::#phase, #milliseconds))
            }
            Self::Requires(what) => quote!(Requires(#krate::__private::Capability::#what)),
            Self::Allow(what) => quote!(Allow(#krate::__private::Allow::#what)),
        };
        quote!(#krate::__private::Setting::#variant)
    }
}

fn bytes<const N: usize>(address: Option<&[u8; N]>) -> Option<TokenStream> {
    address.map(|bytes| quote!([#(#bytes),*]))
}

fn option(value: Option<&impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}
