"""Remote calls over a message queue: envelope, dispatcher, versions, transports. Knows nothing of servers or SQL."""
