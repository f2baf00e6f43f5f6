// Package metadata is the map of one vDisk: cluster address to sco.Location,
// and beside it the count of live clusters of every SCO of the vDisk's own.
//
// Both are persistent (copy-on-write) radix trees of 4 KiB pages with 512
// eight-byte words. Pages at level 0 hold the words themselves; pages above
// hold references to the 512 pages below. A page may be changed in place only
// while its birth generation is the head's generation; Snapshot, Freeze and
// Rollback pin or replace a root and start a new generation, whatever the
// size of the vDisk. A changed page of an older generation is copied under a
// new number, and with it the path up to the root.
//
// Reading takes no lock: a few atomic loads from the root down. A page that
// was replaced stays what it was for whoever still reads it, and the garbage
// collector takes it when nobody does. Writers are serialized by the Map.
//
// # What must hold
//
//	M1  A page that no store holds in its present form is unsaved, and so is
//	    every page that refers to it. Only saved pages leave memory, children
//	    before parents, so a reference that is followed always finds its page.
//	M2  A page that a frozen root or a snapshot reaches never changes.
//	M3  A page of the head's generation has exactly one parent, of the same
//	    generation.
//	M4  Page numbers only grow; a page of an ancestor never refers to a page
//	    or an SCO of a descendant.
//	M5  Live counters are never less than the truth, except while a recount
//	    runs, when no counter is reported as dead.
//
// Rule O4 is kept by construction. What a checkpoint holds is what Freeze
// pinned, every change up to its seq and none after it, and the caller puts
// it in the catalog only when the TLogs up to that seq are there. Pages that
// leave memory between checkpoints are saved under numbers from the
// checkpoint's NextPage on; they belong to no checkpoint, Open deletes them,
// and replay makes them again. So no page can ever be seen after a crash
// whose newest seq the logs do not cover.
package metadata
