"""What the tests say to the process of Celery 4.4: workflows, noted down here and built there."""

from dataclasses import dataclass
from typing import Any

from tests.interop.clients import Kit

LISTENING = "listening on "
"""What the process prints first, followed by its socket."""


@dataclass(frozen=True)
class Recorded:
    """One call of a kit with its arguments, in which there may be more of them."""

    call: str
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __or__(self, after: "Recorded") -> "Recorded":
        return Recorded("__or__", (self, after), {})

    def __call__(self, kit: Kit) -> Any:
        """Build it with this kit; what is recorded is a ``Build`` itself."""
        args = [_built(kit, part) for part in self.args]
        options = {name: _built(kit, part) for name, part in self.options.items()}
        if self.call == "__or__":
            return args[0] | args[1]
        return getattr(kit, self.call)(*args, **options)


class RecordingKit:
    """A ``Kit`` that builds nothing."""

    def __getattr__(self, call: str) -> Any:
        return lambda *args, **options: Recorded(call, args, options)


def _built(kit: Kit, part: Any) -> Any:
    if isinstance(part, Recorded):
        return part(kit)
    return [_built(kit, each) for each in part] if isinstance(part, list) else part
