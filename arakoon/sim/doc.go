// Package sim runs whole Arakoon groups in one process, under faults, and judges what
// their clients saw. It is all tests; the product does not import it.
//
// A history is one run of a group. Its seed gives the plan: how many members there are,
// how the disks and the network behave, and a list of faults with the time of each. It
// runs in a bubble of testing/synctest, so the clocks of all members are fake, and a
// minute costs a fraction of a second.
//
//   - The network implements arakoon.Transport. It loses, delays, reorders and doubles
//     messages, brings some once more seconds later, maybe to the next life of a member,
//     and is cut in one direction or in both. Snapshots are fetched over it too.
//   - Each member has a disk of package crashdisk below one of package faultdisk. At any
//     operation of the disk its power can be cut: what was not synced is kept, lost or
//     torn then.
//   - A member can be killed, paused as by SIGSTOP, closed, wiped and replaced; its
//     disk can run full, be slow, stall or fail a sync; its clock can jump. A zone can die.
//     The group grows, shrinks, between one member and five, and gives the lead away
//     meanwhile; who was removed is often destroyed at once.
//   - A quarter of the groups begin with members of an older release. They are upgraded one by
//     one meanwhile, and then the group is raised to the newest level.
//   - Clients read, write, and repeat the writes of sessions, some of which were answered
//     before or come twice. They read at a revision, and what one member has with the time
//     as of which it has everything: what was answered before must be there. Holders want one lease, and write under its fence though they
//     may have lost it. Watchers build a map of events, at one member after another.
//
// A watch reads every message at its sender. It holds that a term has one leader, that a
// member votes once in a term, itself among them, and that a restarted member has what it
// had acknowledged. At the end all is healed: the group must make progress, all members
// must have the same content and the same hash at the same index, and so must the watchers,
// who were told of each write. A lease had one owner at a time, for its time to live, and
// no write passed under an older fence than one before it. Then porcupine judges whether
// what clients saw is linearizable.
//
// The scenarios that the original's tests were made of are tests of their own.
//
// The same seed gives the same plan, and nearly the same run: the scheduler of Go still
// chooses between goroutines that can run. So a seed that failed is tried several times:
//
//	go test ./arakoon/sim -run TestHistories -sim.seed N
//
// With -sim.shrink the test then leaves out faults, as long as the history fails still.
package sim
