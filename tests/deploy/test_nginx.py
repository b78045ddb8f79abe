"""deploy/nginx/crun.conf: accepted by nginx, and with limits that fit those of the gateway."""

import re
import subprocess
from pathlib import Path

import pytest

from apps.gateway.server.asgi import MAX_BODY_BYTES
from crun import settings
from crun.serve import KEEP_ALIVE_S
from tests.deploy.compose import NGINX_CONF, services
from tests.deploy.stack import runnable_conf
from tests.programs import NGINX, missing

TEXT = re.sub(r"#.*", "", NGINX_CONF.read_text(encoding="utf-8"))


def seconds(directive: str) -> list[int]:
    return [int(value) for value in re.findall(rf"\b{directive} (\d+)s;", TEXT)]


@pytest.mark.skipif(not NGINX, reason=missing("nginx"))
def test_nginx_accepts_it(tmp_path: Path) -> None:
    conf = tmp_path / "nginx.conf"
    conf.write_text(runnable_conf(tmp_path, port=18080, gateway_port=18081, web_port=18082))
    checked = subprocess.run(
        [NGINX, "-t", "-q", "-c", str(conf)], capture_output=True, text=True, check=False, timeout=20
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_its_upstreams_are_services_on_the_ports_they_listen_on() -> None:
    for host, port in re.findall(r"server (\w+):(\d+) resolve;", TEXT):
        assert f"--port={port}" in services()[host]["command"]


def test_the_body_limit_is_the_gateways() -> None:
    assert f"client_max_body_size {MAX_BODY_BYTES >> 20}m;" in TEXT


def test_headers_have_a_deadline() -> None:
    assert 5 <= seconds("client_header_timeout")[0] <= 10
    assert 5 <= seconds("client_body_timeout")[0] <= 10


def test_it_waits_longer_than_the_gateway_does() -> None:
    assert max(seconds("proxy_read_timeout")) > settings.UPSTREAM_TOTAL_TIMEOUT_S
    assert seconds("send_timeout")[0] >= settings.CLIENT_WRITE_TIMEOUT_S


def test_it_gives_up_idle_connections_before_the_server_closes_them() -> None:
    for upstream in re.findall(r"upstream \w+ \{(.*?)\}", TEXT, re.DOTALL):
        (idle_s,) = re.findall(r"keepalive_timeout (\d+)s;", upstream)
        assert "--timeout-keep-alive=30" in services()["web"]["command"]
        assert int(idle_s) < min(KEEP_ALIVE_S, 30)


def test_the_data_path_is_neither_buffered_nor_compressed() -> None:
    (api,) = re.findall(r"location /api/ \{(.*?)\n {8}\}", TEXT, re.DOTALL)
    assert "proxy_buffering off;" in api
    assert "gzip off;" in api


def test_forwarded_headers_are_overwritten() -> None:
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in TEXT
    assert "$proxy_add_x_forwarded_for" not in TEXT


def test_the_log_has_neither_query_strings_nor_headers_of_the_client() -> None:
    (log_format,) = re.findall(r"log_format .*?;", TEXT, re.DOTALL)
    assert not re.search(r"\$(request|request_uri|args|query_string|http_\w+)\b", log_format)
