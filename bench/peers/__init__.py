"""Other queues on PostgreSQL, each with its own client and worker, which run no-ops."""
