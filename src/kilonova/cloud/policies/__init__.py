"""The rules of each API, by name, with OpenStack's defaults: data that operators override by file."""
