// Package groups holds the Arakoon groups of a data directory, one member of
// each, and decides two things that no group can decide for itself.
//
// # Whether a group may be made
//
// An empty group and a lost one look the same. So a group is made once, and what
// says that it was made lies outside of it (rule P8): the record of the data
// directory, and a key in each of the other groups. It is made only if neither
// knows of it and nothing in the directory stands on it yet. The record is written
// before anything is answered by the group, the keys with the next claim.
//
// A directory of a release that kept no such records gets them at its first
// start. One that misses a group then is refused if it holds anything that is made
// only after that group.
//
// # How old a directory and its groups are
//
// Every start claims the next generation (package generation), and Beat claims one
// from time to time while something changes. The order is:
//
//	1  the record: generation n is claimed
//	2  each group: a key says n
//	3  the record: n is settled
//	4  the disks of the backend, by whoever uses this package
//
// A cut after 1 or 2 leaves groups behind the claim and none behind what is
// settled; the next start claims n+1. So a group that is older than what is
// settled was put back from a copy, one that is newer than what is claimed says
// that the record, or the whole directory, was. Either is refused by name. A disk
// that is older was away, and is taken.
//
// What lies outside of the groups can be put back from a copy as well, alone: one
// disk, the files of one vDisk. A Witness has a group remember with each claim how
// far such a thing had got.
package groups
