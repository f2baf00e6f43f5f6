// Package faultdisk is a disk.FS that breaks on purpose: it passes everything
// to another disk.FS, counts it, and where a Rule says so, fails, writes
// short, corrupts, drops, or holds it up.
//
// A rule matches an operation by kind, path and turn (skip the first n that
// match, then fire m times). Rules may be added and removed while I/O goes on.
// Of the rules that fire on an operation, all Before functions run, and the
// first that has an effect decides. Quotas make a subtree run full and give
// the room back when files shrink or go.
//
// A file's operations are matched and counted under the name it was opened by,
// also after a rename.
//
// When a rule fails a Datasync or Sync, the operation does not reach the disk
// below; if that has a method SyncFailed (package crashdisk does), it is told,
// so that what was unsynced is lost as on Linux.
package faultdisk
