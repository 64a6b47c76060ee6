"""The metadata service, as the hosts' proxies reach it."""
