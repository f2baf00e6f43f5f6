// Package tlog is the transaction log: it records, in the order of seq, the location of
// each address that was written. The package holds the names and the format of entries and files; it has no
// policy and touches no disk and no network.
package tlog
