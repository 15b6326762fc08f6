"""Sends the messages of periodic tasks, once for each slot, whichever of the ticking processes dies.

Rules: the entries are kept on the board under the app's name, and what is there is ticked. One process of an app leads,
by a lease, to spare the broker; that a slot is ticked once is the broker's doing (``Broker.beat``), and does not depend
on there being one leader. A process goes past a slot only when it knows that the slot was ticked, or must not be.
"""
