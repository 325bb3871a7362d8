"""One use case per module, written against `node.domain` and `node.ports` only."""
