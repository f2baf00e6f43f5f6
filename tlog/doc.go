// Package tlog is the transaction log: at which seq which address came to which
// location. The
// package holds the names and the format of entries and files; it has no
// policy and touches no disk and no network.
package tlog
