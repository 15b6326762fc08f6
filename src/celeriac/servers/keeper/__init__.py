"""Renewals that a busy process cannot starve: a small process of its own makes them."""

from celeriac.servers.keeper.keeper import Keeper, Order

__all__ = ["Keeper", "Order"]
