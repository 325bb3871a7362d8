"""The decoder: a program of its own (`python -m node.adapters.decoder`) that touches pixels.

It is started by `node.adapters.codecs_process`, reads jobs from a socket, and trusts nothing in them.
Only this package imports codecs. Protocol, both ways: four bytes (big endian) with the length of a
JSON header, the header, then what the header announces. A job's header has `job`, its arguments and
`length` of the Part 10 object that follows. An answer is pieces, each preceded by its length in four
bytes, ended by a length of zero, then a header: `{}` for success, `{"refused": comment}`; and `size`,
the process's own memory in bytes.
"""
