// Package asd is the store of one disk daemon (ASD): fragments under keys, in
// one directory, which should be a disk of its own. It implements osd.OSD in
// this process.
//
// Values are appended to segment files. Many Applys share one write and one
// sync: that is a batch. An index in memory says where the newest value of each
// key is. The segments are the truth: the index can always be rebuilt from them,
// and a checkpoint file only makes starting cheap. Deletes and overwrites leave
// dead space, which compaction gives back.
//
// # Parts
//
// An ASD ties parts together, each with fields of its own:
//
//	directory    the files: opens them within the bound on descriptors
//	health       whether the ASD is closed, and why it takes no writes
//	ownership    the identity and the claim
//	inspection   whether the disk is still what was opened
//	contents     the index and the segments
//	reader       reads and checks values
//	writer       queues requests, decides which may be applied, answers
//	appender     the segment that is written to, and the next seq
//	space        how much is used, and how much may be
//	spares       files that wait to be segments again
//	reserve      room for deletes on a full disk
//	checkpoints  the file index
//	compactor    copies what lives out of segments that are mostly dead
//	upkeep       the goroutine that has all that done
//	recovery     all that happens in Open
//
// # Directory
//
// A directory holds
//
//	identity               which ASD it is, and whose
//	claim                  newest generation of its backend that the ASD has seen
//	lock                   held by the process that has the ASD open
//	0000000000000001.seg   segments, by number (16 hex digits)
//	index                  newest checkpoint of the index
//	reserve                room that deletes may take when the disk is full
//	spare-*                former segments, kept to become segments again
//	accept-unreadable      made by an operator: see Errors
//	new, *.new             files that do not have their name yet
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
// Large values begin on a block. So they are written from the caller's memory
// past the page cache, and a 4 KiB read touches one block. The prefix follows;
// all numbers here and below are little-endian:
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
// The CRCs of a value come from whoever wrote it (osd.BlockCRC), and the seed
// too. The ASD stores the seed, so that it can check the value by itself. The
// bytes between the end of a large value and the end of its block are zeros, and
// nobody checks them.
//
// A record of kind 2 is a mark. It has no body and a block of its own. It is
// written behind a batch when the sync of that batch has returned: its durable is
// the seq of the batch. The mark itself is not synced, and the next batch takes
// its place.
//
// A record of any other kind is from a newer release. Its flags say whether it may
// be skipped. Such a record begins and ends on a block and has the seq of the batch
// that follows; its durable counts; compaction drops it with its segment. If it may
// not be skipped, Open refuses the ASD (format.ErrNewer) and compaction leaves the
// segment. The same holds for an entry with an operation that this release does not
// know, or with a byte set that is zero today.
//
// # Restart
//
// Seqs rise by one from batch to batch. Each start begins a new segment, and so
// does each failed write (rules O11, P6). A segment ends where the first seq of the
// next one is, whatever else it holds. A segment gets its name when its first batch
// is synced.
//
// It is not known whether the medium has the batches above the highest durable
// mark. Recovery checks them whole, up to the first bad one, and writes them again
// to the new segment before anything else. A sync of the old file would not do: a
// sync that follows a failed one succeeds without having written anything. If the
// batches cannot be written again, the ASD takes no writes and serves them from
// where they are.
//
// Bad bytes at or below the mark are damage. Recovery reports it, loses the entries
// that it hits, and goes on at the next block on which a batch of that file begins.
//
// # Errors
//
// Only bytes that were read and are wrong are damage. An errno is not.
//
// If the medium does not give a range (EIO), it is asked again for each block of
// 4096 bytes in it. Reading an unreadable value returns osd.ErrUnreadable. Its
// segment stays as long as the value lives. A segment with deletes that cannot be
// read stays as long as the deletes may be needed.
//
// If recovery cannot read bytes that may hold batches, the ASD takes no writes: no
// seq is used again, no checkpoint covers those batches, nothing is compacted. What
// was read is served; any other key is osd.ErrUnreadable. The next Open tries again.
// If that does not help, an operator makes the file accept-unreadable in the
// directory. The next Open then counts the bytes as damage, goes on without them,
// and removes the file. Two things can be done without: a checkpoint, and a segment's
// header that a checkpoint knows. A disk with more than 64 unreadable blocks is
// refused.
//
// Any other errno says nothing about the disk. Open fails with the file and the
// error, changes nothing, and may be repeated (Passes). A call fails. Compaction of
// that segment ends and begins anew later.
//
// The ASD becomes read-only when a sync of a file or of the directory fails, when
// its directory leads elsewhere, when its file system takes no writes, and when the
// claim cannot be written. After any other failed write of a batch it goes on in
// another segment.
//
// # Open files
//
// Descriptors bounds how many segments are open for reading. If the process has too
// many files open, the ASD closes some that nobody reads and waits up to two seconds
// before it fails a call.
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
// The index changes while it is copied, so a checkpoint may hold entries of batches
// above its seq. Recovery applies those batches again, which sets all entries right.
//
// # Claim
//
// The file claim: two blocks of 4096 bytes, written in turn. Each is the common
// header (kind 15, owner the ASD, number the turn, incarnation zero), then
//
//	offset size field
//	64     16   generation: its number u64, what its start drew u64
//	80      4   CRC-32C of bytes 64..79, seeded with the incarnation
//	84    4012  zero
//
// The block with the higher turn counts. An ASD without the file has seen no
// generation. A backend that is older than what its ASDs have seen is a copy: it
// neither writes to them nor deletes anything. The backend decides that, not the ASD.
//
// # Identity
//
// The file identity: the common header (kind 11, version 2, owner the ASD), then
//
//	offset size field
//	 64     16   backend that claimed the ASD, zero: none
//	 80      8   life of that backend, zero: it was never recovered
//	 88      8   newest generation in the claim when the identity was written
//	 96      2   length of the node's name, n
//	 98      n   node (at most 255 bytes)
//	  ..     4   CRC-32C of all from 64 on, seeded with the incarnation
//
// Version 1 has neither life nor generation: the length is at 80. Open rewrites it as
// version 2. A rewrite replaces the whole file and would drop what this release does
// not know, so Open refuses a file with anything unknown in it.
package asd
