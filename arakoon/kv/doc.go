// Package kv is the service "ovs-kv": a group's keys for whoever is not in the process of
// a member. Server answers over internal/wire; package kvclient asks. One service serves
// all groups of a process; the preface of a connection names the group.
//
// # Bytes
//
// Numbers are little-endian. A byte string is its length (u32) and bytes; an optional one
// has a byte before it, 1 if it is there. Every header begins with its version, 1.
// Operations are numbered in op.go, statuses in status.go; neither number ever changes.
// All lengths are checked before memory is taken.
//
// The head of a request that reads:
//
//	offset size field
//	 0      1   version, 1
//	 1      1   consistency: 0 consistent, 1 local, 2 at least
//	 2      2   zero
//	 4      8   revision that must be seen, of "at least"; otherwise zero
//	12          fields of the operation:
//	            get, get-local, exists, exists-local: the key, up to the end
//	            multi-get, multi-get-local: number of keys u32; the body has the keys
//	            range, range-local: flags u8 (1 descending, 2 keys only), limit u32 (0: none),
//	            bytes of the answer u32 (0: the server's default), first, last (optional)
//	            count, count-local: first, last (optional)
//	            settle: none
//
// and of its answer:
//
//	 0      1   version, 1
//	 1      1   flags: 1 the age is known, 2 there is more, 4 the key exists
//	 2      2   zero
//	 4      4   age in milliseconds, see Answer
//	 8      8   revision up to which the member had applied, at least, when it read; if there
//	            is more, one that holds all that this answer has seen, for the next request
//	16          of count: the number u64, and where to go on, up to the end
//
// The body of get's answer is the value; of multi-get's an optional byte string for each
// key; of range's the keys, each followed by its value unless only keys were asked for.
//
// A watch:
//
//	 0      1   version, 1
//	 1      3   zero
//	 4      8   revision to begin at, 0 for the next one
//	12      4   milliseconds to wait for events, up to WatchMax seconds
//	16      4   about how many bytes are wanted at once, up to PageMax; 0: PageSize
//	20          prefix
//
// Its answer is that of a write, with the revision to go on at. The body has the events: of
// each revision its number u64, how many events u32, and of each a byte that is 1 if the key
// is gone, the key, and the value.
//
// A write:
//
//	 0      1   version, 1
//	 1      3   zero
//	 4     16   session, zero for none
//	20      8   number of the request in the session, zero for none
//
// Its body is a sequence, as package state encodes steps. The answer:
//
//	0      1   version, 1
//	1      3   zero
//	4      8   revision
//
// and its body the results, as package state encodes those. To open a session is a header
// of its version alone; the answer is that of a write, with the session (16 bytes) behind.
//
// A transfer of the lead is a header of version u8, zero u8[3], and the member u64, 0 for the
// best other one; the answer is that of a write.
//
// A hash is asked with a header of version u8, zero u8[3], and the revision u64, which the
// master has had all members hash; the answer is that of a write, with the SHA-256 (32 bytes)
// behind.
//
// The level is asked with the version alone. The answer is a header of version u8, zero u8[3],
// the level of the group u32, as the member has applied it, and the newest level that the
// member's release knows u32. To raise the group is a header of version u8, zero u8[3], and the
// level u32; the answer is that of a write.
//
// A change of the members is a header of version u8, zero u8[3], and the voters and the
// learners that are wanted, each list its number u32 and ids u64; the answer is that of a
// write, when the change is done.
//
// Status and statistics are asked with the version alone. Their answers are at Status and
// Statistics.
//
// A failure, which every status from wire.StatusService on has for its header:
//
//	 0      1   version, 1
//	 1      3   zero
//	 4      8   number: of NOT_MASTER the member that leads, 0 if none is known; of
//	            COMPACTED the first revision that a watch may begin at
//	12      4   code, of a step that failed: that of state.Error; of LEVEL the one needed
//	16      4   step, or the version of a function; of LEVEL the group's
//	20          key, or the name of a function
//	            words, up to the end
package kv
