"""Value representations (PS3.5 section 6.2): how they are encoded and which values may be cut."""

# Length of one value in bytes, for the binary VRs whose length must be a multiple of it.
WIDTHS = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "AT": 4, "FL": 4, "FD": 8, "SV": 8, "UV": 8}

# struct's code for one number
NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}

# Word size of the opaque VRs, for byte swapping out of big endian
WORDS = {"OB": 1, "UN": 1, "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}

# Text in the dataset's Specific Character Set; the other text VRs are ASCII only.
ENCODED_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
# Text of a single value: a backslash is a character like any other.
SINGLE_TEXT = frozenset({"LT", "ST", "UT", "UR"})
# Text in which spaces on both sides mean nothing (table 6.2-1)
TRIMMED_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"})

# Values of these that are longer than CUT_BYTES are not kept, only where they are.
BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
CUT_BYTES = 4096

_SHORT = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_LONG = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"
# VR as encoded -> (VR, mask that the length must not touch); 16-bit and 32-bit length (section 7.1.2)
SHORT = {code.encode(): (code, WIDTHS.get(code, 1) - 1) for code in _SHORT.split()}
LONG = {code.encode(): (code, WIDTHS.get(code, 1) - 1) for code in _LONG.split()}
