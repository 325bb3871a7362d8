"""The decoder: a program of its own (`python -m node.adapters.decoder`) that touches pixels.

It is started by `node.adapters.codecs_process`, reads jobs from a socket, and trusts nothing in them.
Only this package imports codecs. All numbers are big endian.

When it is warm and has given up its privileges it sends its own size, eight bytes. A job is four bytes
with the length of a JSON header, the header (`job`, its arguments, `length`), then `length` bytes of a
Part 10 object. An answer is pieces, each preceded by its length in four bytes, ended by a length of
zero; then four bytes with the length of a JSON header and the header: `size` (bytes of address space in
use), `refused` with a comment if what was asked is not possible (whatever pieces came before), and
`lengths` of the frames when frames were asked for.
"""
