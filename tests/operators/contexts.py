"""Flink as a stage sees it, its state in dicts, so that a test chooses where a checkpoint falls."""

from typing import Any

SHARD = 7


class Entries:
    """Keyed state: a map, or a value under one name."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self.get, self.items, self.put_all = self.entries.get, self.entries.items, self.entries.update

    def __deepcopy__(self, memo: dict[int, Any]) -> "Entries":
        copied = Entries()
        copied.put_all(self.entries)
        return copied

    def put(self, key: str, value: bytes) -> None:
        self.entries[key] = value

    def remove(self, key: str) -> None:
        self.entries.pop(key, None)

    def value(self) -> Any:
        return self.entries.get("value")

    def update(self, value: Any) -> None:
        self.entries["value"] = value


class Elements:
    """Keyed state: a list."""

    def __init__(self) -> None:
        self.elements: list[Any] = []
        self.add, self.clear = self.elements.append, self.elements.clear

    def __deepcopy__(self, memo: dict[int, Any]) -> "Elements":
        copied = Elements()
        copied.elements.extend(self.elements)
        return copied

    def get(self) -> list[Any]:
        return self.elements


class Context:
    """What a stage asks of Flink. `states` is what a checkpoint holds, by the name of the state."""

    def __init__(self, attempt: int, states: dict[str, Any]) -> None:
        self.states = states
        self._attempt = attempt

    def get_attempt_number(self) -> int:
        return self._attempt

    def get_index_of_this_subtask(self) -> int:
        return 0

    def _state(self, descriptor: Any) -> Entries:
        entries: Entries = self.states.setdefault(descriptor.name, Entries())
        return entries

    def get_list_state(self, descriptor: Any) -> Elements:
        elements: Elements = self.states.setdefault(descriptor.name, Elements())
        return elements

    get_state = get_map_state = _state

    def get_broadcast_state(self, descriptor: Any) -> Entries:
        return self._state(descriptor)

    def get_current_key(self) -> int:
        return SHARD

    def get_metrics_group(self) -> "Context":
        return self

    def counter(self, _: str) -> "Context":
        return self

    def inc(self, _: int = 1) -> None:
        return
