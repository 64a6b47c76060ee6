"""Deleting services: what else goes with them, and what must not."""

from tests.support.running import Client


def service_id(admin: Client, binary: str, host: str | None = None) -> str:
    found = admin.compute("GET", f"/os-services?binary={binary}").json()["services"]
    return str(next(service["id"] for service in found if host in (None, service["host"])))


def test_a_compute_service_with_servers_stays(admin: Client, image_id: str, flavor_id: str) -> None:
    server = admin.boot("s", image_id, flavor_id)
    host = admin.wait(server, "ACTIVE")["OS-EXT-SRV-ATTR:host"]
    answer = admin.compute("DELETE", f"/os-services/{service_id(admin, 'nova-compute', host)}")
    assert answer.status_code == 409 and host in answer.text
    admin.compute("DELETE", f"/servers/{server}")
    admin.wait_gone(server)


def test_another_service_of_the_same_name_takes_no_host_with_it(admin: Client) -> None:
    before = admin.compute("GET", "/os-hypervisors").json()["hypervisors"]
    answer = admin.compute("DELETE", f"/os-services/{service_id(admin, 'nova-scheduler')}")
    assert answer.status_code == 204
    assert admin.compute("GET", "/os-hypervisors").json()["hypervisors"] == before


def test_what_became_of_a_service_is_told_with_its_cause(admin: Client) -> None:
    """Since when it is up, that it was disabled and why, that it was forced down and came back."""
    name = service_id(admin, "nova-conductor")
    service = next(s for s in admin.compute("GET", "/os-services").json()["services"] if s["id"] == name)
    assert "state_since" not in service
    of_it = f"host={service['host']}&binary=nova-conductor"

    def state() -> tuple[str, str]:
        [found] = admin.compute("GET", f"/os-services?{of_it}&state_since=true").json()["services"]
        return found["state"], found["state_since"]

    def change(**body: object) -> None:
        assert admin.compute("PUT", f"/os-services/{name}", json=body).status_code == 200

    is_up, since = state()
    assert is_up == "up"
    change(status="disabled", disabled_reason="new disks")
    change(forced_down=True)
    is_up, forced_since = state()
    assert is_up == "down" and forced_since > since
    change(forced_down=False)
    change(status="enabled")
    assert state()[0] == "up"
    found = admin.compute("GET", f"/kilonova-service-events?{of_it}").json()["service_events"]
    assert [event["event"] for event in found] == ["enabled", "not_forced_down", "forced_down", "disabled", "up"]
    assert found[3]["cause"] == "new disks" and "first time" in found[4]["cause"]
    page = admin.compute("GET", f"/kilonova-service-events?{of_it}&limit=2&marker={found[1]['id']}").json()
    assert page["service_events"] == found[2:4]
    assert admin.compute("GET", "/kilonova-service-events?limit=0").status_code == 400
