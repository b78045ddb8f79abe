"""PostgreSQL and Valkey from wheels, on private unix sockets: the same servers in development and in tests."""

from crun.embedded.errors import EmbeddedServerError
from crun.embedded.servers import EmbeddedServers, Server, embedded_servers

__all__ = ["EmbeddedServerError", "EmbeddedServers", "Server", "embedded_servers"]
