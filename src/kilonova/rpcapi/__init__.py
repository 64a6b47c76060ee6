"""The conversations between services: one file each holds the protocol, the client and the version history.

Both sides import this room and never each other. Methods that a protocol calls `quiet` come by the clock
(heartbeats, reports, hints): their messages are logged only where they are part of a user's request.
"""
