// Package metadata is the map of one vDisk, from cluster address to sco.Location. Beside it
// there is a count of live clusters for every SCO that the vDisk itself has written.
//
// Both are persistent (copy-on-write) radix trees of 4 KiB pages with 512 eight-byte words.
// Pages at level 0 hold the words themselves; pages above hold references to the 512 pages
// below. Each page has a birth generation, that of the head when the page was made. The page
// may be changed in place only while the head still has that generation. Snapshot, Freeze and
// Rollback pin or replace a root and start a new generation, at the same cost for any size of
// vDisk. A page of an older generation is copied under a new number when it is changed, and
// so is the path up to the root.
//
// Reading what is in memory takes no lock: a few atomic loads from the root down. A page that
// was replaced stays as it was for its readers, and Go's garbage collector frees it when
// there are none. The Map makes one change at a time.
//
// # What must hold
//
//	M1  A page is unsaved while no store holds its present content, and so is every
//	    page that refers to it. Only saved pages leave memory, children before
//	    parents, so every reference leads to a page in memory or in the store.
//	M2  A page that a frozen root or a snapshot reaches never changes.
//	M3  A page of the head's generation has exactly one parent, which is of that
//	    generation too.
//	M4  Page numbers only grow; a page of an ancestor never refers to a page
//	    or an SCO of a descendant.
//	M5  A live counter is never less than the truth, except while a recount runs;
//	    then no SCO is reported as dead.
//
// Rule O4 is kept by construction. A checkpoint holds the state that Freeze pinned: every
// change up to its seq and none after it. The caller puts it in the catalog only when the
// TLogs up to that seq are there. Pages that leave memory between checkpoints are saved under
// numbers from the checkpoint's NextPage on. They belong to no checkpoint: Open deletes them,
// and replay makes them again. So after a crash no page is seen with a seq that the logs do
// not cover.
package metadata
