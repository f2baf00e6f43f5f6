// Package rebuild enters in an NSM host what the disks have of a namespace whose own host was
// lost with all its members. It goes by the recovery records (package records).
//
// Run is called for each namespace once the ABM has given it to another host
// (abm.Moves.RecoverNamespace) and that host has learned of it (abm.Client.Carry). It enters
// what it decides (nsm.Moves.ImportChanges), and has the host serve it (nsm.Moves.Activate).
// Whether the recovery is over (abm.Moves.ServeRecovered) is the caller's decision: until then
// nothing of the namespace is collected. If Report.Clean says so, no fragment on the disks is
// one that anybody may miss.
//
// Nothing is ever deleted here, and nothing is guessed (rules P3, P8): an object that has too
// few fragments, or of which it is not certain which version was the newest, is told by name.
// Run can be stopped anywhere and called again: what it enters depends on the disks alone, and
// takes the place of what was entered before.
package rebuild
