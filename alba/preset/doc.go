// Package preset is the storage profile of a namespace: the policies by which its
// objects are spread, and the [Scheme] by which their bytes become fragments. A
// namespace is created with a preset. The manifest of each object holds the scheme of
// that object, so that old objects stay readable when a preset changes.
//
// A preset has two forms: JSON for people ([Preset.JSON], [ParseJSON]), and a canonical
// binary form for the store, in which equal presets have equal bytes.
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
