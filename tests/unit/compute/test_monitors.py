"""What an agent measures of its machine."""

from pathlib import Path

import pytest

from kilonova.compute.inventory import InventoryError
from kilonova.compute.monitors import CpuMonitor, monitors


def stat(file: Path, user: int, nice: int, system: int, idle: int, iowait: int) -> Path:
    file.write_text(f"cpu  {user} {nice} {system} {idle} {iowait} 0 0 0 0 0\ncpu0 1 2 3 4 5 0 0 0 0 0\n")
    return file


def test_shares_are_of_the_time_since_the_look_before(tmp_path: Path) -> None:
    file = stat(tmp_path / "stat", 100, 0, 50, 1000, 10)
    monitor = CpuMonitor(file, tick_s=0.01)
    assert "cpu.percent" not in monitor(), "no time has passed"
    stat(file, 120, 10, 60, 1050, 20)
    found = monitor()
    assert found["cpu.user.percent"] == 0.3
    assert found["cpu.kernel.percent"] == 0.1
    assert found["cpu.idle.percent"] == 0.5
    assert found["cpu.iowait.percent"] == 0.1
    assert found["cpu.percent"] == 0.4
    assert found["cpu.user.time"] == 130 * 1e7
    stat(file, 121, 10, 60, 1050, 20)
    assert monitor()["cpu.percent"] == 1.0


def test_this_machine_can_be_measured() -> None:
    [monitor] = monitors(["cpu.virt_driver"])
    sum(range(3_000_000))
    assert 0 <= monitor().get("cpu.percent", 0) <= 1


def test_an_unknown_monitor_is_refused_with_what_there_is() -> None:
    with pytest.raises(InventoryError, match=r"no 'gpu'.*cpu\.virt_driver"):
        monitors(["gpu"])
