// Package raftlog is a member's raft log: the entries, the hard state and the
// snapshot marker, in preallocated segment files over package disk. It
// implements raft.Storage.
//
// A segment file, named by its number, is the common header (kind 10, owner
// the cluster) and this, in a block of 4096 bytes:
//
//	offset size field
//	64      8   member id
//	72      4   zero
//	76      4   CRC-32C of bytes 64..75, seeded with the incarnation
//	80      8   length of the file in bytes; version 1: zero
//	88      4   CRC-32C of bytes 64..87, seeded with the incarnation; version 1: zero
//	92      4   zero
//	96      8   life of the group, raised by each recovery; versions 1 and 2: zero
//	104     8   newest generation of the host that the member was told of when it
//	            opened the log; versions 1 and 2: zero
//	112     4   CRC-32C of bytes 64..111, seeded with the incarnation; versions 1
//	            and 2: zero
//	116   3980  zero
//
// and then records as package wal frames them. The seqs of a segment's
// records have no gaps. What one sync makes durable is a round. A round begins on a block
// (behind the mark, see below) and is filled up with zeros to the end of its last block,
// so a synced block is never written again. After each sync a mark is written, and not
// synced, at the start of the next round's block; its durable says what was synced. A
// segment's first round begins with a mark too: the body says how many records the round
// has, and durable is that of the segment before.
//
// Bodies of records, little-endian:
//
//	kind 1, entries         first index u64, number of entries u32, zero u32;
//	                        for each: term u64, length u32, type u16, zero u16, data
//	kind 2, hard state      term u64, vote u64, commit u64
//	kind 3, snapshot marker index u64, term u64, flags u32 (1 auto leave, 2 the
//	                        log begins anew), then four lists: voters,
//	                        learners, outgoing voters, next learners, each
//	                        its length u32 and members u64
//	kind 4, mark            nothing; the first of a segment: records of its first
//	                        round, itself among them, u32
//
// A new entry replaces the entry of the same index, and all entries behind that one.
// Entries up to the newest marker's index are gone; the marker keeps the term and the
// members of that index. A marker with flag 2 is in the first round of a segment. It
// replaces the whole log, also the entries behind its index: they are of a past that the
// group did not choose. Segments before that one are of no use, and may still be there
// after a power cut.
//
// A segment gets its name when its first round (marker and hard state) is synced. Each
// opening of the log begins a new segment, because nothing is appended to a file whose
// content on the medium is not known (rules O11, P6). Its first round also repeats all
// records above the highest durable mark. A segment ends at the first seq of the next
// one, whatever lies behind that in its file.
//
// A record whose CRCs are right and that this release cannot read (another kind
// without the flag that it may be skipped, a flag, a type of entry, bytes where there
// are zeros or nothing today) is of a newer release: Open refuses with
// format.ErrNewer, wherever it lies, and cuts nothing.
//
// Bad bytes at or below the highest durable mark are damage: Open refuses with
// ErrDamaged, the file and the offset. Above it the log is cut (rule O2).
//
// A log that was cut short looks whole, so the log is never the only witness of its own
// length (rule P8). A segment's header says how long the file is. A file outside of the
// directory, Options.Marks, says which segment is the newest and how far it is durable;
// its table is in marks.go. Open makes a log only if its caller passes Begin, and so says
// that there never was one.
package raftlog
