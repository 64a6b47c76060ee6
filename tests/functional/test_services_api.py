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
