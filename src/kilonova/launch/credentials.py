"""``clouds.yaml`` and ``openrc``: how the standard clients log in. Both can be read by their owner alone."""

import shlex

from kilonova.launch.state import StateDir, write_private


def write_credentials(state: StateDir, url: str, password: str, region: str) -> None:
    """Write both files for the administrator."""
    values = {
        "OS_AUTH_TYPE": "password",
        "OS_AUTH_URL": f"{url}/identity/v3",
        "OS_USERNAME": "admin",
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": region,
        "OS_IDENTITY_API_VERSION": "3",
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    write_private(state.root / "openrc", "# source this file, then: openstack server list\n" + "\n".join(lines) + "\n")
    write_private(
        state.root / "clouds.yaml",
        f"""\
# export OS_CLIENT_CONFIG_FILE={state.root}/clouds.yaml OS_CLOUD=kilonova, then: openstack server list
clouds:
  kilonova:
    region_name: {region}
    identity_api_version: 3
    auth:
      auth_url: {url}/identity/v3
      username: admin
      password: {password}
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
""",
    )
