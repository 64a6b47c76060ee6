"""The conversations between services: one file each holds the protocol, the client and the version history.

Both sides import this room and never each other.
"""
