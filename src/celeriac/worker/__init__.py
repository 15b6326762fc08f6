"""The worker: takes messages, runs tasks, records what came of them."""
