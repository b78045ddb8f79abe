"""docker-compose.yml: complete, closed to the outside, and in step with settings and image."""

import re
import subprocess
from typing import Any

import environ
import pytest
from click.testing import CliRunner
from kombu.utils.url import parse_url

from crun.celery import app as celery_app
from crun.cli import commands
from crun.database.privileges import ProcessRole
from crun.database.roles import wanted_logins
from crun.drain_limits import CUT_S, SETTLE_S
from tests.deploy.compose import ROOT, as_run_here, filled_in, own_services, read_compose, services, variables

EXPECTED = {"nginx", "gateway", "web", "worker", "beat", "prepare", "sandbox", "postgres", "valkey"}
ONE_SHOT = {"prepare"}
ROLE_PASSWORDS = ("CRUN_GATEWAY_DB_PASSWORD", "CRUN_WORKER_DB_PASSWORD", "CRUN_WEB_DB_PASSWORD")
SECRETS = ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", *ROLE_PASSWORDS)
ROLES = {"gateway": "gateway", "web": "web", "worker": "worker", "beat": "worker"}
JOURNAL = "journal:/var/lib/crun/journal"
DOCUMENTED = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

each_service = pytest.mark.parametrize("name", sorted(EXPECTED))


def test_the_services_are_those_of_the_architecture() -> None:
    assert set(services()) == EXPECTED


@each_service
def test_a_service_says_where_it_comes_from_and_how_it_is_kept_running(name: str) -> None:
    service = services()[name]
    image = service["image"]
    assert re.search(r":\d", image), f"{image} names no version"
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert service["logging"]["options"]["max-size"], "its log would grow without bound"
    assert service["networks"], "it would join the default network"


@each_service
def test_a_service_has_a_health_check_with_limits(name: str) -> None:
    check = services()[name]["healthcheck"]
    if name in ONE_SHOT:
        assert check == {"disable": True}
        return
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= check.keys()


def test_only_nginx_is_published() -> None:
    assert [name for name, service in services().items() if "ports" in service] == ["nginx"]
    assert read_compose()["networks"]["inside"] == {"internal": True}
    outside = {name for name, service in services().items() if "outside" in service["networks"]}
    assert outside == {"nginx", "gateway", "web"}


@each_service
def test_its_dependencies_exist_and_are_waited_for(name: str) -> None:
    for other, how in services()[name].get("depends_on", {}).items():
        ready = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how == {"condition": ready}
        assert other in services()


def test_volumes_are_declared_and_files_exist() -> None:
    named = set()
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), volume
            else:
                named.add(source)
    assert named == set(read_compose()["volumes"])


def test_the_worker_ships_the_journal_that_the_gateway_writes() -> None:
    holders = {name for name, service in services().items() if JOURNAL in service.get("volumes", [])}
    assert holders == {"gateway", "worker"}
    for name in holders:
        environment = services()[name]["environment"]
        assert environment["CRUN_JOURNAL_DIR"] == JOURNAL.partition(":")[2]


@pytest.mark.parametrize("name", sorted(EXPECTED - {"nginx", "postgres", "valkey"}))
def test_our_processes_have_no_privileges(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_sandbox_upstream_knows_no_secret() -> None:
    sandbox = services()["sandbox"]
    assert (sandbox["environment"], sandbox["env_file"]) == ({}, [])


def test_every_variable_is_documented() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    set_for_us = {name for service in own_services().values() for name in service["environment"]}
    for name in {*variables(text), *set_for_us}:
        assert f"`{name}`" in DOCUMENTED, f"docs/configuration.md does not explain {name}"


def test_secrets_are_required_and_never_written_down() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name in SECRETS:
        assert text.count(f"{name}") > 1
        assert variables(text)[name] == ":?"
    assert not re.search(r"(?i)(password|secret|pepper)\w*: *\"?[A-Za-z0-9]{6,}\"?$", text, re.MULTILINE)


def test_the_addresses_of_the_stores_are_understood_by_settings() -> None:
    values = dict.fromkeys(SECRETS, "0123abcd")
    environment = services()["prepare"]["environment"]
    database = environ.Env.db_url_config(filled_in(environment["DATABASE_URL"], values))
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("postgres", 5432, "crun")
    assert (database["USER"], database["PASSWORD"]) == ("crun", "0123abcd")
    redis = parse_url(filled_in(environment["REDIS_URL"], values))
    assert (redis["hostname"], redis["port"], redis["password"]) == ("valkey", 6379, "0123abcd")


@pytest.mark.parametrize("name", sorted(ROLES))
def test_a_process_logs_in_as_its_own_role_and_knows_no_other_way(name: str) -> None:
    environment, role = services()[name]["environment"], ROLES[name]
    assert environment["CRUN_DATABASE_ROLE"] == role
    urls = {variable: text for variable, text in environment.items() if "DATABASE_URL" in variable}
    assert list(urls) == [f"CRUN_DATABASE_URL_{role.upper()}"]
    database = environ.Env.db_url_config(filled_in(*urls.values(), dict.fromkeys(SECRETS, "0123abcd")))
    assert (database["USER"], database["PASSWORD"]) == (f"crun_{role}", "0123abcd")
    hidden = {"POSTGRES_PASSWORD", *ROLE_PASSWORDS}  # env_file would hand them on
    assert {variable for variable in hidden if environment[variable] == ""} == hidden


def test_the_one_shot_job_makes_the_roles_that_the_processes_use() -> None:
    environment = services()["prepare"]["environment"]
    for name, role in ROLES.items():
        variable = f"CRUN_DATABASE_URL_{role.upper()}"
        assert environment[variable] == services()[name]["environment"][variable]
    values = dict.fromkeys(SECRETS, "0123abcd")
    logins = wanted_logins({variable: filled_in(text, values) for variable, text in environment.items()})
    assert [(login.process, login.name) for login in logins] == [(role, f"crun_{role}") for role in ProcessRole]


@pytest.mark.parametrize("name", ["gateway", "web"])
def test_the_server_takes_the_options_that_it_is_given(name: str) -> None:
    command = services()[name]["command"]
    asked = subprocess.run([*as_run_here(command)[:3], "--help"], capture_output=True, text=True, check=True)
    for option in command[2:]:
        assert f"{option.partition('=')[0]} " in asked.stdout.replace("\n", " "), option


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_celery_takes_the_options_that_it_is_given(name: str) -> None:
    program, *rest = services()[name]["command"]
    assert (program, rest[:2]) == ("celery", ["-A", "crun.celery"])
    assert celery_app.main == "crun"
    asked = subprocess.run(
        [*as_run_here([program]), *rest[:3], "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for option in rest[3:]:
        assert option.partition("=")[0] in asked.stdout, option


def test_the_one_shot_job_is_a_command_of_crun() -> None:
    program, *arguments = services()["prepare"]["command"]
    assert program == "crun"
    result = CliRunner().invoke(commands, [*arguments, "--help"])
    assert result.exit_code == 0, result.output


def test_the_sandbox_takes_the_options_that_it_is_given() -> None:
    command = services()["sandbox"]["command"]
    result = CliRunner().invoke(commands, ["sandbox", *command[3:], "--help"])
    assert result.exit_code == 0, result.output


def _drain_s(service: dict[str, Any]) -> float:
    """How long the service may take to stop, by its options or its environment."""
    options = [part for part in service["command"] if part.startswith("--timeout-graceful-shutdown=")]
    if options:
        return int(options[0].partition("=")[2])
    told = {
        name: float(filled_in(service["environment"][name], {}))
        for name in ("CRUN_DRAIN_DELAY_S", "CRUN_DRAIN_TIMEOUT_S")
    }
    return sum(told.values()) + CUT_S + SETTLE_S


@pytest.mark.parametrize("name", ["gateway", "web"])
def test_streams_may_end_before_the_container_is_killed(name: str) -> None:
    service = services()[name]
    assert _drain_s(service) < int(service["stop_grace_period"].removesuffix("s"))
