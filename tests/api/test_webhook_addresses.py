"""Where webhooks may not go: a corpus of URLs, and names that lead to places where nothing may go."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from ipaddress import ip_address

import httpx
import pytest

from apps.api import webhook_addresses
from apps.api.webhook_addresses import Lookups, NotLookedUp, Resolve, checked_address
from apps.billing.alerts.addresses import check_url
from apps.core.addresses import Address, AddressRefused, is_public
from apps.core.errors import InvalidInput

REFUSED = [
    # no place of the public internet, in its usual spelling
    "https://127.0.0.1/",
    "https://127.8.8.8/",
    "https://0.0.0.0/",
    "https://10.0.0.1/hooks",
    "https://10.255.255.255/",
    "https://172.16.0.1/",
    "https://172.31.255.254/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/v2/credentials",
    "https://100.64.0.1/",
    "https://100.100.100.200/latest/meta-data/",
    "https://192.0.0.192/",
    "https://168.63.129.16/machine",
    "https://198.18.0.1/",
    "https://192.0.2.1/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    # the same in other spellings
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.0.0.1./",
    "https://0/",
    "https://1/",
    "https://%31%32%37.0.0.1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://１２７.0.0.1/",
    "https://127。0。0。1/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    # IPv6, and IPv4 inside of it
    "https://[::1]/",
    "https://[::]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fec0::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[100::1]/",
    # names of inner networks
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://foo.localhost/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://printer.local/",
    "https://intranet/",
    "https://db/",
    # other schemes, and what hides in a URL
    "http://hooks.example.com/",
    "HTTP://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "javascript:alert(1)",
    "//hooks.example.com/",
    "hooks.example.com",
    "https:hooks.example.com",
    "https:///path",
    "https://",
    "",
    "https://user:password@hooks.example.com/",
    "https://user@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com@127.0.0.1/",
    "https://127.0.0.1#@hooks.example.com/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com/#part",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:25/",
    "https://hooks.example.com:80/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:-1/",
    "https://hooks.example.com:443:443/",
    "https://hooks.example.com /",
    " https://hooks.example.com/",
    "https://hooks.example.com/\r\nX-Evil: 1",
    "https://hooks.example.com/\t",
    "https://hooks.exämple.com/",
    "https://-hooks.example.com/",
    "https://hooks..example.com/",
    "https://[::1",
    "https://[hooks.example.com]/",
    "https://hooks.example.com/" + "x" * 500,
]
ACCEPTED = [
    "https://hooks.example.com/",
    "https://hooks.example.com",
    "https://HOOKS.example.com/Path?token=1&b=%2F",
    "https://hooks.example.com:443/",
    "https://hooks.example.com:8443/",
    "https://hooks.example.com.:8443/",
    "https://xn--exmple-cua.com/",
    "https://1.1.1.1/",
    "https://8.8.8.8:8443/x",
    "https://[2606:4700:4700::1111]/",
    "https://1password.com/",
    "https://a_b.example.com/",
]


def test_the_corpus_is_large() -> None:
    assert len(set(REFUSED)) >= 60


@pytest.mark.parametrize("text", REFUSED)
def test_these_are_refused_by_their_text(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(text)


@pytest.mark.parametrize("text", ACCEPTED)
def test_these_are_accepted(text: str) -> None:
    assert check_url(text) == text


@pytest.mark.parametrize("text", ["http://127.0.0.1:9000/hooks", "http://localhost:9000/", "https://10.0.0.1:80/"])
def test_in_development_the_operator_may_allow_private_places(text: str) -> None:
    assert check_url(text, allow_private=True)


@pytest.mark.parametrize("text", ["ftp://127.0.0.1/", "http://a@b/", "file:///etc/passwd", "http:///x"])
def test_even_then_not_everything_goes(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(text, allow_private=True)


@pytest.mark.parametrize(
    "address",
    ["9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "169.253.255.255", "172.15.0.1", "172.32.0.1",
     "192.167.1.1", "198.17.0.1", "198.20.0.1", "223.255.255.255", "2600::1", "2a00:1450:4001::1", "2001:4860::8888"],
)  # fmt: skip
def test_neighbours_of_forbidden_networks_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_no_forbidden_address_is_one_that_python_calls_public() -> None:
    """Ours is stricter than the standard library's, never laxer."""
    edges = ["10.0.0.0", "10.255.255.255", "127.255.255.255", "172.31.255.255", "192.0.0.8", "198.19.255.255"]
    edges += ["::1", "::ffff:8.8.8.8", "fe80::1", "fc00::", "2001:db8::", "ff0e::1", "64:ff9b:1::", "100::", "2002::"]
    assert [edge for edge in edges if is_public(ip_address(edge))] == []


def lookup(*addresses: str) -> Resolve:
    async def fixed(host: str, port: int) -> Sequence[Address]:
        return [ip_address(address) for address in addresses]

    return fixed


def find(host: str, *addresses: str) -> Address:
    return asyncio.run(checked_address(httpx.URL(f"https://{host}/"), lookup(*addresses)))


def test_a_public_name_gives_its_first_address() -> None:
    assert str(find("a.example.com", "8.8.4.4", "8.8.8.8")) == "8.8.4.4"


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "10.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        ["::1"],
        ["8.8.8.8", "::ffff:127.0.0.1"],
        ["fe80::1%2"],
        ["169.254.169.254"],
        ["2002:a00:1::"],
    ],
)
def test_one_private_address_of_a_name_is_enough_to_refuse_it(addresses: list[str]) -> None:
    with pytest.raises(AddressRefused):
        find("rebinding.example.com", *addresses)


def test_a_name_without_address_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError, match="no address"):
        find("nothing.example.com")


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "127.1"])
def test_what_the_systems_resolver_makes_of_odd_spellings_is_refused_too(host: str) -> None:
    """The second wall: the text check would have stopped these already."""
    with pytest.raises((AddressRefused, socket.gaierror)):
        asyncio.run(checked_address(httpx.URL(f"https://{host}/"), partial(Lookups().resolve, "org_1")))


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's resolver hangs for names that begin with "slow", and knows all others."""
    end = threading.Event()

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        if host.startswith("slow"):
            end.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(webhook_addresses, "RESOLVE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(webhook_addresses, "PLACE_TIMEOUT_S", 0.2)
    yield
    end.set()


def ask(lookups: Lookups, owner: str, hosts: Sequence[str]) -> list[object]:
    async def go() -> list[object]:
        asked = (lookups.resolve(owner, host, 443) for host in hosts)
        return list(await asyncio.gather(*asked, return_exceptions=True))

    return asyncio.run(go())


@pytest.mark.usefixtures("hanging")
def test_slow_names_of_one_customer_cost_that_customer_places_and_nobody_else() -> None:
    lookups = Lookups(most=4, most_of_one=2)
    started = time.monotonic()
    outcomes = ask(lookups, "org_1", [f"slow{number}.example.com" for number in range(5)])
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotLookedUp"] * 3 + ["TimeoutError"] * 2
    assert [type(one) for one in ask(lookups, "org_1", ["quick.example.com"])] == [NotLookedUp]
    assert ask(lookups, "org_2", ["quick.example.com"] * 6) == [[ip_address("93.184.216.34")]] * 6
    assert time.monotonic() - started < 15, "nobody waits for the threads that hang"


@pytest.mark.usefixtures("hanging")
def test_all_lookups_of_a_process_have_a_bound() -> None:
    lookups = Lookups(most=4, most_of_one=2)
    for owner in ("org_1", "org_2"):
        ask(lookups, owner, ["slow1.example.com", "slow2.example.com"])
    assert [type(one) for one in ask(lookups, "org_3", ["quick.example.com"])] == [NotLookedUp]


def test_a_lookup_that_ended_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise UnicodeError("label too long")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    lookups = Lookups(most=1, most_of_one=1)
    assert [type(one) for one in ask(lookups, "org_1", ["x.example.com"] * 3)] == [OSError] * 3
