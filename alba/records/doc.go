// Package records is the recovery records: what lies on the disks beside fragments, so that
// an NSM host that is lost with all its members can be rebuilt from the disks alone (package
// rebuild).
//
// A fragment and its record are written by one Apply: a disk has both or neither, and the
// record takes no sync of its own. It holds what the manifest says of the object and of the
// chunk, the CRCs of all the chunk's fragments among that, and no places: a fragment is where
// it is found.
//
// The version of an object is given by the NSM when the object is put, after its fragments
// were written. So the record of an upload says only which version the object has at least
// (Exact is false); that of a repair says which one.
//
// An inline object has no fragments. Its record is the manifest whole, on m+1 disks, under
// a key that is made of its name: each version is written over the one before, and
// only over an older one, as the OSD keeps the version as the value's epoch (osd.NotNewer). The
// record is written behind the put, by the client, within a second. What the NSM has of
// the object is the durable intention: maintenance compares, and writes what a client that died
// did not. So an object's record may be older than the object until then, never newer.
//
// The encoding, numbers little-endian, CRC-32C over all before it at the end:
//
//	0    u8   format, 1
//	1    u8   flags: 1 exact, 2 inline, 4 dense
//	2    u8   length of the namespace's name
//	3    u8   length of the object's name; inline 0
//	4    u64  version
//	12   32   hash that the NSM compares puts by
//	44   ...  inline: the namespace's name, then the encoded manifest
//
//	44   u8 k, m, c, x, code, compression, cipher, checksum, block log2, 0
//	54   u16  chunks of the object
//	56   u32  chunk
//	60   u64  key, 68 namespace
//	76   16   object id
//	92   u64  size, 100 time, 108 gc epoch
//	116  u32  plain bytes of the chunk, 120 stored bytes
//	124  ...  CRC of each fragment, u32 each; the namespace's name, the object's name
//
// With a vDisk's names, and 4+2, the record has 268 bytes at most; with names of 255 bytes
// and 64 fragments 894 (Max). Records lie in the head of a batch, with no block of their own.
package records
