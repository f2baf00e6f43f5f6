// Package volumedriver is the life of vDisks: write, read, flush, trim, snapshot, clone,
// rollback, restart and upload. A Host has all vDisks of one data directory. A Volume is
// one of them, and is made of parts that have their own state and lock: Device and reader
// serve requests, ownedCatalog and snapshotTree know what there is, users who uses it,
// storer, checkpointer and garbageCollector work for the backend.
package volumedriver
