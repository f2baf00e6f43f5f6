// Package cluster runs ALBA's managers on Arakoon: Functions makes user
// functions of Arakoon of theirs, and a Client calls them on a node and reads
// the keys that they keep. The managers themselves (packages abm and nsm) know
// only the interfaces of package userfn.
//
//	node, err := arakoon.Open(arakoon.Options{..., Functions: cluster.Functions(nsm.Functions())})
//	c := cluster.NewClient(node)
//	host := nsm.NewClient(c, c)
//
// A call uses no session. A node answers that the outcome is unknown only when
// the caller's context has ended, or the node has failed, was closed or lost
// the lead: asking that node again says no more, and a session would make
// every call of a client wait for the one before it. Who repeats such a call
// later relies on what package nsm promises: a call that was made before does
// nothing again, because object ids, revisions, epochs and message numbers are
// used once.
package cluster
