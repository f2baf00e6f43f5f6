// Package tlog is the transaction log: which seq put which address where. The
// package holds the names and the format of entries and files; it has no
// policy and touches no disk and no network.
package tlog
