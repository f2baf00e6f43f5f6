// Package crashdisk is the crash model: a disk.FS in memory that knows, for
// every sector and every name, what a power cut at this instant may leave.
//
// The model, per file: content is tracked by sectors of 512 bytes. A sector
// has the version of the last sync and every version written since (the model
// keeps the synced one and the newest 15). Datasync and Sync make the newest
// version of every sector and the size the only ones. After a power cut each
// sector holds any one of its versions, whatever its neighbours hold; the size
// is likewise any one since the last sync. A shrinking Truncate is a barrier:
// if the cut keeps it, nothing older than it shows where it cut, and if the
// cut loses it, nothing newer does.
//
// Per directory: SyncDir makes its names durable. Before that, creates,
// removes, links and renames are pending, and a power cut keeps a prefix of
// them in order. A rename between directories is kept in both or in none. A
// file's own sync does not make its name durable; a durable name says nothing
// about the file's content.
//
// After SyncFailed (a failed fsync, as package faultdisk injects it) the file
// reads as before, but what was not synced is on no list any more: later syncs
// succeed without making it durable, until it is written again. This is what
// Linux does.
//
// Crash yields the disk after a power cut, Kill the disk after kill -9. Both
// are atomic snapshots, may be taken while I/O goes on, and leave the original
// as it is; they share its memory until one of them writes.
package crashdisk
