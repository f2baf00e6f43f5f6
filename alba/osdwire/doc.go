// Package osdwire is an OSD behind a connection: [Server] answers for the OSDs of a process, and
// [Client] is an [osd.OSD] that asks one of them, over internal/wire. It passes the suite of
// package osdtest as the OSD behind it does.
//
// # What is promised
//
//   - A connection is to one OSD, by its UUID: the preface names it as its group. A process that
//     does not have it refuses the connection by name.
//   - What a call may return is what package osd says: each of its errors matches the same
//     sentinel on this side, and its words come along. All else is transient:
//     osd.ErrUnreachable and osd.ErrBusy say that the request did not begin, osd.ErrCut and any
//     other error that an Apply may have taken effect.
//     An Apply may be repeated either way.
//   - A call ends when its context does. An Apply waits besides until the connection has let go
//     of the caller's memory, which a peer that takes nothing can delay for wire.Limits.Stall.
//   - An Apply or a Read is one request of up to 32 MiB. What is longer is put together at the
//     server first, or cut up there, out of one read of the OSD: so it is as whole as a short
//     one. The memory for that is bounded by [ServerOptions].Held, and for one host by Each.
//
// # Bytes
//
// All numbers are little-endian. A key is u16 its length, then its bytes.
//
//	operation  header                          body
//	1 apply    u64 held                        apply, below; empty if held is not 0
//	2 read     u32 off, u32 n, key             -
//	3 stat     u32 count                       count times: key
//	4 range    u32 limit, u8 1 if it has an    -
//	           end, first as a key, end as a key
//	5 verify   u32 limit, after as a key (of length 0: from the beginning)
//	6 usage    -                               -
//	7 hold     u64 held, u32 size, u32 at      bytes of an apply, from at
//	8 fetch    u64 held, u32 off, u32 n, key,  -
//	           u32 from, u32 part
//
// The header of an apply or a fetch names what is held by a number, used once in a connection.
// A fetch of the first part reads all n bytes from off; the server holds what it read until the
// last part was fetched.
//
//	apply: u32 asserts, u32 updates
//	  assert: u8 kind, u64 epoch, key, u32 length of the value, the value
//	  update: u8 1 for a delete, else 0; u64 epoch, u64 seed, key, u32 length of the value,
//	          u32 number of checksums, the checksums of 4 bytes
//	  then the values of all updates, one after the other
//
// Answers with status 0:
//
//	read, fetch       header: -   body: the checksums of 4 bytes, then the bytes; of a fetch
//	                  that part of both together
//	stat, range       header: u32 count   body: count times: u8 1 if found, u32 size, u64 epoch, key
//	verify            header: u32 count, u8 1 if there is a next one, the next key
//	                  body: count times: key, error
//	usage             header: u64 used, capacity, room, shared, keys, absent, u8 1 if full,
//	                  error that it is read-only for, error that opening would meet
//	apply, hold       -
//
// An error is u16 kind, u16 length, so many bytes of words. Its kinds are the statuses of failed
// answers, 0 for none; the header of a failed answer is the words, for an assert preceded by its
// key:
//
//	256 other           260 unreadable    264 closed
//	257 not found       261 full          265 the request's time has passed
//	258 assert          262 read-only     266 nothing of that number is held
//	259 corrupt         263 invalid       267 busy: no memory to hold it, come again
//	268 not reached     269 connection lost: of an OSD that is behind another connection
package osdwire
