"""Exceptions that tasks of both sides raise, and both clients know."""


class OutOfStock(Exception):
    """A class of our own with more than one argument, as an application has."""

    def __init__(self, item: str, wanted: int) -> None:
        super().__init__(item, wanted)
        self.item = item
        self.wanted = wanted
