"""Which addresses a callback may go to: those of the public internet, and none that means another address.

The ranges are those of IANA's registries of special-purpose addresses (RFC 6890), of deprecated forms, and of addresses
by which cloud machines reach the service that manages them.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

SPECIAL_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by customers of a provider
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's own service, from inside every virtual machine
            "169.254.0.0/16",  # link-local, and the metadata of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments, and Oracle's metadata
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # measurements
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
GLOBAL_V6 = IPv6Network("2000::/3")
"""All global unicast addresses. Outside are NAT64 (64:ff9b::/96, 64:ff9b:1::/48), unique local, link-local, site-local,
mapped and compatible addresses, segment routing, multicast and the rest.
"""
SPECIAL_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID, AMT and others
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: another IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # the former 6bone
            "3fff::/20",  # documentation
        ),
    )
)
MAPPED = IPv6Network("::ffff:0:0/96")


def is_public(address: str) -> bool:
    """Whether this numeric address is one of the public internet. An IPv4-mapped address counts as its IPv4 address.

    Other addresses that hold an IPv4 address (NAT64, 6to4, Teredo) are not public: a translator may reach any address.
    """
    found: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(found, IPv6Address):
        if found in MAPPED:
            return is_public(str(IPv4Address(int(found) & 0xFFFFFFFF)))
        return found.scope_id is None and found in GLOBAL_V6 and not any(found in each for each in SPECIAL_V6)
    return not any(found in each for each in SPECIAL_V4)
