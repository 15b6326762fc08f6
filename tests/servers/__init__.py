"""Private servers for tests: started on free ports, thrown away afterwards."""

from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.process import LoggedProcess
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisSentinel, RedisServer

__all__ = [
    "LoggedProcess",
    "PgBouncer",
    "PostgresServer",
    "Proxy",
    "RabbitServer",
    "RedisSentinel",
    "RedisServer",
]
