// Package crashdisk is the crash model: a disk.FS in memory that knows, for
// every sector and every name, what a power cut at this instant may leave.
//
// Of each file the model tracks the content by sectors of 512 bytes. A sector has
// the version of the last sync and every version written since (the model keeps the
// synced one and the newest 15). Datasync and Sync leave only the newest version of
// each sector and the newest size. After a power cut each sector holds any one of its
// versions, whatever its neighbours hold; the size is any one since the last sync. A
// shrinking Truncate is a barrier. If the power cut keeps it, nothing older shows
// behind the new size; if the power cut loses it, nothing newer shows there.
//
// Of each directory the model tracks the names. SyncDir makes them durable. Before
// that, creates, removes, links and renames are pending, and a power cut keeps the
// first few of them, in order. A rename between directories is kept in both or in
// neither. A sync of a file does not make its name durable, and a durable name says
// nothing about the file's content.
//
// After SyncFailed (a failed fsync, as package faultdisk injects it) the file reads as
// before. But later syncs succeed without making durable what was not synced then,
// until it is written again. Linux does the same.
//
// Crash returns the disk after a power cut, Kill the disk after kill -9. Both are
// atomic snapshots and may be taken while I/O goes on. They leave the original as it
// is, and share its memory until one of them writes.
package crashdisk
