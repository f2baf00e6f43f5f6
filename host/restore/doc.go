// Package restore makes the groups of a data directory anew from a backup of all of them,
// taken at one instant (`ovs backup metadata`). It is the way back that rule P8 leaves to a
// person when DIR/arakoon is lost: nothing else makes a group in the place of one that was.
//
// # What is kept apart
//
// The groups come back as they were. The disks, the files of vDisks and other hosts did not
// stand still meanwhile. So whatever gives out names begins far behind what the backup knows,
// and nothing is given out twice:
//
//	life of each group          above all that the backup, the roster and the directory have seen
//	revisions, fences           arakoon.Restore
//	numbers of members          roster.Restored
//	epochs of vDisks            registry.Restored
//	OSDs, namespaces            abm.Restored
//	gc epochs, object versions  nsm.Restored
//	generation                  above all that a disk can have seen
//
// The generation says to all disks that this is the line that goes on. The directory that was
// lost is refused from then on if it turns up, as an older copy.
//
// Deletion on disks is suspended, durably, before there is a group: a disk may have fragments
// that the restored managers do not know. `ovs alba backend check` and `resume-deletion` end
// that.
//
// # vDisks
//
// What a vDisk's local files in DIR/buffer have beyond its restored catalog is taken if it
// follows without a gap, and verifies; then nothing of it is lost. If something between is
// missing, the vDisk is halted, and says so. Options.WithoutBuffer puts the local files aside,
// and each vDisk goes on with what was in the backend when the backup was taken.
//
// # The order of durable steps
//
//  1. Every backup is read to its end and checked. Nothing was changed so far.
//  2. The directory is claimed; a new one gets a record that says which groups were made.
//  3. The groups are made in DIR/arakoon.restoring.
//  4. What the lost groups have left, and what is of no use without them, is put aside; the
//     roster is written, and where vDisks go on without local files, a file that says so.
//  5. The record of the directory: deletion suspended, life, generation.
//  6. DIR/arakoon.restoring gets the name DIR/arakoon.
//
// A start that finds the directory between 2 and 6 is refused: the record names groups, and
// none is there. Then the restore is run again, and begins anew.
package restore
