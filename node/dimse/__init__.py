"""The DIMSE edge: associations, contexts, handlers and the DIMSE status table."""
