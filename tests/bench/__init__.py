"""`make bench`: intake, query and retrieval beside DCMTK, pynetdicom and Orthanc, in one run."""
