//! The kernel's neighbour table: which hardware address answers for an address on a wire of ours.

use bennu_rules::MacAddress;
use std::net::Ipv4Addr;

/// The hardware address the kernel last saw for `address`; `None` off-link or not seen.
pub fn mac_of(address: Ipv4Addr) -> Option<MacAddress> {
    find(&std::fs::read_to_string("/proc/net/arp").ok()?, address)
}

fn find(table: &str, address: Ipv4Addr) -> Option<MacAddress> {
    let wanted = address.to_string();
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        (columns.next()? == wanted).then(|| columns.nth(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.77.0.50       0x1         0x2         52:54:00:00:00:01     *        br0\n\
                     10.77.0.51       0x1         0x0         00:00:00:00:00:00     *        br0\n";
        assert_eq!(find(table, "10.77.0.50".parse().unwrap()), "52:54:00:00:00:01".parse().ok());
        assert_eq!(find(table, "10.77.0.51".parse().unwrap()), None);
        assert_eq!(find(table, "10.77.0.5".parse().unwrap()), None);
    }
}
