// Package cluster runs ALBA's managers on Arakoon. Functions turns the functions of a
// manager into user functions of Arakoon. A Client calls them on a node, and reads the
// keys that they keep. The managers themselves (packages abm and nsm) know only the
// interfaces of package userfn.
//
//	node, err := arakoon.Open(arakoon.Options{..., Functions: cluster.Functions(nsm.Functions())})
//	c := cluster.NewClient(node)
//	host := nsm.NewClient(c, c)
//
// A call uses no session. A node answers that the outcome is unknown only when the
// caller's context has ended, or the node has failed, was closed or lost the lead.
// Asking that node again would tell no more, and a session would make every call of a
// client wait for the one before it. Whoever repeats such a call later relies on a promise of package nsm: a call
// that has taken effect has none when it is repeated, because object ids, revisions,
// epochs and message numbers are used once.
package cluster
