"""The HTTP edge: DICOMweb, accounts, health, metrics and the HTTP status table."""
