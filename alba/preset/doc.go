// Package preset is the storage profile of a namespace: which policies its
// objects are spread by, and how their bytes become fragments. A namespace is
// made with a preset; each object's manifest holds the [Scheme] it was stored
// with, so that a preset may change and old objects stay readable.
//
// A preset has two forms: JSON for people ([Preset.JSON], [ParseJSON]), and a
// canonical binary one for the store (equal presets, equal bytes).
//
// The binary form, version 1, little-endian:
//
//	offset size field
//	 0      1   form, 1
//	 1      1   length of the name, n (1-64)
//	 2      1   policies, p (1-16)
//	 3      1   code
//	 4      1   compression
//	 5      1   cipher
//	 6      1   checksum
//	 7      1   log2 of the block size
//	 8      8   key
//	16      8   version of the preset
//	24      8   largest object in bytes
//	32      4   chunk size in bytes
//	36      4   largest object that is kept in its manifest, in bytes
//	40      n   name
//	40+n   4p   policies: k, m, c, x, a byte each, best first
//	 ..     4   CRC-32C of all before it
//
// These bytes are in the store. They never change.
package preset
