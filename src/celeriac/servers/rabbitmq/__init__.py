"""Queues in RabbitMQ (AMQP 0-9-1), and results as messages."""

from celeriac.servers.rabbitmq.broker import AmqpBroker
from celeriac.servers.rabbitmq.topology import QueueOptions

__all__ = ["AmqpBroker", "QueueOptions"]
