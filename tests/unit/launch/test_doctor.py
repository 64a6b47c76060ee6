"""What the doctor finds in broken configurations, and in one that works."""

import json
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.places import open_place

from kilonova.base.config import Config
from kilonova.cli.docs import PACKAGE, sections
from kilonova.cli.main import main
from kilonova.launch import doctor
from kilonova.launch.doctor import Finding
from kilonova.launch.state import StateDir
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.virt.libvirt import daemons

OPTIONS = [(section.name, option.name, section.module) for section in sections(PACKAGE) for option in section.options]


def has_user(name: str) -> bool:
    return any(account.pw_name == name for account in pwd.getpwall())


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


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[None]:  # the directory first: nobody could not make it
    """Without root's rights. Skips where there are none to lay down."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be somebody else")
    os.seteuid(65534)
    yield
    os.seteuid(0)


LIBVIRT = Config(overrides={"compute": {"virt": "libvirt"}})


def test_a_machine_without_a_hypervisor(tmp_path: Path) -> None:
    [(told, advice)] = failures(list(doctor.check_hypervisor(LIBVIRT, [str(tmp_path)])))
    assert "qemu-system-x86_64" in told and "libvirtd" in told and advice


def test_how_guests_run_is_said_with_the_reason(tmp_path: Path) -> None:
    for name in ("qemu-system-x86_64", "libvirtd", "virtlogd", "qemu-img"):
        (tmp_path / name).touch(mode=0o755)
    [there, user, kvm] = doctor.check_hypervisor(LIBVIRT, [str(tmp_path)])
    assert user.what == "qemu user"
    assert there.level == "ok" and kvm.what == "kvm" and kvm.text
    assert kvm.level == "ok" or ("emulated" in kvm.text and kvm.remedy)


@pytest.mark.skipif(not has_user("libvirt-qemu"), reason="QEMU's user comes with libvirt-daemon-system")
def test_a_state_directory_that_qemus_user_cannot_reach_is_told(tmp_path: Path) -> None:
    with open_place("doctor") as place:
        state = place / "state"
        state.mkdir()
        assert daemons.qemu_user(state) == ("libvirt-qemu", "")
        place.chmod(0o700)
        user, why = daemons.qemu_user(state)
        assert user == "root" and str(place) in why


def test_simulated_hosts_are_told_and_need_no_network_tools() -> None:
    fake = Config(overrides={"compute": {"virt": "fake"}})
    [found] = doctor.check_hypervisor(fake, [])
    assert found.level == "warn" and found.remedy
    assert list(doctor.check_network(fake, [])) == []


def test_a_machine_without_network_tools(tmp_path: Path) -> None:
    (tmp_path / "ip").touch(mode=0o755)
    [(told, advice)] = failures(list(doctor.check_network(LIBVIRT, [str(tmp_path)])))
    assert told == "not installed: nft, dnsmasq" and advice


@pytest.mark.usefixtures("nobody")
def test_network_agents_without_rights() -> None:
    there = Config(overrides={"compute": {"virt": "libvirt"}})
    found = failures(list(doctor.check_network(there, doctor.PROGRAMS)))
    assert any("not root" in told or "not installed" in told for told, _ in found)


def test_a_card_that_is_not_there() -> None:
    config = Config(overrides={"compute": {"virt": "libvirt"}, "network": {"flat_interface": "nosuch0"}})
    assert any("'nosuch0'" in told and advice for told, advice in failures(list(doctor.check_network(config))))


@pytest.mark.parametrize(("skew_s", "level"), [(0.1, "ok"), (doctor.SKEW_S + 1, "fail")])
def test_a_clock_that_is_wrong(skew_s: float, level: str) -> None:
    found = doctor.check_clock(skew_s)
    assert found.level == level and bool(found.remedy) == (level == "fail")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = Config(overrides={"api": {"listen": f"127.0.0.1:{other.getsockname()[1]}"}})
        found = doctor.check_port(config)
    assert found.level == "warn" and "in use" in found.text
    assert doctor.check_port(Config(overrides={"api": {"listen": "nowhere"}})).level == "fail"


@pytest.mark.usefixtures("nobody")
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    config = Config(overrides={"DEFAULT": {"state_path": str(tmp_path / "state")}})
    [(told, advice)] = failures(list(doctor.check_place(config)))
    assert "cannot be written" in told and "install -d" in advice


def test_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = Config(overrides={"DEFAULT": {"state_path": str(tmp_path / "file/state")}})
    assert [finding.level for finding in doctor.check_place(config)] == ["fail"]


def test_a_place_without_room(tmp_path: Path) -> None:
    config = Config(overrides={"DEFAULT": {"state_path": str(tmp_path)}})
    [found] = doctor.check_place(config, least_mib=2**40)
    assert found.level == "warn" and "MiB free" in found.text


@pytest.mark.parametrize("name", ["kilonova.sqlite", "clouds.yaml", "openrc"])
def test_a_file_that_others_can_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch(mode=0o644)
    config = Config(overrides={"DEFAULT": {"state_path": str(tmp_path)}})
    [(told, advice)] = failures(list(doctor.check_place(config)))
    assert name in told and advice.startswith("chmod 600")


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


async def test_the_cloud_of_one_process(tmp_path: Path) -> None:
    file = a_file(tmp_path, "[up]\nvirt = fake\nlisten = 127.0.0.1:0\n")
    state = tmp_path / "state"
    StateDir(state).prepare(database=True)
    migrations.upgrade(Store.open(StateDir(state).database_url, inline=True).engine)
    findings = await doctor.examine([file], OPTIONS, (), state=state)
    assert failures(findings) == []
    assert {"database", "clock", "broker", "api"} <= {f.what for f in findings if f.level == "ok"}
    (state / "secrets").chmod(0o755)
    assert len(failures(await doctor.examine([file], OPTIONS, (), state=state))) == 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "conf.d"
    config.mkdir()
    text = f"[DEFAULT]\ntransport_url = memory://\nstate_path = {tmp_path}\n[api]\nlisten = 127.0.0.1:0\n"
    (config / "1.conf").write_text(text)
    words = ["doctor", "api", "--json", "--config-dir", str(config)]
    assert main(words) == 0
    assert "all names are known" in capsys.readouterr().out
    (config / "2.conf").write_text("[DEFAULT]\ndebgu = [red]\n")
    assert main(words) == 1
    assert "no option 'debgu'" in capsys.readouterr().out
    assert main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {"what": "options", "level": "fail"}.items() <= found[0].items() and "'debug'" in found[0]["remedy"]
    assert main(["doctor", "gardener"]) == 2
    assert "There are: api" in capsys.readouterr().err
    assert main(["doctor", "--config-dir", str(tmp_path / "gone")]) == 1
    assert "gone" in capsys.readouterr().out
