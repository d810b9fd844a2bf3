//! What the daemon asks the system about itself.

use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// The machine's memory in bytes, as the kernel or the control group limits it; none where neither tells.
pub fn memory_bytes() -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    });
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    total.into_iter().chain(limit).min()
}

/// The machine's own addresses, and the networks that it is attached to.
///
/// # Errors
/// When the system does not tell.
pub fn local_networks() -> std::io::Result<(Vec<IpAddr>, Vec<IpNet>)> {
    let (mut own, mut on_link) = (Vec::new(), Vec::new());
    for interface in getifaddrs()? {
        let Some(ip) = interface.address.as_ref().and_then(ip_of) else { continue };
        own.push(ip);
        if let Some(net) = interface.netmask.as_ref().and_then(ip_of).and_then(|mask| IpNet::with_netmask(ip, mask).ok()) {
            on_link.push(net.trunc());
        }
    }
    Ok((own, on_link))
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
