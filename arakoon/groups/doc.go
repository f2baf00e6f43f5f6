// Package groups holds the Arakoon groups of a data directory, one member of
// each, and decides two things that no group can decide for itself.
//
// # Whether a group may be made
//
// A group that was never made and one that was lost look the same. So a group is made
// once, and the evidence that it was made lies outside of it (rule P8): in the record of
// the data directory, and in a key of each of the other groups. A group is made only if
// none of these knows of it, and the directory holds nothing that is made only after it.
// The record is written before the group answers anything, the keys with the next claim.
//
// A directory of a release that kept no such evidence gets it at its first start under
// this one. If a group is missing at that start, and the directory holds something that is
// made only after that group, the directory is refused.
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
// If the process ends after step 1 or 2, some groups are older than the claimed generation,
// but none is older than the settled one; the next start claims n+1. So if a group is older
// than the settled generation, the group was put back from a copy. If it is newer than the
// claimed one, the record was, or the whole directory. Both are refused by name. A disk may
// be older: it was away, and is accepted.
//
// Files outside of the groups can be put back from a copy alone, too: one disk, or the
// files of one vDisk. A Witness has a group remember, with each claim, how far such a part
// had got.
package groups
