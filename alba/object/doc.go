// Package object is the body of a stored object: how its bytes become the
// fragments of an erasure code, and how a range of them is found, checked and
// opened again. Nothing here does I/O. [Encoder] makes fragments; [Locate] and
// [Ranges] say which bytes of which fragments to fetch; [Opener] opens those.
//
// An object is cut into chunks of equal plain size, 16 MiB by default. A chunk is
// cut into blocks of 2^log2 plain bytes, 32 KiB by default, which are independent
// of each other:
//
//	plain block ── compress ── seal ──► stored block
//	stored blocks, one behind the other, then the table of their lengths
//	    = stored bytes of the chunk
//	stored bytes, zeros up to k equal shards of whole 4 KiB
//	    = k data fragments; m parity fragments are calculated from them
//	each 4 KiB of each fragment has a CRC-32C (package manifest)
//
// Parity is calculated over what is stored. So a lost fragment is made again without
// the key, and bit for bit as it was. A block is stored as one of three kinds:
//
//	0 zero        all its plain bytes are zero: it takes no room
//	1 raw         as it is
//	2 compressed  it saves at least 1/16 of it; the encoder asks for 1/8
//
// # Table
//
// A chunk of raw blocks only is dense: the place of each block follows from its
// number, so there is no table, and the manifest says so. Any other chunk has a
// table at the end of its stored bytes, little-endian:
//
//	offset size field
//	 0      4n  for each block: bits 0-23 its stored length with its seal,
//	            bits 24-31 its kind
//	 4n     4   CRC-32C of 8 bytes of seed and the entries; the seed is that of
//	            package manifest with fragment 0xfffffffe
//
// If there is a cipher, the table is sealed like a block. The table of a chunk of
// 16 MiB has 2 KiB. A reader gets it with one read of 4 KiB or 8 KiB, and keeps it.
//
// # Sealing
//
// Cipher 1 is AES-256-GCM, whose tag of 16 bytes follows the ciphertext. The
// key is the object's own: HKDF-SHA-256 of the master key with the object id
// as salt and "openvstorage object 1" as info. The nonce is
//
//	offset size field (big-endian)
//	 0      4   chunk
//	 4      4   block; 0xffffffff for the table
//	 8      4   zero
//
// A nonce never repeats under one key: an object id is used for one attempt to
// upload, and each block is sealed once in that attempt. The additional data are
//
//	offset size field (big-endian)
//	 0      8   namespace
//	 8     16   object id
//	24      4   chunk
//	28      4   block
//	32      4   plain bytes of the block
//	36      1   kind of the block; 3 for the table
//
// # Errors and ownership
//
// If stored bytes have changed, the error is backend.ErrCorrupt: wrong bytes are
// never returned. Slices that are passed in stay the caller's. An Encoder or Opener
// holds scratch memory and is for one goroutine at a time. In the steady state
// nothing is allocated per block.
package object
