"""Alerts and dashboards: each fires for its fault, is silent when all is well, and asks for what there is."""
