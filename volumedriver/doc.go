// Package volumedriver implements the life of vDisks: write, read, flush, trim, snapshot,
// clone, rollback, restart and upload. A Host holds the many volumes of one data
// directory. A Volume is one of them; its parts have their own state and lock: Device and
// reader serve requests, ownedCatalog and snapshotTree know what there is, users who uses
// it, storer, checkpointer and garbageCollector bring it to the backend.
package volumedriver
