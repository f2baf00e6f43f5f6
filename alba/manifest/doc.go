// Package manifest is the record of one stored object: what it is called, how
// its bytes became fragments, and which OSD has each of them. The namespace
// manager keeps the record. Whoever has the record and the keys can read the object
// from the OSDs without any other metadata.
//
// The encoding is canonical, because replicas compare hashes of it: equal manifests
// have equal bytes, and Decode refuses what Append would not have written. Format 1,
// little-endian:
//
//	offset size field
//	  0     1   format, 1
//	  1     1   layout: 0 inline, 1 erasure-coded
//	  2     4   k, m, c, x
//	  6     1   code
//	  7     1   compression
//	  8     1   cipher
//	  9     1   checksum
//	 10     1   log2 of the block size
//	 11     1   zero
//	 12     4   revision: grows with each change of the fragments
//	 16     8   key
//	 24     8   namespace
//	 32    16   object id, random, drawn for every attempt to upload
//	 48     8   size of the object in plain bytes
//	 56     8   object version, for conditional puts
//	 64     8   time of the put, nanoseconds since 1970
//	 72     8   gc epoch
//	 80     1   length of the name, n (1-200)
//	 81     1   zero
//	 82     2   chunks
//	 84     4   stored bytes that are in the manifest, i; zero unless inline
//	 88     n   name
//	 ..         chunks, one after the other
//	 ..     i   stored bytes of the only chunk, if inline
//	 ..     4j  CRC of each 4 KiB of them, the last one shorter
//	 ..     4   CRC-32C of all before it
//
// A chunk:
//
//	offset size field
//	  0     4   plain bytes
//	  4     4   stored bytes
//	  8     4   length of each of its k+m shards; zero if inline
//	 12     1   flags; bit 0: dense, there is no table of block lengths
//	 13     1   fragments: k+m, zero if inline
//	 14     2   zero
//	 16   20f   fragments
//
// A fragment:
//
//	offset size field
//	  0     8   OSD, zero: on none yet
//	  8     4   version: grows with each replacement
//	 12     4   length in bytes
//	 16     4   CRC-32C of its CRC table: the CRCs of its 4 KiB blocks, 4
//	            little-endian bytes each
//
// All chunks but the last have as many plain bytes as the first, a multiple of
// the block size, so that a division finds the chunk of an offset. An object of
// no bytes is inline and has no chunk. Package object says what stored bytes are.
//
// # Block checksums
//
// Every 4 KiB block of a fragment has a CRC-32C over
//
//	8 bytes  seed of the fragment, little-endian
//	4 bytes  number of the block in the fragment, little-endian
//	         the block
//
// and the seed is the first 8 bytes, little-endian, of the SHA-256 of
//
//	8 bytes  "ovs-frag"
//	16 bytes object id
//	4 bytes  chunk, little-endian
//	4 bytes  fragment, little-endian; 0xffffffff for what is inline
//
// so that the check refuses a block of another object, of an older upload under the
// same name, or of another place. The fragment's version is not part of the seed: a
// fragment that is made again has the same bytes, and a fragment that moves keeps its
// CRCs.
//
// # Fragment keys
//
// A fragment is stored on its OSD under 34 bytes that sort by namespace,
// object, chunk, fragment and version:
//
//	offset size field (big-endian)
//	  0     1   'o'
//	  1     8   namespace
//	  9    16   object id
//	 25     4   chunk
//	 29     1   fragment
//	 30     4   version
//
// Under 'r', which is reserved, the same fields and the hash of the object's bytes
// (32 bytes, at 34) will be the key of a recovery record, of at most 512 bytes. This
// release writes no such record, and leaves alone those that it finds.
//
// These bytes are in the store. They never change.
package manifest
