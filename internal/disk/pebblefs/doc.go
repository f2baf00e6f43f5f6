// Package pebblefs is the disk under Pebble: a vfs.FS over a disk.FS that decides
// what is done about errors of the disk, so that Pebble does not.
//
// Pebble ends the process when it cannot write its manifest, and a full disk is an
// error like any other to it. Here Pebble's WAL is off, and every Pebble holds only
// what logs of our own can rebuild. So its disk may stand still:
//
//   - Disk full (ENOSPC, EDQUOT) on a write, a create or a name: the call waits
//     and tries again until there is room. OnFull is called once a second, however
//     many calls wait. Pebble's own back pressure then makes writers wait.
//   - No descriptor, no memory, no right (disk.Scarce, disk.Denied): nothing was
//     changed, and the call tries again, for 10 s.
//   - Disk full in a sync of a file: the part of the file that is not durable is
//     read back, compared with the sum of what was written, written again, and
//     synced again, until there is room. If it cannot be read back, the store fails.
//   - Any other error of a change, and any other failed sync: it is not known any
//     more what the disk holds, so the store has failed. OnFailure is called once,
//     and Failed is closed. This call and every later change park: they neither
//     return nor touch the disk. Reads go on.
//
// Pebble never sees these errors. The owner of the store calls Abandon. From then on
// every change, parked ones first, reports success and does nothing, so that Pebble
// can finish its work and close. The directory stays as after a power cut at the
// moment of the failure. Pebble and the logs are made to start from that.
//
// So a success that Pebble reports means nothing once Err is not nil. A log may be
// truncated behind a flush only if Flush of this package has returned nil: it checks
// Err after the flush, and does not wait for a parked one. Close does what a shutdown
// needs, failed or not.
//
// Pebble sees errors of reads as they are, and errors that say how things stand: a
// name that is absent, or there already.
package pebblefs
