"""Reading a pickle without bringing anything in it to life.

A pickle is a program that names functions and calls them. Here every name becomes an empty stand-in that
only remembers what it was called with, so nothing of the file runs and none of the modules it names is
imported.
"""

import io
import pickle


class Inert:
    """Where a pickle would have made an object: its name, arguments, and the state and items given after."""

    origin: tuple[str, str]  # module and name, set by `InertUnpickler.find_class`
    args: tuple[object, ...]
    state: object
    items: dict[object, object]

    def __new__(cls, *args: object, **_: object) -> "Inert":
        inert = super().__new__(cls)
        inert.args = args
        inert.state = None
        inert.items = {}
        return inert

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items[key] = value

    def append(self, item: object) -> None:
        """Forget what goes into lists and sets that are not Python's own: they hold no part of a network."""

    add = extend = append


# The unpickler written in Python: the one in C allocates whatever length or memo index a file asks for.
class InertUnpickler(pickle._Unpickler):
    """An unpickler for which every name is a stand-in. `load` may raise anything on a damaged file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._stand_ins: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str) -> type[Inert]:
        """A subclass of `Inert` that knows its name; nothing is looked up."""
        key = (module, name)
        if key not in self._stand_ins:
            self._stand_ins[key] = type("Inert", (Inert,), {"origin": key})
        return self._stand_ins[key]
