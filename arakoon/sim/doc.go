// Package sim runs whole Arakoon groups in one process, under faults, and judges what
// their clients saw. It is all tests; the product does not import it.
//
// A history is one run of a group. Its seed gives the plan: how many members there are,
// how the disks and the network behave, and a list of faults with the time of each. It
// runs in a bubble of testing/synctest, so the clocks of all members are fake, and a
// minute costs a fraction of a second.
//
//   - The network implements arakoon.Transport. It loses, delays, reorders and doubles
//     messages, and it is cut in one direction or in both.
//   - Each member has a disk of package crashdisk below one of package faultdisk. At any
//     operation of the disk its power can be cut: what was not synced is kept, lost or
//     torn then.
//   - A member can be killed, paused as by SIGSTOP, closed, wiped and replaced; its
//     disk can run full, be slow or fail a sync; its clock can jump. The group grows,
//     shrinks and gives the lead away meanwhile.
//
// A watch reads every message at its sender. It holds that a term has one leader, that a
// member votes once in a term, and that a restarted member has what it had acknowledged.
// At the end all is healed: the group must make progress, and all members must have the
// same content at the same index. Then porcupine judges whether what clients saw is
// linearizable.
//
// The same seed gives the same plan, and nearly the same run: the scheduler of Go still
// chooses between goroutines that can run. So a seed that failed is tried several times:
//
//	go test ./arakoon/sim -run TestHistories -sim.seed N
//
// With -sim.shrink the test then leaves out faults, as long as the history fails still.
package sim
