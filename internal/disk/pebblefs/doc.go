// Package pebblefs is the disk under Pebble: a vfs.FS over a disk.FS that does
// what Pebble must not be asked to decide.
//
// Pebble ends the process when it cannot write its manifest, and takes a full
// disk as an error like any other. Here every Pebble holds only what logs of
// our own rebuild, with its WAL off, so its disk may stand still:
//
//   - Disk full (ENOSPC, EDQUOT) on a write, a create or a name: the call waits
//     and tries again until there is room. OnFull is told, once a second however many wait.
//     Pebble's own back pressure then makes writers wait.
//   - No descriptor, no memory, no right (disk.Scarce, disk.Denied): nothing was
//     changed, and the call tries again, for 10 s.
//   - Disk full in a sync of a file: what is not durable of it is read back,
//     compared with the sum of what was written, written again, and synced
//     again, until there is room. If it is gone, the store fails.
//   - Any other error of a change, and any other failed sync: what the
//     disk holds is not known any more, so the store has failed. OnFailure is
//     told once, Failed is closed, and this call and every later change park:
//     they neither return nor touch the disk. Reads go on.
//
// Pebble is never shown these errors. The owner ends it: it calls Abandon, and
// from then on every change, parked ones first, reports success and does
// nothing, so that Pebble can finish what it is at and close. The directory
// stays as after a power cut at the moment of the failure, which is what
// Pebble and the logs are made to start from.
//
// So a success that Pebble reports means nothing once Err is not nil. A log
// may be truncated behind a flush only if Flush of this package has returned
// nil: it asks Err after the flush, and does not wait for a parked one. Close
// does what a shutdown needs, failed or not.
//
// Errors of reading go to Pebble as they are, and so do errors that say how
// things stand: a name that is absent, or there already.
package pebblefs
