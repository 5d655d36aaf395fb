//! Which addresses a request may go to.
//!
//! Called by: the server's client, for each address that a name has. Pure.
//! Invariants: an address that stands for another (a v4 address inside a v6 one) is judged as that other;
//! what no rule names is public or refused. Refuses, whatever a grant says, what is no single machine
//! elsewhere: unspecified, multicast, broadcast and reserved addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What kind of address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Public,
    Loopback,
    /// Of networks at home: RFC 1918, unique local, site-local.
    Private,
    /// Behind a carrier's NAT: 100.64.0.0/10.
    Shared,
    LinkLocal,
    /// Where clouds tell a machine its credentials.
    Metadata,
    /// For documentation, benchmarks, protocols and tunnels.
    Special,
    Unspecified,
    Multicast,
    Broadcast,
    Reserved,
}

impl Class {
    /// `private: true` of a grant.
    fn is_private(self) -> bool {
        matches!(self, Class::Loopback | Class::Private | Class::Shared)
    }

    /// Whatever networks a grant names.
    fn is_never(self) -> bool {
        matches!(
            self,
            Class::Unspecified | Class::Multicast | Class::Broadcast | Class::Reserved
        )
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Public => "public",
            Class::Loopback => "loopback",
            Class::Private => "private",
            Class::Shared => "carrier-grade NAT",
            Class::LinkLocal => "link-local",
            Class::Metadata => "a cloud's metadata service",
            Class::Special => "of special use",
            Class::Unspecified => "unspecified",
            Class::Multicast => "multicast",
            Class::Broadcast => "broadcast",
            Class::Reserved => "reserved",
        })
    }
}

/// Metadata services that the classes below would not tell from their neighbours: AWS and most others,
/// Alibaba, Oracle, Azure's host.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// The same of Google and Oracle; those of AWS (instances, pods, time) are in `fd00:ec2::/32`.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// The address that packets for this one reach in the end.
pub fn effective(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match embedded(v6) {
        Some(v4) => IpAddr::V4(v4),
        None => address,
    }
}

/// The v4 address inside: mapped, 6to4, NAT64.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] => v4(g, h),
        // as translated by SIIT
        [0, 0, 0, 0, 0xffff, 0] => v4(g, h),
        [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0x2002, ..] => v4(b, c),
        _ => None,
    }
}

pub fn class(address: IpAddr) -> Class {
    match effective(address) {
        IpAddr::V4(v4) => class_v4(v4),
        IpAddr::V6(v6) => class_v6(v6),
    }
}

fn class_v4(v4: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&v4) {
        return Class::Metadata;
    }
    match v4.octets() {
        // 0.0.0.0 reaches this machine where the system is Linux
        [0, ..] => Class::Unspecified,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::Shared,
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        [192, 0, 0, _] | [192, 0, 2, _] | [192, 88, 99, _] | [192, 31, 196, _] => Class::Special,
        [192, 52, 193, _] | [192, 175, 48, _] | [198, 18..=19, ..] => Class::Special,
        [198, 51, 100, _] | [203, 0, 113, _] => Class::Special,
        [224..=239, ..] => Class::Multicast,
        [255, 255, 255, 255] => Class::Broadcast,
        [240..=255, ..] => Class::Reserved,
        _ => Class::Public,
    }
}

fn class_v6(v6: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&v6) {
        return Class::Metadata;
    }
    match v6.segments() {
        [0xfd00, 0xec2, ..] => Class::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        // Teredo and its neighbours, documentation
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Special,
        // NAT64 of a network of one's own hides where it leads
        [0x64, 0xff9b, 1, ..] => Class::Special,
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Reserved,
    }
}

/// Addresses that begin alike, `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    pub fn one(address: IpAddr) -> Network {
        let base = effective(address);
        let bits = match base {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Network { base, bits }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let rest = width - u32::from(self.bits);
            rest >= width || a >> rest == b >> rest
        };
        match (self.base, effective(address)) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => self.bits == 0 || same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("`{text}` is not a network such as 10.0.0.0/8 or fd00::/8");
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let one = Network::one(base);
        let Some(bits) = bits else {
            return Ok(one);
        };
        let bits: u8 = bits.parse().map_err(|_| wrong())?;
        let whole = if base.is_ipv4() { 32 } else { 128 };
        if bits > whole || base != one.base {
            return Err(wrong());
        }
        let network = Network { base, bits };
        let first = match base {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(
                cut(v4.to_bits().into(), bits, 32) as u32
            )),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(cut(v6.to_bits(), bits, 128))),
        };
        match first == base {
            true => Ok(network),
            false => Err(format!(
                "the network {text} begins at {first}: write {first}/{bits}"
            )),
        }
    }
}

/// The leading bits.
fn cut(address: u128, bits: u8, width: u32) -> u128 {
    let rest = width - u32::from(bits);
    match rest {
        128 => 0,
        rest => address >> rest << rest,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// What a grant allows beyond public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reach {
    /// Loopback, private networks and carrier-grade NAT.
    pub private: bool,
    pub networks: Vec<Network>,
}

impl Reach {
    /// Whether a request may go there; `bound` is what the server's operator lets grants name.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(&self, address: IpAddr, bound: &[Network]) -> Result<(), String> {
        let class = class(address);
        if class == Class::Public {
            return Ok(());
        }
        let place = format!("{address} is {class}");
        if class.is_never() {
            return Err(format!("{place}: no request goes there"));
        }
        let named = self
            .networks
            .iter()
            .any(|network| network.contains(address));
        let private = self.private && class.is_private();
        if !named && !private {
            return Err(match class.is_private() {
                true => format!("{place}: the grant says neither `private: true` nor its network"),
                false => format!("{place}: the grant does not name its network"),
            });
        }
        match bound.iter().any(|network| network.contains(address)) {
            true => Ok(()),
            false => Err(format!(
                "{place}: the server's modules.http_networks does not hold it"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(text: &str) -> Class {
        class(text.parse().expect(text))
    }

    #[test]
    fn addresses_are_of_their_class() {
        for (class, addresses) in [
            (
                Class::Public,
                "1.1.1.1 8.8.8.8 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 192.167.1.1 \
              198.17.0.1 2606:4700::1111 2a00:1450:4001::1",
            ),
            (
                Class::Public,
                "::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:0808:0808::1",
            ),
            (
                Class::Loopback,
                "127.0.0.1 127.255.0.9 ::1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1 \
              2002:7f00:1:: ::ffff:0:127.0.0.1",
            ),
            (
                Class::Private,
                "10.1.2.3 172.16.0.1 172.31.255.255 192.168.0.1 fd12::1 fc00::1 fec0::1 \
              ::ffff:10.0.0.1 64:ff9b::192.168.0.1 2002:a00:1::",
            ),
            (
                Class::Shared,
                "100.64.0.1 100.127.255.255 ::ffff:100.64.0.1",
            ),
            (
                Class::LinkLocal,
                "169.254.0.1 fe80::1 febf::1 ::ffff:169.254.1.1",
            ),
            (
                Class::Metadata,
                "169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe fd00:ec2::254 \
              fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe \
              100.100.100.200 192.0.0.192 168.63.129.16",
            ),
            (
                Class::Special,
                "192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 192.88.99.1 2001:db8::1 \
              2001::1 2001:10::1 3fff::1 64:ff9b:1::1",
            ),
            (Class::Unspecified, "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0"),
            (
                Class::Multicast,
                "224.0.0.1 239.255.255.255 ff02::1 ::ffff:224.0.0.1",
            ),
            (Class::Broadcast, "255.255.255.255"),
            // v4-compatible ones too, which were given up
            (
                Class::Reserved,
                "240.0.0.1 255.255.255.254 ::2 ::127.0.0.1 ::8.8.8.8 100::1 4000::1",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(class_of(address), class, "{address}");
            }
        }
    }

    #[test]
    fn a_grant_reaches_what_it_says_within_the_operators_bound() {
        let all: Vec<Network> = ["0.0.0.0/0", "::/0"].map(|n| n.parse().expect(n)).into();
        let reach = |private, networks: &[&str]| Reach {
            private,
            networks: networks.iter().map(|n| n.parse().expect(n)).collect(),
        };
        let can = |reach: &Reach, bound: &[Network], address: &str| {
            reach.allows(address.parse().expect(address), bound).is_ok()
        };
        let none = reach(false, &[]);
        assert!(can(&none, &[], "8.8.8.8"));
        for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "0.0.0.0"] {
            assert!(!can(&none, &all, address), "{address}");
        }
        let private = reach(true, &[]);
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(can(&private, &all, address), "{address}");
            assert!(
                !can(&private, &[], address),
                "{address}: not of the operator"
            );
        }
        for address in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "224.0.0.1",
        ] {
            assert!(!can(&private, &all, address), "{address}");
        }
        let named = reach(false, &["10.1.0.0/16", "169.254.169.254", "0.0.0.0/8"]);
        assert!(can(&named, &all, "10.1.255.1"));
        assert!(can(&named, &all, "64:ff9b::10.1.0.1"));
        assert!(can(&named, &all, "169.254.169.254"));
        for address in ["10.2.0.1", "127.0.0.1", "0.0.0.0", "169.254.169.253"] {
            assert!(!can(&named, &all, address), "{address}");
        }
        let bound = ["10.1.2.0/24".parse().expect("a network")];
        assert!(can(&named, &bound, "10.1.2.3") && !can(&named, &bound, "10.1.3.3"));
    }

    #[test]
    fn networks_are_read_and_refused() {
        for text in ["10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0", "1.2.3.4/32"] {
            assert_eq!(
                text.parse::<Network>().map(|n| n.to_string()).as_deref(),
                Ok(text)
            );
        }
        assert_eq!(
            "::1".parse::<Network>().map(|n| n.to_string()).as_deref(),
            Ok("::1/128")
        );
        for (text, why) in [
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("10.0.0.0/33", "is not a network"),
            ("private", "is not a network"),
            ("10.0.0.0/", "is not a network"),
            ("::ffff:10.0.0.0/104", "is not a network"),
        ] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
