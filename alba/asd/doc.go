// Package asd is the store of one disk daemon (ASD): fragments under keys, in
// one directory, which should be a disk of its own. It implements osd.OSD in
// this process.
//
// Values are appended to segment files, many Applys with one write and one
// sync (a batch). An index in memory says where the newest value of each key
// is. The segments are the truth: the index can always be rebuilt from them; a
// checkpoint file only makes starting cheap. Deletes and overwrites leave dead
// space, which compaction gives back.
//
// A directory holds
//
//	identity               who it is
//	claim                  newest generation of its backend that it has seen
//	lock                   held by the process that has the ASD open
//	0000000000000001.seg   segments, by number (16 hex digits)
//	index                  newest checkpoint of the index
//	reserve                room that deletes may take when the disk is full
//	spare-*                what was a segment, kept to be one again
//	accept-unreadable      made by people: see Errors
//	new, *.new             files that have not got their name yet
//
// # Segment
//
// The common header (kind 12, owner the ASD) in a block of 4096 bytes, then
// batches, each beginning on a block. A batch:
//
//	a record as package wal frames it, kind 1: prefix, entries, keys
//	CRC tables of the large values, 4 bytes a block, in order of entry
//	packed values (shorter than a block): CRC u32, data, up to a multiple of 8
//	zeros up to a multiple of 4096
//	large values, each up to a multiple of 4096
//
// Large values begin on a block, so that they are written from the caller's
// memory past the page cache, and a 4 KiB read touches one block. The prefix,
// little-endian, as all that follows:
//
//	offset size field
//	 0      4   length of the batch, with all of the above, in blocks
//	 4      4   entries, n
//	 8      4   where the batch begins in the file, in blocks
//	12      4   CRC-32C of bytes 0..11, seeded with the incarnation
//
// An entry:
//
//	offset size field
//	 0      4   CRC-32C of bytes 4..47 and the key, seeded with the incarnation
//	 4      4   where the key begins in the body
//	 8      1   length of the key
//	 9      1   operation: 1 put, 2 delete
//	10      2   zero
//	12      4   put: size of the value
//	16      4   put: where the value begins in the batch
//	20      4   put: where its CRC table begins in the batch
//	24      4   put: CRC-32C of the CRC table
//	28      4   zero
//	32      8   put: seed of the CRCs; delete: number of the segment that the
//	            delete was first written to
//	40      8   put: gc epoch; delete: zero
//
// The CRCs of values are the writer's (osd.BlockCRC) and so is the seed, so
// that the ASD can check by itself. Bytes behind a large value's end, up to
// its block's, are zeros but not checked.
//
// A record of kind 2 is a mark: no body, in a block of its own, written behind
// a batch when its sync has returned and not synced itself; its durable says
// so. The next batch takes its place.
//
// A record of any other kind is passed over if its flags say that it may be: it
// begins on a block and ends on one, has the seq of the batch that follows, its
// durable counts, and it may be gone when its segment is. One that may not be passed
// over, and an operation or a set byte in an entry that this release does not know,
// are of a newer release: Open refuses (format.ErrNewer), and compaction leaves the
// segment.
//
// # Restart
//
// Seqs rise by one from batch to batch. Each start, and each segment that had
// to be given up, is followed by a new segment (rules O11, P6); where the next
// segment's first seq is, the one before ends, whatever it holds. A segment
// gets its name when its first batch is synced. Batches above the highest
// durable mark are taken up to the first bad one, checked whole, and written
// again to the new segment before anything else: nobody knows whether the
// medium has them. If that cannot be done the ASD takes no writes, and they are
// served from where they are: another sync of that file would tell nothing, as it
// succeeds after one that failed. Bad bytes at or below the mark are damage: it
// is reported, costs the entries that they hit, and nothing else; the scan goes
// on at the next block on which a batch of that file begins.
//
// # Errors
//
// An errno is not damage. Only bytes that were read and are wrong are.
//
// What the medium does not give (EIO) is asked for again in blocks of 4096
// bytes. A value that is unreadable is osd.ErrUnreadable to who reads it, and its
// segment stays as long as it lives. So do deletes that cannot be read while
// compaction may need them. If a restart cannot read what batches may be in, the
// ASD takes no writes: no seq is used again, no checkpoint passes over them,
// nothing is compacted. What was read is served, all else is osd.ErrUnreadable.
// The next Open reads again. Where that does not help, somebody who makes the file
// accept-unreadable in the directory has the next Open go on without what lies
// there; it is damage then, and the file is removed. A header that a checkpoint
// stands in for, and a checkpoint itself, are done without. A disk of which more
// than 64 blocks cannot be read is refused.
//
// Any other errno says nothing about the disk. An Open that meets it is refused,
// with the file and the error, and changes nothing; it may be repeated (Passes).
// A call that meets it fails, and so does compaction, to be begun anew. The ASD
// becomes read-only by a failed sync, of a file or of the directory, and by the
// loss of its directory, and by nothing else: after a failed write it goes on in
// another segment.
//
// # Open files
//
// Segments that are not written to are open as far as Descriptors lets them.
// Where the process has too many files open, the ASD closes some that nobody
// reads, and waits up to two seconds, before it fails a call.
//
// # Checkpoint of the index
//
// The file index: the common header (kind 13, owner the ASD, number the seq
// that it holds all of, incarnation random), then
//
//	offset size field
//	64      4   segments, s
//	68      4   zero
//	72     32s  segments, by number: number u32, bytes of deletes u32,
//	            incarnation u64, end of the batches that are in it u64,
//	            highest segment that a delete was first written to u64
//	..          keys in order: length u8, where the value is (segment u32,
//	            offset of data u32, offset of CRCs u32, size u32, seed u64,
//	            epoch u64), key
//	..      1   zero
//	..      8   keys
//	..      4   CRC-32C of all from 64 on, seeded with the incarnation
//
// It may hold more than it says, as entries are copied while others change:
// replaying the batches behind it sets all of them right.
//
// # Claim
//
// The file claim: two blocks of 4096 bytes, written by turns. Each is the common
// header (kind 15, owner the ASD, number the turn, incarnation zero), then
//
//	offset size field
//	64     16   generation: its number u64, what its start drew u64
//	80      4   CRC-32C of bytes 64..79, seeded with the incarnation
//	84    4012  zero
//
// The block of the higher turn counts. An ASD without the file has seen none. A
// backend that is older than what its ASDs have seen is a copy, and neither
// writes to them nor deletes anything: that decision is the backend's.
//
// # Identity
//
// The file identity: the common header (kind 11, version 2, owner the ASD), then
//
//	offset size field
//	 64     16   backend that claimed the ASD, zero: none
//	 80      8   life of that backend, zero: it was never recovered
//	 88      8   newest generation of it that the claim said when this was written
//	 96      2   length of the node's name, n
//	 98      n   node (at most 255 bytes)
//	  ..     4   CRC-32C of all from 64 on, seeded with the incarnation
//
// Version 1 has no life and no generation: the length is at 80. Open writes it anew
// as version 2. Since the file is written anew as a whole, everything in it that is
// not known is refused.
package asd
