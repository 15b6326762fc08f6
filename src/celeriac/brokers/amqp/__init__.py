"""The broker of RabbitMQ (AMQP 0-9-1)."""

from celeriac.brokers.amqp.broker import AmqpBroker
from celeriac.brokers.amqp.topology import QueueOptions

__all__ = ["AmqpBroker", "QueueOptions"]
