//! Limits of what passes a port of the bridge.

use futures_util::StreamExt;
use nix::libc;
use rtnetlink::{
    Handle, LinkIfb,
    packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::LinkAttribute,
        tc::{TcAttribute, TcHandle, TcMessage, TcOption},
    },
};

use super::bridge::{GROUP, Links, failed};
use crate::{
    error::{Error, Kind},
    plan::{InterfacePlan, NetworkPlan, RatePlan},
};

/// `TCA_TBF_PARMS`, `TCA_TBF_RATE64` and `TCA_TBF_BURST` of `linux/pkt_sched.h`.
const PARMS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`, with which the kernel counts by itself and wants no table.
const ETHERNET: u8 = 1;
/// `ETH_P_ALL`, in the order of the network.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// The handle that the queue of what comes in always has (`TC_H_INGRESS` without its minor part).
const INGRESS: u32 = 0xffff_0000;
/// The only rule of its port.
const PRIORITY: u16 = 1;

impl Links {
    /// Makes the interface through which a machine's own frames are led, with its limit.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the kernel has no `ifb` or no `tbf`.
    pub(crate) async fn add_ifb(&self, network: &NetworkPlan, rate: &RatePlan) -> Result<(), Error> {
        let group = LinkAttribute::Group(GROUP);
        let link = LinkIfb::new(&rate.ifb).mtu(network.mtu).append_extra_attribute(group).up().build();
        let added = self.netlink.link().add(link).execute().await;
        added.map_err(|e| unknown("ifb", libc::EOPNOTSUPP, &rate.ifb, e))?;
        self.limit_what_leaves(&rate.ifb, rate).await
    }

    /// Limits what passes the interface's port in both directions, if that is planned: what leaves it towards the machine by a
    /// queue of its own, what comes from the machine by that of the `ifb`, from which the kernel takes it back to where
    /// it came from.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the kernel lacks a part of it.
    pub(super) async fn limit_port(&self, interface: &InterfacePlan) -> Result<(), Error> {
        let Some(rate) = &interface.rate else { return Ok(()) };
        let port = &interface.tap;
        self.limit_what_leaves(port, rate).await?;
        let (index, ifb) = (signed(self.index(port).await?)?, self.index(&rate.ifb).await?);
        let ingress = self.netlink.qdisc().replace(index).ingress().execute().await;
        ingress.map_err(|e| unknown("sch_ingress", libc::ENOENT, port, e))?;
        let mut filters = self.netlink.traffic_filter(index);
        let filter = filters.add().parent(INGRESS).priority(PRIORITY).protocol(ALL_PROTOCOLS);
        let filter = filter.redirect(ifb).map_err(|e| failed(format!("limit `{port}`"), e))?;
        filter.execute().await.map_err(|e| unknown("cls_u32", libc::ENOENT, port, e))
    }

    async fn limit_what_leaves(&self, link: &str, rate: &RatePlan) -> Result<(), Error> {
        let index = signed(self.index(link).await?)?;
        let set = replace_root(self.netlink.clone(), index, "tbf", tbf(rate)).await;
        set.map_err(|e| unknown("sch_tbf", libc::ENOENT, link, e))
    }
}

/// Makes this the queue of all that leaves an interface, in place of what was there. The options are of a kind that the
/// library of messages does not know.
async fn replace_root(
    mut netlink: Handle,
    index: i32,
    kind: &str,
    options: Vec<TcOption>,
) -> Result<(), rtnetlink::Error> {
    let mut message = TcMessage::with_index(index);
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![TcAttribute::Kind(kind.to_owned()), TcAttribute::Options(options)];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut answers = netlink.request(request)?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(rtnetlink::Error::NetlinkError(error)),
            _ => {}
        }
    }
    Ok(())
}

/// The options of `tbf`, as `linux/pkt_sched.h` lays them out.
fn tbf(rate: &RatePlan) -> Vec<TcOption> {
    let bytes = rate.bits / 8;
    // `struct tc_ratespec`: cell_log, linklayer, overhead, cell_align, mpu, rate. Beyond 32 bits the other field counts.
    let mut spec = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    spec.extend(u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes());
    // `struct tc_tbf_qopt`: rate, peakrate, limit, buffer, mtu; the burst is told in bytes instead of the buffer in ticks.
    let no_peak_rate = [0; 12];
    let mut parms = [&spec[..], &no_peak_rate].concat();
    parms.extend([rate.queue, 0, 0].map(u32::to_ne_bytes).as_flattened());
    let option = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
    vec![
        option(PARMS, parms),
        option(RATE64, bytes.to_ne_bytes().to_vec()),
        option(BURST, rate.burst.to_ne_bytes().to_vec()),
    ]
}

fn signed(index: u32) -> Result<i32, Error> {
    i32::try_from(index).map_err(|e| failed(format!("limit the link {index}"), e))
}

/// That the limit could not be set; where the kernel says so because it lacks a module, which.
fn unknown(module: &str, code: i32, link: &str, why: rtnetlink::Error) -> Error {
    let lacks = matches!(&why, rtnetlink::Error::NetlinkError(e) if e.to_io().raw_os_error() == Some(code));
    if lacks {
        let remedy = format!("run `modprobe {module}` as root, or leave out `rate`");
        let message = format!("cannot limit the rate of `{link}`: this kernel does not have `{module}`: {remedy}");
        return Error::new(Kind::Missing, message).caused_by(why);
    }
    failed(format!("limit the rate of `{link}`"), why)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use rtnetlink::packet_core::ErrorMessage;

    use super::*;

    #[test]
    fn a_kernel_without_the_module_is_told_which() {
        let refused = |code: i32| {
            let mut error = ErrorMessage::default();
            error.code = NonZeroI32::new(-code);
            unknown("sch_tbf", libc::ENOENT, "tap0", rtnetlink::Error::NetlinkError(error))
        };
        let error = refused(libc::ENOENT);
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.to_string().contains("run `modprobe sch_tbf` as root, or leave out `rate`"), "{error}");
        assert_eq!(refused(libc::EPERM).kind(), Kind::Host);
    }
}
