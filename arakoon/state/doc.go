// Package state is the state machine of a member: users' keys, the sessions of
// clients, and how far the raft log is applied, in one Pebble without a
// write-ahead log. Each batch of entries is one Pebble batch that holds their
// effects, the applied index and the members together. So a power cut leaves the state
// of some index, and the raft log brings it up to date. The log may be truncated only
// behind what Flush has returned.
//
// An entry of the raft log, little-endian. (A new leader also makes an empty one.)
//
//	offset size field
//	 0      2   version, 1
//	 2      2   zero
//	 4      4   number of commands
//	 8      8   origin: random, drawn by each start of a proposer
//	16      8   batch: the origin's own number for this entry
//	24          commands
//
// A command:
//
//	 0      2   version, 1
//	 2      2   kind: 1 sequence, 2 open session
//	 4      4   length of the body
//	 8     16   session, zero for none
//	24      8   request number in the session, rising from 1
//	32      8   the proposer's time, Unix nanoseconds
//	40          body: of a sequence its steps
//
// A step is its kind (u8) and its fields. A byte string is its length (u32) and
// bytes; an optional one has a byte before it, 1 if it is there.
//
//	1 set            key, value
//	2 delete         key; an error if it is absent
//	3 delete prefix  prefix
//	4 assert         key, optional value: it has this value, or is absent
//	5 assert exists  key
//	6 assert range   prefix, number u32, keys: exactly these have the prefix
//	7 test and set   key, optional expected, optional wanted
//	8 replace        key, optional wanted
//	9 call           name, version u32, argument
//
// and from level 2 of the group on (level.go):
//
//	10 confirm       key, value: set unless it has this value
//	11 acquire       name of a lease, owner 16 bytes, time to live in ms u64
//	12 renew         name, fence u64, time to live in ms u64, 0 as it was
//	13 release       name, fence u64
//	14 assert lease  name, fence u64: it is held under this fence
//	15 expire        name, fence u64, revision of the renewal u64
//	16 raise         nothing, level u32, alone u8: 1, only if the group has one member
//	17 mark          nothing: an image of the state at this index (State's Options.OnMark)
//
// and from level 3 on:
//
//	18 require       nothing, zones that must hold everything u32, asserted u8: 1, a person
//	                 says that the other zones are off. Alone in its entry (zones.go).
//
// Steps 15 to 18 are members' own: no client may send them.
//
// A command is applied whole or not at all. If a step fails, that failure is the
// command's result, and it is the same on every member. If a member cannot do what it
// should (read its disk, run a function that it does not have), that member stops: it
// never skips a command.
//
// Keys in Pebble, numbers big-endian:
//
//	"m"               meta: cluster, member, applied index and term, newest
//	                  time, members
//	"x" + member      a member that was removed: its id is never taken again
//	"s" + session     its last request and that request's result
//	"u" + key         a user's value
//	"l" + name        a lease (lease.go); from level 2 on
//	"z"               how many zones must hold everything (zones.go); from level 3 on
package state
