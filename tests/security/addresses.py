"""Addresses that lead, or try to lead, to where nobody may be led: one corpus for every place that takes an address.

`{port}` is a canary's on this machine. A host of NAMES is one that the tests' own resolver knows."""

from typing import Final

LOOPBACK: Final = [
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "localhost", "LOCALHOST", "localhost.", "foo.localhost", "[::1]",
    "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]",
]  # fmt: skip
"""This machine in its usual spellings: an operator may serve models here."""
PRIVATE: Final = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.1.1", "192.168.0.0", "100.64.0.1",
    "100.127.255.254", "198.18.0.1", "192.0.2.1", "198.51.100.7", "203.0.113.9", "192.88.99.1", "[fc00::1]",
    "[fd12:3456:789a::1]", "db", "valkey", "printer.local", "intranet", "vllm.internal", "box.lan", "x.home",
]  # fmt: skip
"""Private networks, documentation's own, carrier-grade NAT, and names of inner networks."""
NEVER: Final = [
    # metadata of clouds, link-local
    "169.254.169.254", "169.254.170.2", "169.254.0.1", "[fe80::1]", "[fd00:ec2::254]", "[fd00:ec2::23]",
    "[fd20:ce::254]", "[fd00:42::42]", "metadata.google.internal", "METADATA.google.internal",
    "metadata.google.internal.", "metadata.goog", "metadata", "instance-data", "100.100.100.200", "168.63.129.16",
    "192.0.0.192",
    # nobody, everybody, multicast, reserved
    "0.0.0.0", "0.1.2.3", "[::]", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "[ff02::1]", "[ff0e::1]",
    "[100::1]", "[fec0::1]", "[2001:db8::1]", "[3fff::1]",
    # IPv6 with IPv4 inside
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::ffff:8.8.8.8]",
    "[0:0:0:0:0:ffff:7f00:1]", "[::127.0.0.1]", "[::7f00:1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::]", "[2001::1]",
    # zones
    "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]", "[::1%lo]",
    # other spellings of 127.0.0.1 and 169.254.169.254
    "2130706433", "0x7f000001", "0x7F000001", "017700000001", "127.1", "127.0.1", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1",
    "0177.1", "127.0.0.0x1", "127.0.0.01", "00127.0.0.1", "127.0.0.1.", "0", "1", "0x", "2852039166", "0xa9fea9fe",
    "0251.0376.0251.0376", "169.254.43518", "127.0.0.1.1", "127..0.0.1", "4294967297", "0x100000000",
]  # fmt: skip
"""Where nobody's address may lead, and spellings that readers disagree about."""
NAMES: Final = {
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "7f000001.rebind.example": ["127.0.0.1"],
    "mixed.example": ["93.184.216.34", "127.0.0.1"],
    "mixed6.example": ["93.184.216.34", "::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "linklocal.example": ["169.254.169.254"],
    "zone.example": ["fe80::1%1"],
    "zero.example": ["0.0.0.0"],
    "ten.example": ["10.0.0.1"],
    "ula.example": ["fd00:ec2::254"],
    "xn--lcalhost-54a.example": ["127.0.0.1"],
}
"""Names of the public internet, as far as they say so, that lead elsewhere."""
WRITTEN: Final = [
    # other schemes
    "file:///etc/passwd", "file://localhost/etc/passwd", "FILE:///etc/passwd", "gopher://127.0.0.1:{port}/_INFO",
    "ftp://127.0.0.1:{port}/x", "dict://127.0.0.1:{port}/info", "ldap://127.0.0.1:{port}/", "tftp://127.0.0.1:{port}/x",
    "unix:///tmp/crun.sock", "http+unix://%2Ftmp%2Fcrun.sock/", "unix:/tmp/crun.sock:/v1", "jar:http://127.0.0.1:{port}!/",
    "s3://bucket/key", "gs://bucket/object", "netdoc:///etc/passwd", "javascript:alert(1)", "ws://127.0.0.1:{port}/",
    "view-source:http://127.0.0.1:{port}/",
    # users, fragments, backslashes, what another reader takes for the host
    "http://good.example@127.0.0.1:{port}/", "https://good.example:443@127.0.0.1:{port}/",
    "http://user:password@localhost:{port}/", "http://127.0.0.1:{port}#@good.example/",
    "http://good.example#@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@good.example/",
    "http://good.example\\@127.0.0.1:{port}/", "http:\\\\127.0.0.1:{port}\\", "http:/\\127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "http://@127.0.0.1:{port}/",
    "http://good.example%40127.0.0.1:{port}/", "http://127.0.0.1%2f@good.example:{port}/",
    "http://[::1]@good.example:{port}/", "http://[::1", "http://::1:{port}/", "http://[127.0.0.1]:{port}/",
    "http://[good.example]:{port}/", "http://127.0.0.1:{port}:80/", "http://127.0.0.1:-1/", "http://127.0.0.1:99999/",
    # white space and control characters
    " http://127.0.0.1:{port}/", "http://127.0.0.1:{port}/ x", "ht\ntp://127.0.0.1:{port}/", "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1:{port}/\r\nX-Evil: 1", "http://\x00127.0.0.1:{port}/", "\thttp://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\x7f",
    # digits, dots and letters of other scripts, percent signs
    "http://①②⑦.⓪.⓪.①:{port}/", "http://１２７.0.0.1:{port}/", "http://127。0。0。1:{port}/", "http://127．0．0．1:{port}/",
    "http://127｡0｡0｡1:{port}/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/", "http://localhoﬆ:{port}/", "http://loca\u200blhost:{port}/",
    "http://%31%32%37.0.0.1:{port}/", "http://127%2e0%2e0%2e1:{port}/", "http://lócalhost:{port}/",
    # upper case, empty
    "HTTP://127.0.0.1.:{port}/", "hTtP://0x7f.1:{port}/", "http://", "http://:{port}/", "http://.:{port}/",
]  # fmt: skip
"""Whole URLs that are refused as text, whoever writes them."""


def corpus() -> list[str]:
    """All of it as URLs, but for what only a resolver can tell."""
    hosts = [*LOOPBACK, *PRIVATE, *NEVER]
    return [f"http://{host}:{{port}}/v1" for host in hosts] + WRITTEN
