"""What the doctor finds in broken configurations, and in one that works."""

from pathlib import Path

import pytest

from kilonova.base.config import Config
from kilonova.cli.docs import PACKAGE, sections
from kilonova.launch import doctor
from kilonova.launch.doctor import Finding

OPTIONS = [(section.name, option.name, section.module) for section in sections(PACKAGE) for option in section.options]


def a_file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "kilonova.conf"
    file.write_text(text)
    return file


def failures(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.text, finding.remedy) for finding in findings if finding.level == "fail"]


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        ("[DEFAULT]\nstate_pth = /x\n", "no option 'state_pth'", "'state_path'"),
        ("[DEFAULT]\nenabled_filters = X\n", "no option 'enabled_filters'", "[filter_scheduler]"),
        ("[databse]\nconnection = x\n", "no section [databse]", "[database]"),
        ("no equals sign\n", "kilonova.conf", "Correct the file"),
    ],
)
async def test_a_wrong_option_is_told_with_the_nearest_right_one(
    tmp_path: Path, text: str, found: str, remedy: str
) -> None:
    findings = await doctor.examine([a_file(tmp_path, text)], OPTIONS, ["network"])
    told, advice = failures(findings)[0]
    assert found in told and remedy in advice


def test_a_value_of_the_wrong_type_is_told(tmp_path: Path) -> None:
    config = Config([a_file(tmp_path, "[quota]\ninstances = many\n")])
    [(told, _)] = failures(list(doctor.check_values(config, ["kilonova.cloud.quotas"])))
    assert "[quota] instances" in told


@pytest.mark.parametrize("url", ["", "carrier-pigeon://x", "amqp://me:hidden@127.0.0.1:1/"])
async def test_a_broker_that_is_not_there(tmp_path: Path, url: str) -> None:
    finding = await doctor.check_broker(Config([a_file(tmp_path, f"[DEFAULT]\ntransport_url = {url}\n")]))
    assert finding.level == "fail" and finding.remedy and "hidden" not in finding.text


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://me:hidden@127.0.0.1:1/x", "mysql+pymysql://me:hidden@127.0.0.1:1/x", "nonsense"]
)
def test_a_database_that_is_not_there(tmp_path: Path, url: str) -> None:
    config = Config([a_file(tmp_path, f"[database]\nconnection = {url}\n")])
    [(told, advice)] = failures(list(doctor.check_database(config)))
    assert "hidden" not in told and "connection" in advice


def test_a_database_without_tables(tmp_path: Path) -> None:
    config = Config([a_file(tmp_path, f"[database]\nconnection = sqlite:///{tmp_path / 'db.sqlite'}\n")])
    [(told, advice)] = failures(list(doctor.check_database(config)))
    assert "(empty)" in told and "kilonova db upgrade" in advice


def test_a_place_that_others_can_read(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)
    config = Config([a_file(tmp_path, f"[DEFAULT]\nstate_path = {tmp_path}\n")])
    [(told, advice)] = failures(list(doctor.check_place(config)))
    assert "secrets" in told and "chmod 700" in advice


async def test_a_compute_machine_without_the_secret(tmp_path: Path) -> None:
    text = f"[DEFAULT]\nroles = compute\ntransport_url = memory://\nstate_path = {tmp_path}\n[compute]\nvirt = fake\n"
    findings = await doctor.examine([a_file(tmp_path, text)], OPTIONS, ())
    assert [finding.what for finding in findings if finding.level == "fail"] == ["secret"]
    assert not any(finding.what == "database" for finding in findings), "agents have none"


async def test_all_is_well(tmp_path: Path) -> None:
    text = (
        f"[DEFAULT]\nroles = control\ntransport_url = memory://\nstate_path = {tmp_path}\n[api]\nlisten = 127.0.0.1:0\n"
    )
    findings = await doctor.examine([a_file(tmp_path, text)], OPTIONS, ())
    assert failures(findings) == []
    assert {"options", "values", "broker", "state", "api"} <= {f.what for f in findings if f.level == "ok"}
