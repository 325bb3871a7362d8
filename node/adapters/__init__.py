"""One technology per module, named after it; only `node.bootstrap` imports these."""
