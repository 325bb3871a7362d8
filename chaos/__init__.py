"""The lab and the chaos suite."""
