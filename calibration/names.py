"""Names for what is added to a graph."""

from __future__ import annotations

import onnx_ir as ir


class Names:
    """The names in a graph, so that what is added clashes with nothing of the user's."""

    def __init__(self, graph: ir.Graph) -> None:
        values = [*graph.inputs, *graph.initializers.values()]
        values += [value for node in graph for value in node.outputs]
        self._taken = {str(each.name) for each in (*values, *graph)}

    def free(self, name: str) -> str:
        """The name, or a longer one where that is taken; from now on it is."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
