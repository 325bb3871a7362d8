"""The archive node: DICOM and DICOMweb in, DICOM and DICOMweb out."""
