"""Which PCI devices of a host guests may have: the option, Linux' files, and this machine's own devices."""

from pathlib import Path

import pytest

from kilonova.virt.libvirt.host_pci import SYSFS, DeviceSpecError, PciDeviceOptions, device_specs, devices

GPU = {"vendor": "0x10de", "device": "0x1db4", "class": "0x030200", "numa_node": "1"}
NIC = {"vendor": "0x8086", "device": "0x10fb", "class": "0x020000", "numa_node": "-1", "sriov_totalvfs": "4"}
VF = {"vendor": "0x8086", "device": "0x10ed", "class": "0x020000", "numa_node": "0", "physfn": "->0000:81:00.0"}
BRIDGE = {"vendor": "0x10de", "device": "0x9999", "class": "0x060400", "numa_node": "0"}


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A host with two GPUs, a card with a virtual function, and a bridge."""
    for address, files in {
        "0000:3b:00.0": GPU,
        "0000:af:00.0": {**GPU, "numa_node": "0"},
        "0000:81:00.0": {**NIC, "sriov_numvfs": "0"},
        "0000:81:10.0": VF,
        "0000:00:1c.0": BRIDGE,
    }.items():
        device = tmp_path / address
        device.mkdir()
        for name, text in files.items():
            if name == "physfn":
                (device / name).symlink_to(tmp_path / text.removeprefix("->"))
            else:
                (device / name).write_text(f"{text}\n")
    return tmp_path


def addresses(text: str, sysfs: Path) -> list[str]:
    return [device.address for device in devices(device_specs(text), sysfs)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"vendor_id": "10de"}', ["0000:3b:00.0", "0000:af:00.0"]),
        ('{"vendor_id": "10DE", "product_id": "0x1DB4"}', ["0000:3b:00.0", "0000:af:00.0"]),
        ('{"vendor_id": "10de", "product_id": "0001"}', []),
        ('{"address": "0000:3b:00.0"}', ["0000:3b:00.0"]),
        ('{"address": "3b:00.0"}', ["0000:3b:00.0"]),
        ('{"address": "*:81:*.*"}', ["0000:81:00.0", "0000:81:10.0"]),
        ('{"address": "0000:81:10"}', ["0000:81:10.0"]),
        ('{"address": {"bus": "af"}}', ["0000:af:00.0"]),
        ('{"address": "*"}', ["0000:3b:00.0", "0000:81:00.0", "0000:81:10.0", "0000:af:00.0"]),
        ('[{"address": "0000:3b:00.0"}, {"vendor_id": "8086"}]', ["0000:3b:00.0", "0000:81:00.0", "0000:81:10.0"]),
        ("", []),
        ("[]", []),
    ],
)
def test_what_is_named_is_given_away_and_bridges_never(sysfs: Path, text: str, expected: list[str]) -> None:
    assert addresses(text, sysfs) == expected


def test_kinds_and_cells(sysfs: Path) -> None:
    found = {device.address: device for device in devices(device_specs('{"address": "*"}'), sysfs)}
    assert {address: device.dev_type for address, device in found.items()} == {
        "0000:3b:00.0": "type-PCI",
        "0000:af:00.0": "type-PCI",
        "0000:81:00.0": "type-PF",
        "0000:81:10.0": "type-VF",
    }
    assert [found[a].numa_node for a in ("0000:3b:00.0", "0000:af:00.0", "0000:81:00.0")] == [1, 0, None]
    assert (found["0000:3b:00.0"].vendor_id, found["0000:3b:00.0"].product_id) == ("10de", "1db4")


def test_a_function_whose_virtual_functions_are_on_is_in_use(sysfs: Path) -> None:
    (sysfs / "0000:81:00.0" / "sriov_numvfs").write_text("2\n")
    assert addresses('{"address": "*:81:*.*"}', sysfs) == ["0000:81:10.0"]


def test_the_first_that_names_a_device_gives_it_its_tags(sysfs: Path) -> None:
    text = '[{"address": "*:3b:*.*", "Physical_Network": "Blue", "trusted": true}, {"vendor_id": "10de"}]'
    first, second = devices(device_specs(text), sysfs)
    assert first.tags == {"Physical_Network": "blue", "trusted": "true"} and second.tags == {}


def test_a_device_that_goes_while_one_looks_is_left_out(sysfs: Path) -> None:
    (sysfs / "0000:3b:00.0" / "vendor").unlink()
    assert addresses('{"address": "*:3b:*.*"}', sysfs) == []
    assert devices(device_specs('{"vendor_id": "10de"}'), sysfs / "nothing") == ()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "no JSON"),
        ('"10de"', "no object"),
        ("{}", "no object"),
        ("[1]", "no object"),
        ('{"vendor_id": "nvidia"}', "vendor_id"),
        ('{"product_id": "1"}', "product_id"),
        ('{"address": "first"}', "address"),
        ('{"address": "0000:3b:00.9"}', "address"),
        ('{"address": {"slot": "1", "row": "2"}}', "row"),
        ('{"devname": "eth0"}', "devname"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, word: str) -> None:
    with pytest.raises(DeviceSpecError, match=word):
        PciDeviceOptions(device_spec=text).read()


@pytest.mark.skipif(not SYSFS.is_dir(), reason="this machine has no PCI bus")
def test_this_machines_own_devices() -> None:
    found = devices(device_specs('{"address": "*"}'))
    every = {path.name for path in SYSFS.iterdir()}
    bridges = {path.name for path in SYSFS.iterdir() if (path / "class").read_text().startswith("0x06")}
    assert {device.address for device in found} <= every - bridges
    for device in found:
        assert (SYSFS / device.address / "vendor").read_text().strip() == f"0x{device.vendor_id}"
