// Package roster is the list of a cluster's Arakoon groups: which members each has, on
// which hosts they are, and how those hosts are reached.
//
// The truth about who votes in a group is the group's own configuration. The roster says
// where to find whoever that configuration names. It is kept in the config group, one key
// for each host and each group, and in a file on every host (File). The file is how a host
// finds the config group after a start, when it cannot ask the config group. So it is
// written whenever the host has seen a newer roster, and an old one is still of use: one
// address that holds leads to all others.
//
// Member numbers are used once in the life of a group. Group.Next is the first that was never
// given away, and it is raised, durably, before a number is used.
package roster
