"""PostgreSQL: queues, results and the board in one database."""
