// Package roster says of each host of a cluster where it is: its addresses, its zone, and
// the newest generation of its data directory. Package trust says who a host is and what
// it may do; this package says where to find it, and which of two copies of its directory
// is the host.
//
// The records are in the config group, one key each, and each host writes its own. Every
// host keeps a copy of all in a file, its Book, as of its last contact: so a host that
// starts finds the cluster without asking anybody.
//
// # Copies of a data directory
//
// A directory counts its generations (package internal/generation), and its newest starts
// are its history. A host announces both when it connects. Register compares them with
// what is on record: a directory that is older than what was seen, or that went on apart
// from it, is refused by name. So of two copies that are started, one is the host, and the
// other is refused.
package roster
