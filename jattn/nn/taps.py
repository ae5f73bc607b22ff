"""Places in a layer where one can look and change: what a model calls at each of them."""

from typing import Any

from jaxtyping import Array, Float

from jattn.attention import attend


class Taps:
    """What a layer calls at each of its sites; this one neither looks nor changes.

    Attributes:
        records: what was found at sites, by name; it becomes an output of the layer.
    """

    def __init__(self):
        self.records: dict[str, Array] = {}

    def __call__(self, site: str, value: Any) -> Any:
        """The value that the layer goes on with."""
        return value

    def attend(
        self,
        query: Float[Array, "b t h d"],
        key: Float[Array, "b s g d"],
        value: Float[Array, "b s g e"],
        mask: Any,
    ) -> Float[Array, "b t h e"]:
        """What heads read; sites between scores and values are in here."""
        return attend(query, key, value, mask=mask)
