// Package maintenance keeps an ALBA backend as it should be:
//
//	messages    are carried from the ABM to the NSM hosts
//	cleanup     takes the objects out of namespaces that were deleted
//	deletion    takes fragments off their disks that no object names any more
//	repair      makes fragments again that are bad, absent, or on a disk that is
//	            lost or on its way out, those first whose objects may lose the least
//	moves       brings fragments to emptier disks, and to other nodes and zones
//	collection  deletes the fragments of uploads that never committed
//	scrub       reads every fragment back, in rounds of a set time; how far it is
//	            outlives the process
//	unread      makes reads again that failed for good, so that people are shown
//	            what a read would get now
//
// Each of these is a type with its own state; Maintenance ties them and runs them.
//
// Repair, moves and scrub go by one limit of bytes, which gives way to clients (package
// pace). Agents with a name (Options.Agent) share repair and moves, each piece of them being one
// agent's (package share).
//
// Several processes may do all of it at once, and it may be stopped anywhere and begun
// again: every change is a call to a manager that is fenced by epoch and revision, and a
// fragment is deleted only after no manifest can name it again (rule O7).
package maintenance
