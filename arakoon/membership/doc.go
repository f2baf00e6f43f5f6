// Package membership brings the members of Arakoon groups to the hosts on which package
// placement wants them. One Steward works at a time, which is whoever holds a lease in the
// config group; a second one that believes it does can do no harm, because every step is
// conditional on what it has seen.
//
// # The order of a new member
//
//	1  the roster: the number is given away, and the member is listed on its host
//	2  the group: the number becomes a learner
//	3  the host: it makes the member, which begins with an empty configuration
//	4  the group: when the learner has caught up, one joint change makes it a voter
//
// A number is used once, so step 1 is durable before step 2, and a host makes a member only
// after step 2 (CLUSTER.md, section 5: "under a fresh id that the group has committed").
// Whoever comes after a Steward that stopped anywhere finds one of these:
//
//   - Listed, and not in the group: step 2 never happened, or the member was removed. No host
//     makes it from here on, and it is taken off the roster.
//   - In the group as a learner, on a host that does not have it: step 3 is done again. A host
//     that has had the member, and lost it, refuses: the number is used. Then the number is
//     removed from the group, and a new one begins at step 1.
//
// # The order of a removal
//
//	1  the group: one joint change without the member
//	2  the roster: it is listed no more
//	3  the host: it asks the group whether the number is removed, and only then deletes files
//
// Nothing is deleted because something is missing (rule P8): the group's own record of
// numbers that were removed is what says so.
package membership
